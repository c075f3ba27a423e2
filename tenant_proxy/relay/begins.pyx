"""A BEGIN takes no server: it is answered here, and sent to a server ahead of the first statement behind it.

So a transaction in which nothing happens holds none.  What a transaction's times are (now() and the like) is
the server's to say, hence counted from its first statement.  The first statement waits until the server has
begun: were both sent in one write, and BEGIN failed, it would run outside of a transaction.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, strlen
from posix.strings cimport strncasecmp

from tenant_proxy.pool.pool cimport (
    ACT_BEGIN, ACT_SKIP, CL_WAITING, PACE_COUNTED, R_CLOSE, R_PARSE, R_QUERY, Client, Server, Stmt, ring_at, ring_push,
)
from tenant_proxy.relay.hearing cimport tell_notes
from tenant_proxy.relay.core cimport (
    EFF_ALLOWED, EFF_BEGINS, EFF_COMMITS, EFF_ROLLS_BACK, EFF_SETTINGS, EFF_STARTS, EFF_XACT_CONTROL, Relay,
)
from tenant_proxy.wire.consts cimport XACT_FAILED, XACT_IDLE, XACT_OPEN, put_u32, read_u32

cdef enum:
    BEGIN_LIMIT = 1024              # a longer one is the server's to read
    REPEAT_LIMIT = 4096             # of a BEGIN and what is repeated with it
    EMPTY = 6                       # a Query without text
    SPENT = 0xffffffff              # instead of `bound_size`: it was executed

cdef enum:
    # of a batch
    KEEPS_ALL = 1                   # what it runs is repeated
    KEEPS_SOME = 2                  # it runs something else too

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
        c.repeats_sets = c.has_read = c.batch_keeps = 0
        c.bound_size = 0
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
    if c.repeats_sets:
        s.settings_changed = 1
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
        forget_began(c)
        c.began = c.begun
        c.began_size = c.begun_size
        c.begun = NULL
    forget_begun(c)
    c.answered = failed


# --- what is repeated where a transaction begins anew ------------------------------------------
#
# What SET and SAVEPOINT did is as good as never done on a server that rolls it back, and done again by the same text.
# The texts go in one Query behind the BEGIN, so that none runs if that fails.  The server reads all of it before it runs
# any, so texts that a setting among them could make it read otherwise are not repeated.


cdef inline bint may_repeat(uint32_t effects) noexcept nogil:
    return not effects & ~<uint32_t> (EFF_ALLOWED | EFF_SETTINGS | EFF_XACT_CONTROL)


cdef bint is_repeatable(const char *sql, size_t n) noexcept nogil:
    # What else has no more effects than these is told by its first word: ROLLBACK TO may have followed an error.
    cdef size_t i
    for i in range(n):
        if <uint8_t> sql[i] >= 128 or sql[i] == b'\\':
            return False
    while n and (sql[0] == b' ' or sql[0] == b'\n' or sql[0] == b'\t' or sql[0] == b'\r'):
        sql += 1
        n -= 1
    # a NUL is behind it
    return n and (strncasecmp(sql, b"SET ", 4) == 0 or strncasecmp(sql, b"SAVEPOINT ", 10) == 0
                  or strncasecmp(sql, b"BEGIN", 5) == 0 or strncasecmp(sql, b"START ", 6) == 0)


cdef bint add_text(Client *c, const char *sql, size_t n) noexcept nogil:
    # behind `began`, without being part of it yet
    cdef char *longer
    if c.began_size + n + 2 > REPEAT_LIMIT or not is_repeatable(sql, n):
        return False
    longer = <char *> realloc(c.began, c.began_size + n + 2)
    if longer == NULL:
        return False
    c.began = longer
    # in place of the NUL; what is before may end with a comment
    memcpy(longer + c.began_size - 1, b"\n;", 2)
    memcpy(longer + c.began_size + 1, sql, n)
    longer[c.began_size + 1 + n] = 0
    c.bound_size = <uint32_t> n + 2
    return True


cdef void take_text(Client *c, uint32_t effects) noexcept nogil:
    c.began_size += c.bound_size
    put_u32(&c.began[1], c.began_size - 1)
    c.bound_size = 0
    if effects & EFF_SETTINGS:
        c.repeats_sets = 1


cdef uint16_t keep_begun(Client *c, uint32_t effects, const char *sql, size_t n) noexcept nogil:
    # of a simple Query that goes to the server, as it is; returns what it is marked with
    if c.began == NULL:
        return 0
    drop_bound(c)
    if not may_repeat(effects):
        return 0
    if not add_text(c, sql, n):
        forget_began(c)
        return 0
    take_text(c, effects)
    return ACT_KEPT


cdef bint is_first_bound(Server *s) noexcept nogil:
    # whether nothing of the client's runs before what is bound now
    cdef uint32_t i
    cdef uint8_t request
    for i in range(s.ring.count):
        request = ring_at(&s.ring, i).request
        if request != R_PARSE and request != R_CLOSE and not ring_at(&s.ring, i).action & ACT_SKIP:
            return False
    return s.pool.is_group and s.xact_status == XACT_IDLE and not s.batch_runs and not s.skipping


cdef void keep_bound(Client *c, Stmt *t, bint rewritten, bint named) noexcept nogil:
    # of what a portal is bound to (`t` NULL: not known here)
    drop_bound(c)
    if c.began != NULL and c.began_size == EMPTY:
        # its BEGIN was not executed
        forget_began(c)
    if t != NULL and t.effects & (EFF_BEGINS | EFF_STARTS) and c.began == NULL and is_first_bound(c.server):
        # one that a driver has prepared, so that it is not answered here: first nothing, and then it
        c.began = <char *> malloc(EMPTY)
        if c.began != NULL:
            memcpy(c.began, b"Q\0\0\0\5\0", EMPTY)
            c.began_size = EMPTY
            c.repeats_sets = c.has_read = c.batch_keeps = 0
            if rewritten or named or not add_text(c, t.body, strlen(t.body)):
                forget_began(c)
    elif c.began == NULL:
        pass
    elif named:
        # it may be read on later
        forget_began(c)
    elif t != NULL and not may_repeat(t.effects):
        c.batch_keeps = KEEPS_SOME
    elif t == NULL or rewritten or not add_text(c, t.body, strlen(t.body)):
        forget_began(c)


cdef uint16_t keep_executed(Client *c, bint unnamed) noexcept nogil:
    if c.began == NULL or not c.bound_size:
        return 0
    if c.bound_size == SPENT or not unnamed:
        forget_began(c)
        return 0
    # whether it sets anything is not told apart here
    take_text(c, EFF_SETTINGS if c.began_size > EMPTY else 0)
    c.bound_size = SPENT
    if not c.batch_keeps:
        c.batch_keeps = KEEPS_ALL
    return ACT_KEPT


cdef uint16_t keep_batch(Client *c) noexcept nogil:
    # of the Sync at its end: since 14, PostgreSQL tells only then which settings have changed (ReportChangedGUCOptions)
    cdef uint8_t keeps = c.batch_keeps
    c.batch_keeps = 0
    return ACT_KEPT if keeps == KEEPS_ALL else 0


cdef inline void drop_bound(Client *c) noexcept nogil:
    if c.bound_size and c.bound_size != SPENT:
        c.began[c.began_size - 1] = 0
    c.bound_size = 0


cdef void set_unseen(Client *c, uint16_t action) noexcept nogil:
    # A setting has changed in the answer to what is marked so: if it is not repeated, the transaction can't be.
    if c.began != NULL and not action & ACT_KEPT:
        forget_began(c)


cdef void begins_anew(Client *c) noexcept nogil:
    # no server has the transaction any more
    drop_bound(c)
    c.begun = c.began
    c.begun_size = c.began_size
    c.begun_failed = 0
    c.began = NULL


cdef void forget_began(Client *c) noexcept nogil:
    free(c.began)
    c.began = NULL
    c.bound_size = 0


cdef void forget_begun(Client *c) noexcept nogil:
    free(c.begun)
    c.begun = NULL
    c.begun_failed = 0
