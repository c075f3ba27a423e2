"""Time-outs of clients and servers: pure decisions, asked a few times a second.

A client that keeps its server waiting counts as idle in a transaction whatever it does so by, or who holds all
shared servers could not be told from one whose statements take long.
"""

from libc.stdint cimport uint32_t, uint64_t

from tenant_proxy.pool.pool cimport (
    AHEAD_DUE, CL_IDLE, CL_WAITING, PACE_WAITS, R_FUNCTION, R_QUERY, R_SYNC, SV_CLEANING, SV_CONNECT, SV_IDLE, SV_LOGIN,
    Client, Pool, Server, ring_at,
)
from tenant_proxy.relay.core cimport (
    CONNECT_FAILED, GONE, IDLE, IDLE_IN_TRANSACTION, JUDGING, LIFETIME, LOGIN_TIMEOUT, QUERY_TIMEOUT, QUEUE_TIMEOUT,
    RESET_FAILED, SETTINGS_FAILED,
)
from tenant_proxy.relay.pairing cimport has_hung_up
from tenant_proxy.wire.buf cimport buf_len
from tenant_proxy.wire.consts cimport XACT_IDLE

cdef enum:
    CLEANING_LIMIT_US = 30000000        # a reset query that takes longer costs the server its place


cdef int client_overdue(Client *c, uint64_t now, uint64_t login_timeout_us) noexcept nogil:
    cdef Pool *p = c.pool
    cdef Server *s = c.server
    if c.queued or c.stopped:
        if p.queue_timeout_us and now > c.request_us + p.queue_timeout_us:
            return QUEUE_TIMEOUT
        # it is not read while it waits, so nobody else notices
        return GONE if has_hung_up(c) else 0
    if c.judging == JUDGING or c.paced == PACE_WAITS:
        return GONE if has_hung_up(c) else 0
    if c.phase < CL_IDLE:
        return LOGIN_TIMEOUT if now > c.connect_us + login_timeout_us else 0
    if p == NULL:
        return 0
    note_moves(c, now)
    if s != NULL and s.ring.count:
        if p.query_timeout_us and c.request_us and now > c.request_us + p.query_timeout_us:
            return QUERY_TIMEOUT
        if p.idle_xact_timeout_us and (
            now > c.active_us + p.idle_xact_timeout_us and is_clients_turn(c, s)
            or c.left_us and now > c.left_us + p.idle_xact_timeout_us
        ):
            return IDLE_IN_TRANSACTION
        return 0
    if s != NULL and (s.xact_status != XACT_IDLE or s.batch_open or (c.stream_left and not c.skip_stream)):
        if p.idle_xact_timeout_us and now > c.active_us + p.idle_xact_timeout_us:
            return IDLE_IN_TRANSACTION
        return 0
    if p.client_idle_us and now > c.active_us + p.client_idle_us:
        return IDLE
    return 0


cdef bint is_clients_turn(Client *c, Server *s) noexcept nogil:
    # whether its server waits for more of it, though not all is answered: for the rest of a message, for data of a COPY,
    # or for what makes it answer
    cdef uint32_t i
    if buf_len(&s.link.out):
        # it does not take what there is
        return False
    if (c.stream_left and not c.skip_stream) or s.copy_in == 1:
        return True
    if not c.unasked or not s.batch_open:
        return False
    for i in range(s.ring.count):
        if (ring_at(&s.ring, i).request == R_SYNC or ring_at(&s.ring, i).request == R_QUERY
                or ring_at(&s.ring, i).request == R_FUNCTION):
            return False
    return True


cdef void note_moves(Client *c, uint64_t now) noexcept nogil:
    # Who sends more of a message that is looked at when it is whole, or takes more of what it has been answered, is not
    # idle, however long that takes.
    cdef uint64_t taken = c.link.bytes_out - buf_len(&c.link.out)
    if c.left_us and c.left_out != taken or buf_len(&c.link.inb) and c.heard != c.link.bytes_in:
        c.active_us = now
    c.heard = c.link.bytes_in
    if buf_len(&c.link.out) == 0:
        c.left_us = 0
    elif c.left_us == 0 or c.left_out != taken:
        c.left_us = now
    c.left_out = taken


cdef int server_overdue(Server *s, uint64_t now) noexcept nogil:
    cdef Pool *p = s.pool
    if s.phase == SV_CONNECT or s.phase == SV_LOGIN:
        return CONNECT_FAILED if now > s.connect_us + p.connect_timeout_us else 0
    if s.client != NULL and (s.client.phase == CL_WAITING and p.is_group or s.ahead > AHEAD_DUE and not s.turn):
        # a switch that does not end
        return SETTINGS_FAILED if now > s.assigned_us + p.connect_timeout_us else 0
    if s.phase == SV_CLEANING:
        return RESET_FAILED if now > s.request_us + CLEANING_LIMIT_US else 0
    if s.expires_us and now > s.expires_us:
        if s.phase == SV_IDLE:
            return LIFETIME
        s.close_needed = 1
    if s.phase == SV_IDLE and p.server_idle_us and p.total > p.min and now > s.idle_since_us + p.server_idle_us:
        return IDLE
    return 0
