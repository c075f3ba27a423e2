"""Types that a Parse declares its parameters to be of: whose they are.

A Parse names types by their numbers, which anybody may guess, and PostgreSQL asks for no right to use one.  Of another
tenant's a client would learn columns and labels; and what belongs to a type would run for it: the functions that a
domain checks values by and those of casts, with their owner's rights if they are so made.  So whose a type is has to
be known before the Parse goes.  What comes with PostgreSQL is everybody's; of others the client's server is asked
once for each worker and scope, ahead of the message, which waits for the answer.

On another cluster, where a tenant has been moved to, a number is another type's: statements that were let through
before with such types are refused as those whose plan has changed, so that drivers prepare them anew.
"""

from libc.stdint cimport uint32_t
from libc.string cimport strlen

from tenant_proxy.pool.pool cimport (
    ACT_SKIP, R_BIND, R_CLOSE, R_EXECUTE, R_PARSE, R_QUERY, ring_at, ring_push,
)
from tenant_proxy.relay.core cimport refusal_data, refusal_size, session_of
from tenant_proxy.relay.preparing cimport write_parse
from tenant_proxy.relay.requests cimport burst_write
from tenant_proxy.wire.consts cimport XACT_FAILED, XACT_IDLE, put_u32, read_u32

cdef enum:
    FIRST_OWN = 16384               # FirstNormalObjectId (src/include/access/transam.h)
    NAME_SIZE = 9
    BEHIND_SIZE = 67
    MOST_TYPES = 64                 # of a Parse that are not PostgreSQL's own
    ASK = 3                         # of up_declared(): `refusal` holds the question

cdef const char *NAME = b"tp_types"
#: Close: it may have been left by a batch that failed
cdef const char *AHEAD = b"C\0\0\0\x0eStp_types\0"
#: Bind, Execute, Close, Flush
cdef const char *BEHIND = (
    b"B\0\0\0\x1ctp_types\0tp_types\0\0\0\0\0\0\0"
    b"E\0\0\0\x11tp_types\0\0\0\0\0"
    b"C\0\0\0\x0ePtp_types\0"
    b"H\0\0\0\x04"
)


cdef bint has_own(const char *types, size_t size) noexcept nogil:
    # any that does not come with PostgreSQL
    cdef size_t at
    for at in range(0, size, 4):
        if read_u32(types + at) >= FIRST_OWN:
            return True
    return False


cdef size_t distinct_own(const char *types, size_t size, char *found) noexcept nogil:
    # each of them once; one more than MOST_TYPES: more
    cdef size_t at, i, count = 0
    cdef uint32_t oid, last = 0
    for at in range(0, size, 4):
        oid = read_u32(types + at)
        if oid < FIRST_OWN or oid == last:
            continue
        last = oid
        i = 0
        while i < count and read_u32(found + 4 * i) != oid:
            i += 1
        if i == count:
            put_u32(found + 4 * count, oid)
            count += 1
            if count > MOST_TYPES:
                break
    return count


cdef int declared_check(Relay e, Client *c, Burst *b, Server *s, const char *types, size_t size,
                        bint unnamed) noexcept nogil:
    cdef uint32_t i
    cdef int how
    cdef char own[4 * (MOST_TYPES + 1)]
    cdef size_t count
    if c.pool.guard_mode != 0:
        return DECLARED_GOES
    count = distinct_own(types, size, own)
    if count == 0:
        return DECLARED_GOES
    if s.xact_status == XACT_FAILED and not s.batch_open and s.ring.count == 0:
        # nothing but its end is parsed, and no end of it is on its way
        return DECLARED_GOES
    for i in range(s.ring.count):
        if ring_at(&s.ring, i).action & ACT_DECLARED:
            e.pause(&c.link)
            return DECLARED_HELD
    how = up_declared(e, c, own, 4 * count)
    if how != ASK:
        return how
    if s.xact_status == XACT_IDLE and not s.batch_open and s.ring.count == 0 and (c.tracks or unnamed):
        # a transaction of its own: what follows may be a statement that must be the first of its own
        ask_alone(e, b, s)
    else:
        ask_in_batch(e, b, s)
    e.pause(&c.link)
    return DECLARED_HELD


cdef bint declared_elsewhere(Relay e, Client *c, uint32_t scope, const char *types, size_t size) noexcept nogil:
    if not has_own(types, size) or c.pool.guard_mode != 0 or c.pool.scope == 0:
        # 0: nothing is judged before it is known what a server has installed
        return False
    with gil:
        try:
            return e.hooks.declared_elsewhere(scope, c.pool.scope)
        except Exception:
            e.log.exception("where the types of parameters are")
            return True


cdef void ask_alone(Relay e, Burst *b, Server *s) noexcept nogil:
    # takes the server's unnamed statement away
    cdef char m[5]
    m[0] = b'Q'
    put_u32(&m[1], <uint32_t> (4 + refusal_size(e) + 1))
    burst_write(e, b, m, 5)
    burst_write(e, b, refusal_data(e), refusal_size(e))
    burst_write(e, b, b"", 1)
    ring_push(&s.ring, R_QUERY, ACT_SKIP | ACT_DECLARED, NULL, 0)
    s.unnamed_id = 0


cdef void ask_in_batch(Relay e, Burst *b, Server *s) noexcept nogil:
    burst_write(e, b, AHEAD, 15)
    ring_push(&s.ring, R_CLOSE, ACT_SKIP, NULL, 0)
    with gil:
        # write_parse() takes what is behind the text along: NUL, and no types
        question = (<bytes> e.refusal) + b"\0\0\0"
        write_parse(e, b, NAME, strlen(NAME), <const char *> question, len(question))
    ring_push(&s.ring, R_PARSE, ACT_SKIP, NULL, 0)
    burst_write(e, b, BEHIND, BEHIND_SIZE)
    ring_push(&s.ring, R_BIND, ACT_SKIP, NULL, 0)
    ring_push(&s.ring, R_EXECUTE, ACT_SKIP | ACT_DECLARED, NULL, 0)
    ring_push(&s.ring, R_CLOSE, ACT_SKIP, NULL, 0)
    s.batch_open = 1


# --- upcalls --------------------------------------------------------------------------


cdef int up_declared(Relay e, Client *c, const char *types, size_t size) noexcept nogil:
    with gil:
        try:
            found = e.hooks.declared(c.link.id, session_of(e, c), c.pool.scope | c.codec_bits, types[:size])
            if found is None:
                return DECLARED_GOES
            refused, e.refusal = found
            return DECLARED_REFUSED if refused else ASK
        except Exception:
            e.log.exception("whose the types of parameters are")
            e.refusal = e.hooks.bug_message()
            return DECLARED_REFUSED


cdef void up_declared_answer(Relay e, Server *s, const char *tag, size_t n) noexcept nogil:
    # the CommandComplete; NULL: an error has come instead, or before
    if s.client == NULL:
        return
    with gil:
        try:
            e.hooks.declared_answer(s.client.link.id, tag[:n] if tag != NULL else None)
        except Exception:
            e.log.exception("whose the types of parameters are")
