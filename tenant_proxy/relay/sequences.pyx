"""What a session has last had of its sequences, in transaction mode: never another client's.

A server remembers it for whoever asks, so it is noted who may have used sequences there last.  A statement with
currval() or lastval() of that client goes there if it can; on a server where it was another, the server forgets first,
and says that the session has no such value yet.  Once any client of a pool has asked, the server forgets as well
ahead of what may use sequences, where another client was last: it may use none, and what it then asks for would be
that client's.
"""

from tenant_proxy.net.reactor cimport KIND_SERVER, Link
from tenant_proxy.pool.pool cimport (
    ACT_SKIP, R_BIND, R_CLOSE, R_EXECUTE, R_PARSE, R_QUERY, SV_IDLE, idle_push, idle_remove, ring_push,
)
from tenant_proxy.relay.core cimport (
    EFF_ALLOWED, EFF_DDL, EFF_ESCALATES, EFF_MULTI, EFF_OPAQUE, EFF_XACT_CONTROL, NO_NEWS, up_failed_transaction,
)
from tenant_proxy.relay.requests cimport burst_write
from tenant_proxy.wire.consts cimport XACT_FAILED, XACT_IDLE

cdef enum:
    FORGET_BYTES = 105

#: Close, Parse, Bind, Execute: in a batch, which a simple query would end
cdef const char *FORGET = (
    b"C\0\0\0\x0dStp_last\0"
    b"P\0\0\0\x20tp_last\0DISCARD SEQUENCES\0\0\0"
    b"B\0\0\0\x1atp_last\0tp_last\0\0\0\0\0\0\0"
    b"E\0\0\0\x10tp_last\0\0\0\0\0"
    b"C\0\0\0\x0dPtp_last\0"
)


cdef inline bint has_own(Client *c, Server *s) noexcept nogil:
    return not c.tracks or (s.touched_by == c.link.id and c.touched == s.link.id)


cdef int values_check(Relay e, Client *c, Server *s, uint32_t effects) noexcept nogil:
    # Before a simple query with currval() or lastval().  In a transaction that has failed the server can't forget, and
    # a text that ends it asks in the same breath.
    if not effects & EFF_MULTI or not effects & EFF_XACT_CONTROL or has_own(c, s):
        return VALUES_GO
    if s.ring.count and not s.batch_open:
        e.pause(&c.link)
        return VALUES_HELD
    if s.ring.count == 0 and s.xact_status != XACT_FAILED:
        return VALUES_GO
    # as the server says to all but its end
    up_failed_transaction(e)
    return VALUES_REFUSED


cdef void before_touch(Relay e, Client *c, Burst *b, Server *s, uint32_t effects, bint simple) noexcept nogil:
    # A text of which it is not known whether it uses sequences: if it does not, what is there must not be another's.
    if not c.pool.asks_last or not effects & ~<uint32_t> (NO_NEWS | EFF_ALLOWED) or has_own(c, s):
        return
    if not s.batch_open and (simple or s.xact_status == XACT_IDLE):
        own_values(e, c, b, s, True)
    elif s.xact_status != XACT_IDLE or not effects & (EFF_OPAQUE | EFF_DDL | EFF_ESCALATES):
        # outside of a block others may have to be the first of their transaction
        own_values(e, c, b, s, False)


cdef void own_values(Relay e, Client *c, Burst *b, Server *s, bint alone) noexcept nogil:
    # Also where nobody is known to have used any, as a view may have, and where what it knows is the client's, but old.
    # Also in a transaction that has failed, as its end may be on its way; if it is not, the server says so.
    if has_own(c, s):
        return
    s.touched_by = c.link.id
    c.touched = s.link.id
    if alone:
        burst_write(e, b, b"Q\0\0\0\x16DISCARD SEQUENCES\0", 23)
        ring_push(&s.ring, R_QUERY, ACT_SKIP, NULL, 0)
        s.unnamed_id = 0
        return
    burst_write(e, b, FORGET, FORGET_BYTES)
    ring_push(&s.ring, R_CLOSE, ACT_SKIP, NULL, 0)
    ring_push(&s.ring, R_PARSE, ACT_SKIP, NULL, 0)
    ring_push(&s.ring, R_BIND, ACT_SKIP, NULL, 0)
    ring_push(&s.ring, R_EXECUTE, ACT_SKIP, NULL, 0)
    ring_push(&s.ring, R_CLOSE, ACT_SKIP, NULL, 0)
    s.batch_open = 1


cdef void prefer_own(Relay e, Client *c) noexcept nogil:
    # of idle servers that suit it alike the client gets the one that was used last
    cdef Link *l = e.get(c.touched) if c.touched else NULL
    cdef Server *s = <Server *> l
    if l != NULL and l.kind == KIND_SERVER and s.phase == SV_IDLE and s.touched_by == c.link.id:
        idle_remove(s.pool, s)
        idle_push(s.pool, s)
