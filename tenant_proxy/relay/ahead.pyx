"""Shared servers that become tenants' and nobody's again without a round trip for either.

A server that is nobody's is armed: the first error ends it, so whatever lies behind a switch that fails
is never run.  From such a server the switch goes out in one write with the client's first bytes, as two
requests: one that makes it the tenant's, whole or not at all, and one that disarms it.  Were they one, a
cancel between the last setting and the commit would find it disarmed, and undo the switch.  Until both are
acknowledged the bytes are kept.  If the server says FATAL instead, nothing of them has run, and they are
sent to another (relay.replay); if it goes without a word, that is not known, and the client is told.

Behind a statement after which no transaction is open goes what makes the server nobody's again, where its
next user will probably be another tenant.  The client is parted from it when its own answer is there.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from tenant_proxy.pool.pool cimport (
    ACT_AHEAD, ACT_SKIP, AHEAD_DUE, AHEAD_MADE, AHEAD_NONE, AHEAD_SENT, CL_ACTIVE, CL_IDLE, CL_PARTING,
    CL_WAITING, R_QUERY,
    Client, Pool, Server, ring_push, ring_push_front,
)
from tenant_proxy.relay.core cimport SETTINGS_FAILED, UNCLEAN, Burst, Relay
from tenant_proxy.relay.marks cimport is_proven
from tenant_proxy.relay.pairing cimport (
    REST_BYTES, client_fail, forget_tenant, others_next, rest_message, server_end, unpair,
)
from tenant_proxy.relay.replay cimport kept_drop, kept_room, replay_drop, replay_put
from tenant_proxy.relay.requests cimport burst_write
from tenant_proxy.relay.switching cimport up_ahead
from tenant_proxy.wire.consts cimport XACT_IDLE

cdef enum:
    KEPT_ENOUGH = 262144        # on their way behind a switch: more of the client's is read when it is acknowledged


# --- becoming a tenant's ------------------------------------------------------------


cdef void ahead_flush(Relay e, Burst *b, Client *c, Server *s) noexcept nogil:
    # the burst, behind the switch or behind what is behind it already
    cdef Pool *p = c.pool
    cdef size_t n = e.batch_size + b.run_size
    cdef size_t start = 0
    cdef char *where
    if n == 0:
        return
    if s.ahead == AHEAD_DUE:
        # the pool's may be another client's by now
        if (up_ahead(e, c) != 0 or ring_push_front(&s.ring, R_QUERY, ACT_SKIP | ACT_AHEAD) != 0
                or ring_push_front(&s.ring, R_QUERY, ACT_SKIP | ACT_AHEAD) != 0):
            e.batch_size = b.run_size = 0
            client_fail(e, c, SETTINGS_FAILED, 0)
            return
        start = p.ahead_size
        s.kept_start = start
        s.kept_size = 0
    if not kept_room(s, s.kept_size + start + n):
        # without a switch nothing may go, and no error is so bad that it could
        e.batch_size = b.run_size = 0
        client_fail(e, c, SETTINGS_FAILED, 0)
        return
    where = s.kept + s.kept_size
    memcpy(where, p.ahead, start)
    memcpy(where + start, e.batch, e.batch_size)
    if b.run_size:
        memcpy(where + start + e.batch_size, b.run, b.run_size)
    s.kept_size += start + n
    s.ahead = AHEAD_SENT if start else s.ahead
    e.batch_size = b.run_size = 0
    if e.send(&s.link, where, start + n) == 1 or s.kept_size > KEPT_ENOUGH:
        e.pause(&c.link)


cdef int ahead_ready(Relay e, Server *s) noexcept nogil:
    # ReadyForQuery of a switch's requests; -1: the server has ended
    if (s.failed and s.ahead == AHEAD_SENT) or s.xact_status != XACT_IDLE:
        # an error that did not end it: it was not armed, and what is behind may run under nobody's name
        server_end(e, s, SETTINGS_FAILED)
        return -1
    if s.ahead == AHEAD_SENT:
        s.ahead = AHEAD_MADE
        return 0
    if s.failed:
        # the tenant's, and still armed: used this once, and its client's first error is its last
        s.failed = 0
        s.close_needed = 1
    s.ahead = AHEAD_NONE
    if s.client != NULL:
        s.client.tells = 0
    kept_drop(s)
    if s.client != NULL and s.client.phase != CL_PARTING:
        e.unpause(&s.client.link)
    return 0


cdef void ask_again(Relay e, Client *c, Server *s) noexcept nogil:
    # The server is the tenant's, acknowledged: what another would not be asked goes there.
    cdef char *data = c.replay.bytes + c.replay.start
    cdef size_t n = c.replay.size - c.replay.start
    if not is_proven(e, c.pool):
        # not any more
        client_fail(e, c, SETTINGS_FAILED, 0)
        return
    replay_put(c, s)
    if c.begun != NULL:
        # its BEGIN is among it, and the statement behind that waits for it
        c.phase = CL_WAITING
    if e.send(&s.link, data, n) == 1 or s.arming:
        e.pause(&c.link)
    if s.arming:
        # among the bytes is what makes it nobody's
        c.phase = CL_PARTING
    replay_drop(c)


# --- becoming nobody's ---------------------------------------------------------------


cdef void rest_behind(Relay e, Burst *b, Client *c, Server *s) noexcept nogil:
    # At the end of a client's burst, all of which has been read.
    cdef char m[REST_BYTES]
    if (not s.may_rest or s.arming or s.batch_open or s.skipping or s.settings_changed or s.close_needed or s.cancels
            or c.phase != CL_ACTIVE or c.stream_left or e.batch_size + b.run_size == 0 or not others_next(e, s)):
        return
    if ring_push(&s.ring, R_QUERY, ACT_SKIP, NULL, 0) != 0:
        return
    burst_write(e, b, m, rest_message(s, m))
    s.arming = 1
    c.phase = CL_PARTING


cdef void part(Relay e, Server *s) noexcept nogil:
    # All that the client has asked for is answered: the server goes on alone.
    cdef Client *c = s.client
    s.arming = s.turn = 0
    if s.xact_status != XACT_IDLE:
        # in spite of what the guard knew
        server_end(e, s, UNCLEAN)
        return
    unpair(e, s, c)
    c.phase = CL_IDLE
    e.unpause(&c.link)
    forget_tenant(e, s)
