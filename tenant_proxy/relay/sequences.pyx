"""What a session has last had of its sequences, in transaction mode: never another client's.

A server remembers it for whoever asks, so it is noted who may have used sequences there last.  A statement with
currval() or lastval() of that client goes there if it can; on a server where it was another, the server forgets first,
and says that the session has no such value yet.
"""

from tenant_proxy.net.reactor cimport KIND_SERVER, Link
from tenant_proxy.pool.pool cimport (
    ACT_SKIP, R_BIND, R_CLOSE, R_EXECUTE, R_PARSE, R_QUERY, SV_IDLE, idle_push, idle_remove, ring_push,
)
from tenant_proxy.relay.requests cimport burst_write
from tenant_proxy.wire.consts cimport XACT_FAILED

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


cdef void own_values(Relay e, Client *c, Burst *b, Server *s, bint alone) noexcept nogil:
    # also where nobody is known to have used any, as a view may have, and where what it knows is the client's, but old
    if (not c.tracks or (s.touched_by == c.link.id and c.touched == s.link.id)
            or s.xact_status == XACT_FAILED):
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
