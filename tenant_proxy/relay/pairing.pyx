"""Pairing clients with servers, and the only places where either of them ends.

A server goes back to its pool in `maybe_release` (transaction mode) or when its client ends; both
demand that it is at rest: every reply consumed, no batch open, ReadyForQuery said idle.  Anything
else closes it (DESIGN, invariant 2).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tenant_proxy.net.reactor cimport Link
from tenant_proxy.pool.fair cimport (
    is_choosy, is_kept, share_begin, share_claim, share_end, share_may_start, share_next, share_pick, share_push,
    share_remove, slot_leave,
)
from tenant_proxy.pool.pool cimport (
    ACT_SKIP, AHEAD_DUE, AHEAD_NONE, CL_ACTIVE, CL_ADMIN, CL_CLOSING, CL_IDLE, CL_LOGIN_WAITING, CL_PARTING,
    CL_WAITING, LANE_SHARED, R_QUERY, SV_ACTIVE, SV_CANCELING, SV_CLEANING, SV_CLOSING, SV_CONNECT, SV_IDLE,
    SV_LOGIN, Client, Pool, Server, count_wait, idle_pick, idle_push, idle_remove, ring_push, usage_bill,
    usage_leave, wait_pick, wait_push, wait_remove,
)
from tenant_proxy.relay.begins cimport forget_began, forget_begun
from tenant_proxy.relay.core cimport (
    CANCEL, EVICTED, GONE, HANDED_OVER, LIFETIME, OUTGROWN, QUEUE_FULL, RETIRED, SERVER_LOST, SERVER_UNAVAILABLE,
    SETTINGS_FAILED, TERMINATED, UNCLEAN, YIELDED, Relay, up_ask_settings, up_client_gone, up_crowded, up_demand,
    up_fail_client, up_greet, up_patience, up_pinned, up_server_gone, up_sync_settings,
)
from tenant_proxy.relay.entry cimport entry_gone
from tenant_proxy.relay.hearing cimport NOTIFIED, tell_notes
from tenant_proxy.relay.marks cimport count_pin, count_shared, tenant_waits
from tenant_proxy.relay.replay cimport clear_ring, replay_drop, replay_take
from tenant_proxy.relay.rewriting cimport forget_rewrites
from tenant_proxy.relay.switching cimport up_ahead, up_switch
from tenant_proxy.relay.statements cimport client_drop_unnamed, client_forget_all, server_forget_all
from tenant_proxy.wire.buf cimport buf_free, buf_len
from tenant_proxy.wire.consts cimport XACT_IDLE, put_u32
from tenant_proxy.wire.ptrmap cimport map_add, map_get

cdef enum:
    PATIENCE_US = 50000         # a server that fits someone behind goes there while the first waited less
    PEEK_AFTER_US = 20000       # idle longer than this: look whether the server is still there
    OFTEN = 128                 # Server.changes above which the next tenant is taken to be another
    CROWDED_PAUSE_US = 20000    # between servers that are opened for a place each
    OUTGROWN_PAUSE_US = 100000  # between servers of a group that are closed for all the tenants they have served

cdef extern from *:
    """
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <poll.h>
    #include <errno.h>
    /* 1 when the peer has closed or said something unasked, which an idle server only does to say goodbye */
    static int tp_gone(int fd) {
        char c;
        ssize_t n = recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
        return !(n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR));
    }
    /* 1 when the peer has closed, whatever is still to be read from it */
    static int tp_hung_up(int fd) {
    #ifdef POLLRDHUP
        struct pollfd p = { fd, POLLRDHUP, 0 };
        return poll(&p, 1, 0) > 0;
    #else
        char c;
        return recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
    #endif
    }
    """
    int tp_gone(int fd) nogil
    int tp_hung_up(int fd) nogil


# --- getting a server -----------------------------------------------------------


cdef Server *obtain(Relay e, Client *c) noexcept nogil:
    # An idle server, paired; or NULL, and the client is in the queue or has been ended.
    cdef Pool *p = c.pool.group if c.lane == LANE_SHARED else c.pool
    cdef Server *s
    while True:
        s = NULL
        if not p.is_group:
            s = idle_pick(p, c.startup_id, c.settings_id)
        elif share_may_start(c.pool, e.now_us):
            s = share_pick(p, c.pool, c.startup_id, c.settings_id, e.now_us)
        if s == NULL:
            break
        if is_gone(e, s):
            idle_remove(p, s)
            s.phase = SV_ACTIVE
            server_end(e, s, GONE)
            continue
        if p.is_group and not share_claim(c.pool):
            break
        idle_remove(p, s)
        return s if pair(e, c, s) == 0 else NULL
    c.request_us = e.now_us
    queue_up(e, c)
    return NULL


cdef int pair(Relay e, Client *c, Server *s) noexcept nogil:
    # 0; 1 when the client still has to wait for its settings; -1 when both have been ended.  Nothing of a
    # client runs under another's settings: were it sent behind the switch, and that fails, it would.
    cdef int r
    s.client = c
    s.phase = SV_ACTIVE
    s.assigned_us = s.billed_us = e.now_us
    s.xact_status = XACT_IDLE
    c.server = s
    if c.phase != CL_LOGIN_WAITING:
        c.phase = CL_ACTIVE
    c.xact_start_us = e.now_us
    c.pool.assignments += 1
    if s.pool.is_group:
        return pair_shared(e, c, s)
    c.link.urgent = 0
    # one that only waits to be greeted goes on without the server
    if s.settings_id != c.settings_id and (c.phase != CL_LOGIN_WAITING or c.pinned):
        r = up_sync_settings(e, s, c)
        if r < 0:
            server_end(e, s, SETTINGS_FAILED)
        elif r:
            c.phase = CL_WAITING
            e.pause(&c.link)
        return r
    return 0


cdef int pair_shared(Relay e, Client *c, Server *s) noexcept nogil:
    # As `pair`.  Nothing of the client's runs before the server is its tenant's: from one that is nobody's, and so
    # ends at the first error, the client's bytes go behind the switch in one write; from any other they wait until
    # the switch is acknowledged (docs/decisions/0012-shared-backends.md).
    cdef Pool *p = c.pool
    if s.last != p and is_kept(s.pool, s, e.now_us):
        s.pool.crowded = 1
    share_begin(p, s, e.now_us)
    c.link.urgent = s.link.urgent
    s.counted_at = p.active_index
    count_shared(e, s.counted_at, 1)
    s.may_rest = s.may_turn = 1
    if (c.greeted and s.tenant == p and s.startup_id == c.startup_id and s.settings_id == c.settings_id
            and c.replay == NULL):
        p.kept += 1
        s.changes -= s.changes >> 2
        return 0
    p.switches += 1
    if s.tenant == NULL and c.greeted and c.replay == NULL and not p.doubted:
        if up_ahead(e, c) != 0:
            server_end(e, s, SETTINGS_FAILED)
            return -1
        s.ahead = AHEAD_DUE
    elif up_switch(e, s, c) != 0:
        server_end(e, s, SETTINGS_FAILED)
        return -1
    else:
        c.phase = CL_WAITING
        e.pause(&c.link)
        if s.tenant != p or c.replay != NULL:
            server_forget_all(s)
            s.touched = 0
            s.touched_by = 0
    note_tenant(s, p)
    s.tenant = p
    s.startup_id = c.startup_id
    s.settings_id = c.settings_id
    s.unnamed_id = 0
    s.failed = 0
    return c.phase == CL_WAITING


cdef void note_tenant(Server *s, Pool *p) noexcept nogil:
    if s.last != p:
        s.changes += (255 - s.changes + 3) >> 2
        s.last = p
    else:
        s.changes -= s.changes >> 2
    if map_get(&s.served, p.home_key) == NULL:
        map_add(&s.served, p.home_key, s)


cdef void unpair(Relay e, Server *s, Client *c) noexcept nogil:
    s.client = NULL
    c.server = NULL
    s.hearing = s.heard = s.awaits = 0
    if s.notified:
        # its next client does not know of it
        s.notified = NOTIFIED
    if buf_len(&c.notes) and not (s.stream_left and s.relaying):
        tell_notes(e, c)
    usage_bill(s, c.pool, e.now_us)
    if s.pool.is_group:
        share_end(c.pool, s, e.now_us)
        count_shared(e, s.counted_at, -1)
        if s.ahead == AHEAD_DUE:
            # nothing has been sent: it is still nobody's
            s.ahead = AHEAD_NONE
            s.tenant = NULL
    elif s.coded:
        s.coded = 0
        count_shared(e, s.counted_at, -1)


cdef void settled(Relay e, Server *s) noexcept nogil:
    # the server has taken its client's settings
    cdef Client *c = s.client
    if tp_hung_up(c.link.fd):
        client_end(e, c, GONE)
        return
    if not c.greeted:
        # it was made the client's tenant's to be told what a login would have said
        c.phase = CL_ACTIVE
        up_greet(e, c, s)
        if c.phase == CL_CLOSING:
            return
        e.unpause(&c.link)
        give_up(e, s)
        return
    c.phase = CL_ACTIVE
    c.refitting = 0
    c.pool.doubted = 0
    c.tells = 0
    e.unpause(&c.link)


cdef void queue_up(Relay e, Client *c) noexcept nogil:
    cdef Pool *p = c.pool
    if p.queue_limit > 0 and tenant_waits(e, p) >= p.queue_limit:
        client_fail(e, c, QUEUE_FULL, p.queue_limit)
        return
    if c.lane == LANE_SHARED:
        p = p.group
    if p.down and p.fail_when_down and p.total == p.opening and e.now_us < p.retry_us:
        # after that this one waits for the outcome of the next try
        client_fail(e, c, SERVER_UNAVAILABLE, 0)
        return
    if c.phase != CL_LOGIN_WAITING:
        c.phase = CL_WAITING
    count_shared(e, c.pool.waits_index, 1)
    if p.is_group:
        share_push(c.pool, c)
        wait_patiently(e, p)
    else:
        wait_push(p, c)
    e.pause(&c.link)
    demand(e, p)


cdef void wait_patiently(Relay e, Pool *g) noexcept nogil:
    # who waits though servers are idle is looked after when it has waited long
    if not g.patient and g.idle_last != NULL and (g.share.heap_size[0] or g.share.heap_size[1]):
        g.patient = 1
        up_patience(e, g)


cdef bint wants_more(Pool *g) noexcept nogil:
    # An idle server fits everybody, unless it is choosy: who waits beside one is at a limit, or the width is.
    return g.waiting > g.opening and (g.idle_last == NULL or is_choosy(g, g.idle_last))


cdef void want_room(Relay e, Pool *g) noexcept nogil:
    # One more for those who take one another's place, if nobody else has to give it.
    if (g.crowded and g.total < g.max and g.opening == 0 and not g.down and not g.retired
            and e.now_us > g.crowded_us + CROWDED_PAUSE_US):
        g.crowded = 0
        g.crowded_us = e.now_us
        up_crowded(e, g)


cdef void demand(Relay e, Pool *p) noexcept nogil:
    if p.waiting <= p.opening:
        return
    if p.is_group:
        if p.total < p.max and wants_more(p):
            up_demand(e, p)
        return
    if p.total >= p.max and p.idle_last != NULL:
        # idle, yet it fits none of the waiting: they were opened with other settings
        server_end(e, p.idle_last, EVICTED)
        return
    if p.total < p.max:
        up_demand(e, p)


# --- giving it back ---------------------------------------------------------------


cdef void make_available(Relay e, Server *s) noexcept nogil:
    # A server at rest and without a client: to the next in the queue, or to the idle list.
    cdef Pool *p = s.pool
    cdef Client *c
    # the client that did not read fast enough is gone
    e.unpause(&s.link)
    while True:
        if s.close_needed or s.link.dead:
            server_end(e, s, RETIRED if p.retired else LIFETIME)
            return
        if s.cancels:
            s.phase = SV_CANCELING
            return
        if p.is_group:
            make_shared_available(e, s)
            return
        c = wait_pick(p, s.startup_id, e.now_us, PATIENCE_US)
        if c == NULL:
            s.phase = SV_IDLE
            s.idle_since_us = e.now_us
            idle_push(p, s)
            return
        if tp_hung_up(c.link.fd):
            # waiting, it is not read, so its end went unnoticed: what it has asked for is not run
            client_end(e, c, GONE)
            continue
        if c.startup_id != s.startup_id:
            server_end(e, s, EVICTED)
            return
        wait_ends(e, c)
        if not serve(e, c, s):
            return


cdef void wait_ends(Relay e, Client *c) noexcept nogil:
    count_shared(e, c.pool.waits_index, -1)
    if c.lane == LANE_SHARED:
        share_remove(c.pool, c)
    else:
        wait_remove(c.pool, c)


cdef bint serve(Relay e, Client *c, Server *s) noexcept nogil:
    # A client from the queue; whether the server is at rest again, as it was only to greet.
    count_wait(c.pool, e.now_us - c.request_us)
    c.wait_us += e.now_us - c.request_us
    if pair(e, c, s) != 0:
        return False
    if c.phase != CL_LOGIN_WAITING:
        e.unpause(&c.link)
        return False
    c.phase = CL_ACTIVE
    up_greet(e, c, s)
    if c.phase == CL_CLOSING:
        # its end has already dealt with the server
        return False
    e.unpause(&c.link)
    if c.pinned:
        return False
    unpair(e, s, c)
    c.phase = CL_IDLE
    return True


cdef void make_shared_available(Relay e, Server *s) noexcept nogil:
    cdef Pool *g = s.pool
    if has_outgrown(e, s):
        server_end(e, s, OUTGROWN)
        return
    if g.yielding:
        g.yielding -= 1
        server_end(e, s, YIELDED)
        return
    s.phase = SV_IDLE
    s.idle_since_us = e.now_us
    idle_push(g, s)
    serve_waiting(e, g, s)
    if s.phase == SV_IDLE and s.tenant != NULL and s.changes >= OFTEN:
        # by the time that the next comes it is armed
        idle_remove(g, s)
        come_to_rest(e, s)
    wait_patiently(e, g)
    want_room(e, g)


cdef void serve_waiting(Relay e, Pool *g, Server *s) noexcept nogil:
    # As many of a group's waiting clients as may have an idle server, each the one that suits it best; `s` is idle,
    # the last to come free.
    cdef Pool *p
    cdef Client *c
    cdef Server *found
    while s != NULL:
        p = share_next(g, s, e.now_us, &found)
        if p == NULL:
            return
        c = p.share.first
        if tp_hung_up(c.link.fd):
            # as above
            client_end(e, c, GONE)
        else:
            if found == NULL:
                found = share_pick(g, p, c.startup_id, c.settings_id, e.now_us)
            if found == NULL:
                found = s       # it has waited too long for one that suits
            if is_gone(e, found):
                idle_remove(g, found)
                found.phase = SV_ACTIVE
                server_end(e, found, GONE)
            elif share_claim(p):
                idle_remove(g, found)
                wait_ends(e, c)
                # who is greeted by a shared server waits for its switch first (`settled`)
                serve(e, c, found)
        s = g.idle_first


cdef inline bint is_gone(Relay e, Server *s) noexcept nogil:
    # an idle server that has ended meanwhile
    return e.now_us - s.idle_since_us > PEEK_AFTER_US and tp_gone(s.link.fd)


cdef bint others_next(Relay e, Server *s) noexcept nogil:
    # whether the next to use a shared server will be another tenant, as far as can be told
    cdef Server *found
    cdef Pool *p = share_next(s.pool, s, e.now_us, &found) if s.pool.idle_first == NULL else NULL
    return p != s.tenant if p != NULL else s.changes >= OFTEN


cdef bint has_outgrown(Relay e, Server *s) noexcept nogil:
    # It holds what it has read of the catalogs for each tenant, and gives nothing of that back.
    cdef Pool *g = s.pool
    if (g.tenants_limit == 0 or s.served.count <= <size_t> g.tenants_limit
            or e.now_us < g.outgrown_us + OUTGROWN_PAUSE_US):
        return False
    g.outgrown_us = e.now_us
    return True


# --- what makes a shared server nobody's ---------------------------------------------
# RESET ROLE and RESET ALL lead back to its startup packet (relay.switch.BASE), in which it is armed and has no
# time-outs; behind that goes what it knows of its tenant's statements and sequences.


cdef size_t rest_message(Server *s, char *m) noexcept nogil:
    # at most REST_BYTES
    cdef size_t n = 5
    memcpy(m + n, b"RESET ROLE; RESET ALL", 21)
    n += 21
    if s.stmts.count:
        memcpy(m + n, b"; DEALLOCATE ALL", 16)
        n += 16
        s.turns = 0
    if s.touched:
        memcpy(m + n, b"; DISCARD SEQUENCES", 19)
        n += 19
    m[n] = 0
    n += 1
    m[0] = b'Q'
    put_u32(&m[1], <uint32_t> (n - 1))
    return n


cdef void forget_tenant(Relay e, Server *s) noexcept nogil:
    # `rest_message` is on its way, and nothing of a client's is: nobody's, when it is answered
    s.phase = SV_CLEANING
    s.request_us = e.now_us
    s.tenant = NULL
    s.touched = 0
    s.settings_id = 0
    s.failed = 0
    server_forget_all(s)


cdef void come_to_rest(Relay e, Server *s) noexcept nogil:
    cdef char m[REST_BYTES]
    cdef size_t n = rest_message(s, m)
    ring_push(&s.ring, R_QUERY, ACT_SKIP, NULL, 0)
    forget_tenant(e, s)
    e.send(&s.link, m, n)


cdef void give_up(Relay e, Server *s) noexcept nogil:
    # from a client that has nothing on it: to the next
    cdef Client *c = s.client
    unpair(e, s, c)
    if c.phase == CL_ACTIVE:
        c.phase = CL_IDLE
    make_available(e, s)


cdef bint at_rest(Server *s) noexcept nogil:
    return (s.ring.count == 0 and not s.batch_open and s.xact_status == XACT_IDLE and not s.copy_in
            and not s.stream_left)


cdef void keep_together(Relay e, Server *s) noexcept nogil:
    # What the client has set could not be read from its server: it keeps the server.
    cdef Client *c = s.client
    s.dirty = 1
    if s.pool.is_group:
        # no one keeps a shared one
        s.close_needed = 1
        if c != NULL:
            client_fail(e, c, SETTINGS_FAILED, 0)
    elif c == NULL:
        s.close_needed = 1
    elif not c.pinned:
        c.pinned = 1
        count_pin(e, c.pool, 1)
        up_pinned(e, c, b"", 0)


cdef void maybe_release(Relay e, Server *s) noexcept nogil:
    cdef Client *c = s.client
    if s.coded and c != NULL and at_rest(s):
        s.coded = 0
        count_shared(e, s.counted_at, -1)
    if c == NULL or c.pinned or not at_rest(s) or (c.stream_left and not c.skip_stream) or s.hearing:
        return
    if s.settings_changed:
        if s.cancels:
            # one that comes late would hit the question: it is asked when they have gone through
            return
        s.settings_changed = 0
        if up_ask_settings(e, s) != 0:
            keep_together(e, s)
        return
    e.unpause(&c.link)
    give_up(e, s)


cdef void clean_up(Relay e, Server *s) noexcept nogil:
    # Its client has ended in peace.  Only what is dirty is cleaned.
    cdef Pool *p = s.pool
    if p.is_group and not s.dirty:
        if s.settings_changed:
            # the next switch takes them all away
            s.settings_id = UNKNOWN_SETTINGS
            s.settings_changed = 0
        make_available(e, s)
        return
    if not s.dirty and not s.settings_changed:
        make_available(e, s)
        return
    if p.reset_size == 0:
        s.close_needed = 1
        make_available(e, s)
        return
    s.phase = SV_CLEANING
    s.dirty = 0
    s.settings_changed = 0
    s.settings_id = 0
    s.failed = 0
    s.unnamed_id = 0
    s.request_us = e.now_us
    e.unpause(&s.link)
    if s.stmts.count:
        # a reset query of the operator's may keep them
        server_forget_all(s)
        ring_push(&s.ring, R_QUERY, ACT_SKIP, NULL, 0)
        e.send(&s.link, b"Q\0\0\0\x13DEALLOCATE ALL\0", 20)
    ring_push(&s.ring, R_QUERY, ACT_SKIP, NULL, 0)
    e.send(&s.link, p.reset_query, p.reset_size)


cdef bint has_hung_up(Client *c) noexcept nogil:
    return tp_hung_up(c.link.fd)


# --- ends -------------------------------------------------------------------------


cdef void client_end(Relay e, Client *c, int reason) noexcept nogil:
    cdef uint8_t phase = c.phase
    cdef Server *s = c.server
    if phase == CL_CLOSING:
        return
    c.phase = CL_CLOSING
    e.client_ends[reason] += 1
    e.clients_open -= 1
    if not c.proved:
        e.logins_open -= 1
    if c.queued:
        wait_ends(e, c)
    client_forget_all_of(c)
    forget_begun(c)
    buf_free(&c.notes)
    forget_began(c)
    if c.pool != NULL:
        c.pool.clients -= 1
        c.pool.bytes_in += c.link.bytes_in
        c.pool.bytes_out += c.link.bytes_out
        usage_leave(c)
        c.pool.owner.gathered -= c.gathered
        c.gathered = 0
        if c.pinned and not c.pool.session_mode:
            count_pin(e, c.pool, -1)
    if not entry_gone(e, c):
        up_client_gone(e, c, reason)
    if s != NULL:
        unpair(e, s, c)
        if at_rest(s) and not (c.stream_left and not c.skip_stream):
            clean_up(e, s)
        else:
            server_end(e, s, UNCLEAN)
    if reason == TERMINATED or reason == GONE or reason == HANDED_OVER:
        e.close(&c.link)
    else:
        e.close_after_send(&c.link)


cdef void client_forget_all_of(Client *c) noexcept nogil:
    if c.pool != NULL:
        client_forget_all(c)
        client_drop_unnamed(c)
        forget_rewrites(c)
        replay_drop(c)


cdef void client_fail(Relay e, Client *c, int reason, uint64_t detail) noexcept nogil:
    # Tells the client why, unless that would fall into the middle of a message, and ends it.
    if c.phase == CL_CLOSING:
        return
    if c.server == NULL or not (c.server.stream_left and c.server.relaying):
        up_fail_client(e, c, reason, detail)
    client_end(e, c, reason)


cdef void greet_by_another(Relay e, Client *c) noexcept nogil:
    cdef Server *s
    if c.refitting:
        client_fail(e, c, SETTINGS_FAILED, 0)
        return
    c.refitting = 1
    c.phase = CL_LOGIN_WAITING
    s = obtain(e, c)
    if s != NULL:
        settled(e, s)


cdef void switch_undone(Relay e, Server *s) noexcept nogil:
    # An awaited switch could not set what the client has: the server is as before, whoever's that is, but for the
    # statements and sequences that it has forgotten.  Of a client that is not greeted yet it is its settings'
    # mistake; for any other it is tried once more.
    cdef Client *c = s.client
    unpair(e, s, c)
    s.settings_id = UNKNOWN_SETTINGS
    c.pool.doubted = 1
    if c.greeted and not c.refitting:
        c.refitting = 1
        c.phase = CL_IDLE
        e.unpause(&c.link)
    else:
        client_fail(e, c, SETTINGS_FAILED, 0)
    make_available(e, s)


cdef void server_end(Relay e, Server *s, int reason) noexcept nogil:
    cdef Pool *p = s.pool
    cdef Client *c = s.client
    cdef Client *again = NULL
    cdef uint8_t phase = s.phase
    if phase == SV_CLOSING:
        return
    s.phase = SV_CLOSING
    e.server_ends[reason] += 1
    e.servers_open -= 1
    p.total -= 1
    if phase == SV_CONNECT or phase == SV_LOGIN:
        p.opening -= 1
    elif phase == SV_IDLE:
        idle_remove(p, s)
        if reason != GONE:
            # Terminate, so that the server's log does not speak of a lost connection
            e.send(&s.link, b"X\0\0\0\4", 5)
    if p.is_group:
        slot_leave(p, s)
    if c != NULL:
        unpair(e, s, c)
        if s.refused:
            c.replay = replay_take(s)
        if c.replay != NULL and s.refused:
            c.refitting = 1
            c.pool.doubted = 1
            again = c
        elif p.is_group and not c.greeted:
            greet_by_another(e, c)
        elif c.phase == CL_WAITING and not c.refitting and not s.moving:
            # its settings did not get there, so nothing else has: perhaps another server takes them
            c.refitting = 1
            c.phase = CL_IDLE
            e.unpause(&c.link)
        elif p.is_group and c.phase == CL_WAITING and not s.moving:
            client_fail(e, c, SETTINGS_FAILED, 0)
        elif (reason != SETTINGS_FAILED and not c.pinned and at_rest(s) and not c.stream_left
                and not s.settings_changed):
            # nothing of its own has gone there, or nothing that it has set with it: it gets another server
            c.phase = CL_IDLE
            e.unpause(&c.link)
        elif s.told_fatal or (s.stream_left and s.relaying):
            # has had the server's own words, or is in the middle of a message
            client_end(e, c, SERVER_LOST)
        else:
            client_fail(e, c, SERVER_LOST, 0)
    clear_ring(s)
    server_forget_all(s)
    up_server_gone(e, s, reason)
    e.close(&s.link)
    if again != NULL:
        again.phase = CL_WAITING
        obtain(e, again)
    if p.waiting > 0:
        demand(e, p)
