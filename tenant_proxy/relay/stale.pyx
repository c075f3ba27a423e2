"""Statements whose plans a server finds outdated, asked again as if they had just been made.

A server that knows a statement from before its tables were changed answers "cached plan must not change
result type".  Where the change was made past the proxy nobody has said so, and a client whose Parse the proxy
has answered itself gets an error that a session of its own would not have.  Nothing of its batch has run
then: the statement is made anew under the same name, and the batch sent a second time.

Only where that is sure: the batch is all that the server has been asked since it was at rest, outside a
transaction; the error is its first answer; and the client is told in the same batch what the rows are, and was not
before (relay.told): who was has prepared it before they changed, and would get the error in a session of its own
too.  Such a batch is kept until it is answered.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy, strcmp

from tenant_proxy.pool.pool cimport (
    ACT_FAKE, ACT_REWRITTEN, ACT_SKIP, R_BIND, R_CLOSE, R_DESCRIBE, R_FUNCTION, R_PARSE, R_QUERY, R_SYNC, Client,
    Outstanding, Server, ServerStmt, Stmt, ring_at, ring_head, ring_push_front,
)
from tenant_proxy.relay.marks cimport define, definitions
from tenant_proxy.relay.statements cimport NAME_BYTES, server_name, stmt_retire
from tenant_proxy.relay.told cimport untell
from tenant_proxy.wire.consts cimport B_ERROR, F_BIND, XACT_IDLE, put_u32, read_u32
from tenant_proxy.wire.ptrmap cimport map_get

cdef enum:
    ASKED_BYTES = 8192              # of a batch that is kept
    FAKES = 8                       # answers of the proxy's own ahead of it


# --- before it is sent ---------------------------------------------------------------


cdef bint is_first(Relay e, Burst *b, Server *s) noexcept nogil:
    # the server will have been asked nothing but what comes next since it was at rest
    cdef uint32_t i
    if not b.fresh or e.batch_size + b.run_size or s.xact_status != XACT_IDLE or s.ahead or s.ring.count > FAKES:
        return False
    for i in range(s.ring.count):
        if not ring_at(&s.ring, i).action & ACT_FAKE:
            return False
    return True


cdef void remember(Relay e, Burst *b, Client *c, Server *s) noexcept nogil:
    # a burst that is about to be sent, which begins with a Bind or Describe of the statement that it knows
    cdef size_t n = e.batch_size + b.run_size
    cdef char *where
    s.asked_size = 0
    if n > ASKED_BYTES or c.stream_left or s.arming:
        return
    if n > s.asked_cap:
        where = <char *> realloc(s.asked, n)
        if where == NULL:
            return
        s.asked = where
        s.asked_cap = <uint32_t> n
    memcpy(s.asked, e.batch, e.batch_size)
    if b.run_size:
        memcpy(s.asked + e.batch_size, b.run, b.run_size)
    s.asked_size = <uint32_t> n
    s.asked_stmt = b.knows


# --- when it is answered -------------------------------------------------------------


cdef bint asked_anew(Relay e, Server *s, char *message, size_t total) noexcept nogil:
    # The first answer to what is remembered is an error.  True: nobody is told of it, and the batch is sent again.
    cdef ServerStmt *known = <ServerStmt *> map_get(&s.stmts, s.asked_stmt)
    cdef uint32_t n = s.asked_size
    cdef bint ends = False
    s.asked_size = 0
    if known == NULL or s.client == NULL or not is_stale(message, total):
        return False
    if known.stmt.generation == definitions(e, s.client.pool):
        # they have changed without a word: from here on that is known
        define(e, s.client.pool)
    if s.close_needed or s.cancels or not tells(s, n, &ends):
        return False
    make_anew(e, s, known.stmt, ends)
    known.generation = definitions(e, s.client.pool)
    known.rows = 0
    untell(s.client, known.stmt)
    e.send(&s.link, s.asked, n)
    return True


cdef int is_described(Relay e, Server *s, char *message, size_t n, size_t total) noexcept nogil:
    # Of what is remembered comes a ParameterDescription of `total` bytes: what is behind it says whether it holds,
    # as the server looks at the plan only then.  0: it goes to the client; -1: that is not here yet; 1: it is of no
    # more use than the error behind it, and the batch is sent again.
    cdef size_t size
    if n < total + 5:
        s.link.need = total + 5
        return -1
    if message[total] != B_ERROR:
        s.asked_size = 0
        return 0
    size = <size_t> read_u32(message + total + 1) + 1
    if n < total + size and size < ASKED_BYTES:
        s.link.need = total + size
        return -1
    return n >= total + size and asked_anew(e, s, message + total, size)


cdef void make_anew(Relay e, Server *s, Stmt *t, bint ends) noexcept nogil:
    # ahead of all that is outstanding
    cdef char m[6 + NAME_BYTES]
    cdef size_t k = server_name(t, &m[6]) + 1
    if not ends:
        # the server ignores all up to a Sync
        e.send(&s.link, b"S\0\0\0\4", 5)
    m[0] = b'C'
    put_u32(&m[1], <uint32_t> (5 + k))
    m[5] = b'S'
    e.send(&s.link, m, 6 + k)
    m[0] = b'P'
    put_u32(&m[1], <uint32_t> (4 + k + t.size))
    e.send(&s.link, m, 5)
    e.send(&s.link, &m[6], k)
    e.send(&s.link, t.body, t.size)
    ring_push_front(&s.ring, R_PARSE, ACT_SKIP)
    ring_head(&s.ring).arg = t
    t.refs += 1
    ring_push_front(&s.ring, R_CLOSE, ACT_SKIP)
    ring_push_front(&s.ring, R_SYNC, ACT_SKIP)
    s.client.pool.server_parses += 1


cdef bint is_stale(char *message, size_t total) noexcept nogil:
    # by the function that says so (src/backend/utils/cache/plancache.c): the words are translated, and
    # feature_not_supported has many meanings
    cdef char *end = message + total
    cdef char *field = message + 5
    cdef char *value
    if total < 7 or message[total - 1] != 0:
        return False
    while field < end and field[0] != 0:
        value = field + 1
        if field[0] == b'C' and strcmp(value, b"0A000") != 0:
            return False
        if field[0] == b'R':
            return strcmp(value, b"RevalidateCachedQuery") == 0
        field = <char *> memchr(field, 0, end - field) + 1
    return False


cdef bint tells(Server *s, uint32_t n, bint *ends) noexcept nogil:
    # Whether the batch is one, and tells its client what the rows are; `ends`: its Sync is part of it.
    cdef Outstanding *o = ring_head(&s.ring)
    cdef uint32_t i
    if o == NULL or o.action & ~<int> ACT_REWRITTEN:
        return False
    if o.request == R_BIND:
        if s.ring.count < 2 or ring_at(&s.ring, 1).request != R_DESCRIBE or not takes_any(s.asked, n):
            return False
    elif o.request != R_DESCRIBE:
        return False
    for i in range(s.ring.count):
        o = ring_at(&s.ring, i)
        if o.request == R_QUERY or o.request == R_FUNCTION:
            return False
        if o.request == R_SYNC:
            ends[0] = True
            return i == s.ring.count - 1
    return True


cdef bint takes_any(char *m, uint32_t n) noexcept nogil:
    # Whether a Bind asks for the same format of all columns, however many there are.
    cdef size_t at = 5
    cdef size_t end
    cdef uint32_t size
    cdef int name, k, count
    if n < 7 or m[0] != F_BIND:
        return False
    end = <size_t> read_u32(m + 1) + 1
    if end > n:
        return False
    for name in range(2):
        while at < end and m[at] != 0:
            at += 1
        at += 1
    if at + 2 > end:
        return False
    at += 2 + 2 * ((<unsigned char> m[at] << 8) | <unsigned char> m[at + 1])
    if at + 2 > end:
        return False
    count = (<unsigned char> m[at] << 8) | <unsigned char> m[at + 1]
    at += 2
    for k in range(count):
        if at + 4 > end:
            return False
        size = read_u32(m + at)
        # -1 is NULL
        at += 4
        if size != <uint32_t> 0xFFFFFFFF:
            at += size
    return at + 2 <= end and m[at] == 0 and <unsigned char> m[at + 1] <= 1


# --- and where nothing can be asked again ------------------------------------------------


cdef void retire_statements(Server *s) noexcept nogil:
    # Which of them it was is not known; all of this server's are parsed anew when clients parse them again.
    cdef size_t i
    if s.stmts.slots != NULL:
        for i in range(s.stmts.mask + 1):
            if s.stmts.slots[i].value != NULL:
                stmt_retire(server_stmt(s, i))


cdef inline Stmt *server_stmt(Server *s, size_t i) noexcept nogil:
    return (<ServerStmt *> s.stmts.slots[i].value).stmt
