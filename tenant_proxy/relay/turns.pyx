"""Turns: a shared server is a tenant's for one transaction, by the server's own means.

Where a server that is nobody's will go to another tenant next, and all that its client asks for is one
implicit transaction that only reads, the switch is set for that transaction alone (`set_config(…, true)`), in
front of the client's bytes and in the same transaction: a Bind and an Execute of a statement that the server
knows, without a Sync.  At its end, however it ends, PostgreSQL makes the server nobody's again and arms it.
One transaction, one answer and no text to be read, where a switch, what disarms it and what leads back are
four (docs/decisions/0020-turns.md).

In the extended protocol the server drops everything up to the next Sync when an error has come
(PostgresMain in src/backend/tcop/postgres.c), so whatever goes wrong in the switch, nothing behind it runs,
armed or not.  A text of the simple protocol goes as Parse, Bind, Describe, Execute and Sync, and what only
these are answered with is left out.
"""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memchr, memcpy

from tenant_proxy.pool.pool cimport (
    ACT_AHEAD, ACT_ALIKE, ACT_REWRITTEN, ACT_SKIP, AHEAD_DUE, AHEAD_NONE, AHEAD_SENT, CL_ACTIVE, CL_PARTING, R_BIND,
    R_CLOSE, R_DESCRIBE, R_EXECUTE, R_PARSE, R_QUERY, R_SYNC, Client, Pool, Server, ring_at, ring_head, ring_pop,
    ring_push, ring_push_front,
)
from tenant_proxy.relay.core cimport SETTINGS_FAILED, Burst, Relay
from tenant_proxy.relay.pairing cimport client_fail, others_next
from tenant_proxy.relay.replay cimport kept_drop, kept_room
from tenant_proxy.relay.switching cimport up_ahead
from tenant_proxy.wire.consts cimport put_u32, read_u32

cdef enum:
    TEXT_MOST = 16384           # a simple query above this goes as it is
    BEHIND_BYTES = 35           # BEHIND_TEXT: Bind, Describe, Execute, Sync
    AROUND_TEXT = 8 + BEHIND_BYTES

cdef const char *BEHIND_TEXT = b"B\0\0\0\x0c\0\0\0\0\0\0\0\0D\0\0\0\6P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\4"


cdef bint turn_flush(Relay e, Burst *b, Client *c, Server *s) noexcept nogil:
    # At the end of a client's burst, all of which has been read: whether it has gone as a turn.
    cdef Pool *p = c.pool
    cdef size_t n = e.batch_size + b.run_size
    cdef size_t start
    cdef bint simple, parses
    cdef char *at
    if (s.ahead != AHEAD_DUE or not p.turn_number or not s.may_turn or not s.may_rest or s.arming or s.touched
            or s.stmts.count or s.batch_open or s.skipping or s.settings_changed or s.close_needed or s.cancels
            or b.knows or c.phase != CL_ACTIVE or c.tells or c.listens or c.stream_left or n == 0
            or not others_next(e, s)):
        return False
    simple = is_lone_query(e, b, s)
    # the pool's messages may be another client's by now
    if (not simple and not is_lone_batch(s)) or up_ahead(e, c) != 0 or not p.turn_number:
        return False
    parses = not s.turns >> p.turn_number & 1
    start = p.turn_size + (p.turn_parse_size if parses else 0)
    if ring_push_front(&s.ring, R_EXECUTE, ACT_SKIP | ACT_AHEAD) != 0 \
            or ring_push_front(&s.ring, R_BIND, ACT_SKIP | ACT_AHEAD) != 0 \
            or (parses and ring_push_front(&s.ring, R_PARSE, ACT_SKIP | ACT_AHEAD) != 0) \
            or (simple and not is_spelled_out(s)) or not kept_room(s, start + n + AROUND_TEXT):
        # without a switch nothing may go, and no error is so bad that it could
        e.batch_size = b.run_size = 0
        client_fail(e, c, SETTINGS_FAILED, 0)
        return True
    at = s.kept
    if parses:
        memcpy(at, p.turn_parse, p.turn_parse_size)
        at += p.turn_parse_size
        s.turns |= <uint32_t> 1 << p.turn_number
    memcpy(at, p.turn, p.turn_size)
    at += p.turn_size
    if simple:
        at = spell_out(at, b.run, b.run_size)
    else:
        memcpy(at, e.batch, e.batch_size)
        at += e.batch_size
        memcpy(at, b.run, b.run_size)
        at += b.run_size
    s.kept_start = start
    s.kept_size = at - s.kept
    s.ahead = AHEAD_SENT
    s.turn = 1
    s.arming = 1
    c.phase = CL_PARTING
    e.batch_size = b.run_size = 0
    e.send(&s.link, s.kept, s.kept_size)
    return True


cdef void turn_made(Server *s) noexcept nogil:
    # CommandComplete of its switch: what is behind it may have run
    s.ahead = AHEAD_NONE
    kept_drop(s)


cdef inline bint is_lone_query(Relay e, Burst *b, Server *s) noexcept nogil:
    # A simple query as the client has sent it, which reads alike in the extended protocol: there `$1` is a
    # parameter, here it is an error.
    return (s.ring.count == 1 and ring_head(&s.ring).request == R_QUERY and ring_head(&s.ring).action == 0
            and e.batch_size == 0 and b.run_size <= TEXT_MOST and read_u32(b.run + 1) + 1 == b.run_size
            and memchr(b.run + 5, b'$', b.run_size - 5) == NULL)


cdef bint is_lone_batch(Server *s) noexcept nogil:
    # messages of the extended protocol up to a Sync, the only one
    cdef uint32_t i
    cdef uint16_t action
    for i in range(s.ring.count):
        action = ring_at(&s.ring, i).action
        if i + 1 == s.ring.count:
            return ring_at(&s.ring, i).request == R_SYNC and action == 0
        if action & ~(ACT_REWRITTEN | ACT_SKIP) or not is_of_batch(ring_at(&s.ring, i).request):
            return False
    return False


cdef inline bint is_of_batch(int request) noexcept nogil:
    return (request == R_PARSE or request == R_BIND or request == R_DESCRIBE or request == R_EXECUTE
            or request == R_CLOSE)


cdef inline bint is_spelled_out(Server *s) noexcept nogil:
    # The simple query, which comes last, becomes what it is spelled out as; False: no memory
    s.ring.count -= 1
    return (ring_push(&s.ring, R_PARSE, ACT_ALIKE, NULL, 0) == 0 and ring_push(&s.ring, R_BIND, ACT_ALIKE, NULL, 0) == 0
            and ring_push(&s.ring, R_DESCRIBE, ACT_ALIKE, NULL, 0) == 0
            and ring_push(&s.ring, R_EXECUTE, 0, NULL, 0) == 0 and ring_push(&s.ring, R_SYNC, 0, NULL, 0) == 0)


cdef char *spell_out(char *at, const char *query, size_t size) noexcept nogil:
    # where it ends; `size` is the Query message's
    cdef size_t text = size - 5
    at[0] = b'P'
    put_u32(at + 1, <uint32_t> (4 + 1 + text + 2))
    at[5] = 0
    memcpy(at + 6, query + 5, text)
    at += 6 + text
    at[0] = at[1] = 0
    memcpy(at + 2, BEHIND_TEXT, BEHIND_BYTES)
    return at + 2 + BEHIND_BYTES
