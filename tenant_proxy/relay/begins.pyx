"""A BEGIN takes no server: it is answered here, and sent to a server ahead of the first statement behind it.

So a transaction in which nothing happens holds none.  What a transaction's times are (now() and the like) is
the server's to say, hence counted from its first statement.  The first statement waits until the server has
begun: were both sent in one write, and BEGIN failed, it would run outside of a transaction.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from tenant_proxy.pool.pool cimport ACT_BEGIN, ACT_SKIP, CL_WAITING, PACE_COUNTED, R_QUERY, Client, Server, ring_push
from tenant_proxy.relay.hearing cimport tell_notes
from tenant_proxy.relay.core cimport EFF_BEGINS, EFF_COMMITS, EFF_ROLLS_BACK, EFF_STARTS, Relay
from tenant_proxy.wire.consts cimport XACT_FAILED, XACT_IDLE, XACT_OPEN, put_u32, read_u32

cdef enum:
    BEGIN_LIMIT = 1024              # a longer one is the server's to read

cdef enum:
    ALONE = EFF_BEGINS | EFF_STARTS | EFF_COMMITS | EFF_ROLLS_BACK


cdef bint without_server(
    Relay e, Client *c, uint32_t effects, const char *sql, size_t size, const char *head, size_t head_size
) noexcept nogil:
    # Answers a BEGIN, or what ends a transaction in which nothing has happened; `head` goes before.
    if not effects & ALONE or not c.pool.defers or not c.tracks or c.server != NULL:
        return False
    if c.begun == NULL:
        if not effects & (EFF_BEGINS | EFF_STARTS) or size > BEGIN_LIMIT:
            return False
        c.begun = <char *> malloc(size + 6)
        if c.begun == NULL:
            return False
        c.begun[0] = b'Q'
        put_u32(&c.begun[1], <uint32_t> size + 5)
        memcpy(c.begun + 5, sql, size)
        c.begun[5 + size] = 0
        c.begun_size = <uint32_t> size + 6
        c.begun_failed = 0
        e.send(&c.link, head, head_size)
        if effects & EFF_BEGINS:
            answer(e, c, b"C\0\0\0\x0aBEGIN\0Z\0\0\0\5T", 17)
        else:
            answer(e, c, b"C\0\0\0\x16START TRANSACTION\0Z\0\0\0\5T", 29)
        return True
    if not effects & (EFF_COMMITS | EFF_ROLLS_BACK):
        return False
    e.send(&c.link, head, head_size)
    if effects & EFF_COMMITS and not c.begun_failed:
        answer(e, c, b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\5I", 18)
    else:
        answer(e, c, b"C\0\0\0\x0dROLLBACK\0Z\0\0\0\5I", 20)
    forget_begun(c)
    c.pool.xacts += 1
    c.pool.usage.xacts += 1
    return True


cdef size_t batch_without_server(
    Relay e, Client *c, uint32_t effects, const char *sql, size_t size, const char *rest, size_t n
) noexcept nogil:
    # As `without_server`, of a Parse of the unnamed statement: where the rest of its batch is here, and only runs it.
    # Returns the bytes of that, 0: it is the server's.
    cdef size_t k = 0
    cdef bint described
    if not effects & ALONE or c.server != NULL or n < 16 or rest[0] != b'B':
        return 0
    # a Bind without values
    k = <size_t> read_u32(rest + 1) + 1
    if (k < 13 or k > n or memcmp(rest + 5, b"\0\0\0\0\0\0", 6) != 0
            or k != 13 + 2 * (<size_t> <uint8_t> rest[11] << 8 | <uint8_t> rest[12])):
        return 0
    described = n - k >= 7 and memcmp(rest + k, b"D\0\0\0\6P\0", 7) == 0
    if described:
        k += 7
    if n - k < 15 or memcmp(rest + k, b"E\0\0\0\x09\0", 6) != 0 or memcmp(rest + k + 10, b"S\0\0\0\4", 5) != 0:
        return 0
    if not without_server(e, c, effects, sql, size, b"1\0\0\0\0042\0\0\0\4n\0\0\0\4", 15 if described else 10):
        return 0
    if c.paced == PACE_COUNTED:
        c.paced = 0
    return k + 15


cdef void answer(Relay e, Client *c, const char *message, size_t n) noexcept nogil:
    c.xact_status = message[n - 1]
    c.pool.queries += 1
    c.pool.usage.queries += 1
    # a ReadyForQuery is its end
    e.send(&c.link, message, n - 6)
    if c.xact_status == XACT_IDLE:
        tell_notes(e, c)
    e.send(&c.link, message + n - 6, 6)


cdef char status_without(Client *c) noexcept nogil:
    # of the transaction of a client that has no server
    if c.begun == NULL:
        return XACT_IDLE
    return XACT_FAILED if c.begun_failed else XACT_OPEN


cdef void begin_on(Relay e, Client *c, Server *s) noexcept nogil:
    # With the burst, of which it is the first: the client had no server before.  Its next message waits.
    ring_push(&s.ring, R_QUERY, ACT_SKIP | ACT_BEGIN, NULL, 0)
    e.batch_add(c.begun, c.begun_size)
    if c.begun_failed:
        # and as nothing but its end may run in it, the server is brought to see it so
        ring_push(&s.ring, R_QUERY, ACT_SKIP, NULL, 0)
        e.batch_add(b"Q\0\0\0\x1eSELECT refused_by_proxy()\0", 31)
    s.unnamed_id = 0
    s.may_rest = 0
    c.phase = CL_WAITING
    e.pause(&c.link)


cdef void begun(Server *s, bint failed) noexcept nogil:
    # the server has answered the BEGIN
    cdef Client *c = s.client
    if c == NULL:
        return
    if s.pool.is_group and not failed and not c.begun_failed:
        c.began = c.begun
        c.began_size = c.begun_size
        c.begun = NULL
    forget_begun(c)
    c.answered = failed


cdef void begins_anew(Client *c) noexcept nogil:
    # no server has the transaction any more
    c.begun = c.began
    c.begun_size = c.began_size
    c.begun_failed = 0
    c.began = NULL


cdef void forget_began(Client *c) noexcept nogil:
    free(c.began)
    c.began = NULL


cdef void forget_begun(Client *c) noexcept nogil:
    free(c.begun)
    c.begun = NULL
    c.begun_failed = 0
