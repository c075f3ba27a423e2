"""The client's side of the relay: bytes to messages, logins, and one function a message (docs 54.2).

A message is judged, gets a server, and goes on; the order of the steps is that of `client_message`.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memchr

from tenant_proxy.guard.edits cimport Rewrite, rewrite_unref
from tenant_proxy.net.reactor cimport Link, Reactor
from tenant_proxy.pool.pool cimport (
    ACT_ASK, ACT_DISCARD, ACT_FAKE, CL_ACTIVE, CL_ADMIN, CL_CLOSING, CL_IDLE, CL_LOGIN_WAITING, CL_PARTING,
    CL_SKIP_TO_SYNC, CL_STARTUP, CL_WAITING, LANE_SHARED, PACE_WAITS, R_COPY_END, R_EXECUTE, R_FUNCTION, R_QUERY,
    R_SYNC, RUNS_UNNAMED, SWALLOWED, Client, Server, ring_head,
    ring_mark, ring_push,
)
from tenant_proxy.relay.ahead cimport ahead_flush, rest_behind
from tenant_proxy.relay.begins cimport forget_began, keep_batch, keep_begun, may_repeat, without_server
from tenant_proxy.relay.core cimport (
    EFF_ALLOWED, EFF_BEGINS, EFF_COMMITS, EFF_DEALLOCATES, EFF_DISCARDS_ALL, EFF_EXECUTES, EFF_LAST,
    EFF_STARTS,
    EFF_MULTI, EFF_RESETS, EFF_REWRITES, EFF_ROLLS_BACK, EFF_SETTINGS, GONE, JUDGING, TERMINATED, TOLD_HERE,
    V_AFTER_SSL, V_FORMAT, V_LENGTH, V_NOT_PASSWORD, V_STARTUP, V_TYPE, Burst, Relay, keep_refusal,
    up_admin_message, up_deallocate, up_executed, up_judge_function, up_judged,
    up_login_message, up_refuse_size, up_reset, up_startup,
)
from tenant_proxy.relay.entry cimport enter_message, enter_startup
from tenant_proxy.relay.extended cimport on_bind, on_name, on_parse, on_whole
from tenant_proxy.relay.hearing cimport (
    LISTEN_GOES, LISTEN_HELD, for_ear, heard_before, listen_check,
)
from tenant_proxy.relay.lanes cimport LANE_GOES, LANE_HELD, lane_check
from tenant_proxy.relay.pacing cimport PACE_HELD, PACE_REFUSED, gate_check
from tenant_proxy.relay.pairing cimport client_end, maybe_release
from tenant_proxy.relay.portals cimport breaks_copy
from tenant_proxy.relay.preparing cimport executed
from tenant_proxy.relay.requests cimport (
    ENDED, HOLD, apply_effects, burst_flush, burst_forward, gather, judge, let_go, may_pin, no_server,
    refuse_extended, refuse_gathered, refuse_query, server_of, skip,
    stream, tell_ready, violation,
)
from tenant_proxy.relay.resets cimport discarded, reset_effects
from tenant_proxy.relay.rewriting cimport rewritten, write_query
from tenant_proxy.relay.sequences cimport VALUES_GO, VALUES_HELD, before_touch, own_values, prefer_own, values_check
from tenant_proxy.relay.server cimport drain_fakes
from tenant_proxy.relay.stale cimport remember
from tenant_proxy.relay.statements cimport client_drop_unnamed, server_forget_all
from tenant_proxy.relay.turns cimport turn_flush
from tenant_proxy.wire.buf cimport buf_len
from tenant_proxy.wire.consts cimport (
    F_BIND, F_CLOSE, F_COPY_DATA, F_DESCRIBE, F_EXECUTE, F_FLUSH, F_FUNCTION_CALL, F_PARSE, F_PASSWORD,
    F_QUERY, F_SYNC, F_TERMINATE, XACT_FAILED, XACT_IDLE, frontend_limit, read_u32,
)

cdef enum:
    LOGIN_MESSAGE_LIMIT = 65535     # PG_MAX_AUTH_TOKEN_LENGTH (src/include/libpq/auth.h)
    STARTUP_LIMIT = 10000           # MAX_STARTUP_PACKET_LENGTH (src/include/libpq/pqcomm.h)
    LARGE_BYTES = 1048576           # messages above this that are needed whole are counted


# --- bytes ------------------------------------------------------------------------


cdef int client_bytes(Reactor r, Link *l, char *data, size_t n, size_t *used) noexcept nogil:
    return client_work(<Relay> r, <Client *> l, data, n, used)


cdef int client_work(Relay e, Client *c, char *data, size_t n, size_t *used) noexcept nogil:
    cdef Burst b
    cdef size_t pos = 0
    cdef size_t k
    cdef ssize_t r = 0
    cdef Server *s
    b.run = NULL
    b.run_size = 0
    b.knows = 0
    b.fresh = c.server == NULL or (c.server.ring.count == 0 and not c.server.batch_open)
    e.batch_size = 0
    c.active_us = e.now_us
    c.link.need = 0
    while pos < n:
        if buf_len(&c.link.out) > e.send_limit:
            # it does not read what it has been answered
            e.pause(&c.link)
            break
        if c.stream_left:
            if c.replay != NULL:
                # what came before it is on its way to another server
                e.pause(&c.link)
                break
            k = n - pos if n - pos < c.stream_left else c.stream_left
            if not c.skip_stream and c.server != NULL:
                burst_forward(e, &b, data + pos, k)
            c.stream_left -= k
            pos += k
            if c.stream_left == 0 and (b.run_size or e.batch_size):
                # to the server that has its beginning: what comes next may be for another, or have something of the
                # proxy's go ahead of it
                flush(e, &b, c, c.server)
                if c.phase == CL_CLOSING:
                    break
            continue
        if c.phase < CL_IDLE:
            r = login_message(e, c, data + pos, n - pos)
        elif c.phase == CL_ADMIN:
            r = admin_message(e, c, data + pos, n - pos)
        else:
            r = client_message(e, c, &b, data + pos, n - pos)
            if r == 0 and c.link.need > LARGE_BYTES and not gather(e, c, c.link.need):
                r = refuse_gathered(e, c, &b, data[pos], c.link.need)
        if r <= 0:
            break
        if c.judging:
            up_judged(e, c)
        if c.gathered:
            let_go(c)
        pos += r
    if c.phase == CL_CLOSING or c.link.dead:
        return -1
    used[0] = pos
    s = c.server
    if s != NULL:
        if s.ring.count and not c.request_us:
            c.request_us = e.now_us
        if c.lane == LANE_SHARED:
            if pos == n and s.ring.count and not turn_flush(e, &b, c, s):
                rest_behind(e, &b, c, s)
            if s.ahead and c.phase != CL_CLOSING:
                ahead_flush(e, &b, c, s)
            if c.phase == CL_CLOSING:
                return -1
        if b.knows:
            remember(e, &b, c, s)
        elif s.asked_size and e.batch_size + b.run_size:
            # more than was remembered
            s.asked_size = 0
        # nothing is left of one that has gone with a switch
        burst_flush(e, &b, c, s)
        if s.ring.count and ring_head(&s.ring).action & ACT_FAKE:
            drain_fakes(e, s)
            if s.ring.count == 0:
                # a message that waits for these answers has no other to wait for
                e.unpause(&c.link)
        maybe_release(e, s)
    return 0 if c.phase != CL_CLOSING else -1


cdef void flush(Relay e, Burst *b, Client *c, Server *s) noexcept nogil:
    # what has come so far, in the middle of a burst
    if s.ahead:
        ahead_flush(e, b, c, s)
    if c.phase != CL_CLOSING:
        burst_flush(e, b, c, s)


cdef inline bint takes_no_copy(Server *s) noexcept nogil:
    # Neither in a COPY nor on the way to one: it would drop what belongs to one, or do nothing at a Flush.  So that is not
    # sent: half of it would keep the server, and it would have to go to no other than its other half.
    return s == NULL or (s.ring.count == 0 and not s.batch_open and not s.copy_in)


# --- before the relay ---------------------------------------------------------------


cdef ssize_t login_message(Relay e, Client *c, char *p, size_t n) noexcept nogil:
    cdef uint32_t length
    if c.held or c.phase == CL_LOGIN_WAITING:
        # more than the login needs may come early, but not without bound
        if n > LOGIN_MESSAGE_LIMIT:
            return violation(e, c, V_LENGTH, 0)
        e.pause(&c.link)
        return HOLD
    if c.phase == CL_STARTUP:
        if n >= 1 and p[0] == 0x16 and c.link.tls == NULL:
            # a TLS ClientHello: direct negotiation; the records go to the layer as they are
            up_startup(e, c, p, n)
            return <ssize_t> n if c.phase != CL_CLOSING and not c.link.dead else ENDED
        if n < 4:
            return 0
        length = read_u32(p)
        if p[0] == F_TERMINATE and n >= 5 and read_u32(p + 1) == 4:
            # a driver whose user has thought better of it: the server says nothing either
            client_end(e, c, TERMINATED)
            return ENDED
        if length < 8 or length > STARTUP_LIMIT:
            return violation(e, c, V_STARTUP, 0)
        if n < length:
            c.link.need = length
            return 0
        if read_u32(p + 4) == 80877103 and n > length:
            # bytes behind an SSLRequest came in plain text and must not be read as encrypted ones
            return violation(e, c, V_AFTER_SSL, 0)
        if length == 8 and (read_u32(p + 4) == 80877104 or (
                read_u32(p + 4) == 80877103 and (not e.offers_tls or c.link.local))) and c.link.tls == NULL:
            # GSSENCRequest, or SSLRequest without TLS
            e.send(&c.link, b"N", 1)
            return length
        if not enter_startup(e, c, p, length):
            # with what has come behind it, as the connection may go to another worker
            up_startup(e, c, p, n)
        return <ssize_t> length if c.phase != CL_CLOSING and not c.link.dead else ENDED
    if n < 5:
        return 0
    if p[0] != F_PASSWORD:
        if p[0] == F_TERMINATE:
            client_end(e, c, TERMINATED)
            return ENDED
        return violation(e, c, V_NOT_PASSWORD, <uint8_t> p[0])
    length = read_u32(p + 1)
    if length < 4 or length > LOGIN_MESSAGE_LIMIT:
        return violation(e, c, V_LENGTH, 0)
    if n < length + 1:
        c.link.need = length + 1
        return 0
    if c.exchange != NULL:
        enter_message(e, c, p + 5, length - 4)
    else:
        up_login_message(e, c, p, length + 1)
    return <ssize_t> length + 1 if c.phase != CL_CLOSING and not c.link.dead else ENDED


cdef ssize_t admin_message(Relay e, Client *c, char *p, size_t n) noexcept nogil:
    cdef uint32_t length
    if c.held:
        e.pause(&c.link)
        return HOLD
    if n < 5:
        return 0
    length = read_u32(p + 1)
    if frontend_limit(p[0]) == 0:
        return violation(e, c, V_TYPE, <uint8_t> p[0])
    if length < 4 or length > LOGIN_MESSAGE_LIMIT:
        return violation(e, c, V_LENGTH, 0)
    if n < length + 1:
        c.link.need = length + 1
        return 0
    if p[0] == F_TERMINATE:
        client_end(e, c, TERMINATED)
        return ENDED
    up_admin_message(e, c, p, length + 1)
    return <ssize_t> length + 1 if c.phase != CL_CLOSING and not c.link.dead else ENDED


# --- one message ----------------------------------------------------------------------


cdef ssize_t client_message(Relay e, Client *c, Burst *b, char *p, size_t n) noexcept nogil:
    cdef int code, limit
    cdef uint32_t length
    cdef size_t total
    cdef Server *s
    if c.phase == CL_WAITING or c.phase == CL_PARTING or c.judging == JUDGING or c.paced == PACE_WAITS:
        e.pause(&c.link)
        return HOLD
    if n < 5:
        return 0
    code = p[0]
    limit = frontend_limit(code)
    if limit == 0:
        return violation(e, c, V_TYPE, <uint8_t> p[0])
    length = read_u32(p + 1)
    if length < 4 or length > <uint32_t> limit:
        return violation(e, c, V_LENGTH, 0)
    total = <size_t> length + 1
    s = c.server
    if c.answered:
        # by the error of the BEGIN ahead of it
        c.answered = 0
        if code == F_QUERY or code == F_FUNCTION_CALL:
            tell_ready(e, c)
            return skip(c, total)
        c.phase = CL_SKIP_TO_SYNC
    if (code == F_SYNC or code == F_FLUSH) and total != 5:
        return violation(e, c, V_FORMAT, 0)
    if code == F_TERMINATE:
        if s != NULL:
            flush(e, b, c, s)
        client_end(e, c, TERMINATED)
        return ENDED
    if c.phase == CL_SKIP_TO_SYNC or (s != NULL and s.skipping):
        if code != F_SYNC:
            return skip(c, total)
        if c.phase == CL_SKIP_TO_SYNC:
            c.phase = CL_ACTIVE if s != NULL else CL_IDLE
            tell_ready(e, c)
            return total
    if s != NULL and s.copy_in and breaks_copy(e, s, code):
        return refuse_query(e, c, b, total) if code in (F_QUERY, F_FUNCTION_CALL) else refuse_extended(e, c, b, total)
    if c.pool.gated:
        limit = gate_check(e, c, code)
        if limit == PACE_HELD:
            return HOLD
        if limit == PACE_REFUSED:
            return refuse_query(e, c, b, total) if code == F_QUERY else refuse_extended(e, c, b, total)
    # what is answered to these waits for a Sync or Flush, unless there is much of it
    c.unasked = (code == F_PARSE or code == F_BIND or code == F_DESCRIBE or code == F_EXECUTE or code == F_CLOSE)
    if code == F_QUERY:
        return on_query(e, c, b, p, n, total)
    if code == F_PARSE:
        return on_parse(e, c, b, p, n, total)
    if code == F_BIND:
        return on_bind(e, c, b, p, n, total)
    if code == F_DESCRIBE or code == F_CLOSE:
        return on_name(e, c, b, p, n, total)
    if code == F_EXECUTE:
        return on_whole(e, c, b, p, n, total, R_EXECUTE)
    if code == F_SYNC:
        if s == NULL:
            tell_ready(e, c)
            return total
        s.skipping = 0
        if not s.copy_in:
            # a server that takes CopyData swallows Sync (CopyGetData in src/backend/commands/copyfromparse.c)
            s.batch_open = s.batch_runs = 0
            ring_push(&s.ring, R_SYNC, keep_batch(c) if c.began != NULL else 0, NULL, 0)
        else:
            s.copied = SWALLOWED
        burst_forward(e, b, p, total)
        return total
    if code == F_FLUSH:
        if not takes_no_copy(s):
            burst_forward(e, b, p, total)
        return total
    if code == F_FUNCTION_CALL:
        return on_function_call(e, c, b, p, n, total)
    # CopyData, CopyDone, CopyFail: without a COPY the server ignores them too, since the client may not
    # have read its failure yet (PostgresMain in src/backend/tcop/postgres.c)
    if takes_no_copy(s):
        return skip(c, total)
    if code != F_COPY_DATA:
        s.copy_in = 0
        if s.ring.count:
            ring_push(&s.ring, R_COPY_END, 0, NULL, 0)
    return stream(e, c, b, p, n, total)


# --- simple query -----------------------------------------------------------------------


cdef ssize_t on_query(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    cdef Server *s
    cdef uint32_t effects
    cdef size_t size
    cdef int how, lane
    cdef void *answer = NULL
    cdef Rewrite *r = NULL
    if total > e.max_statement:
        up_refuse_size(e, c, total)
        return refuse_query(e, c, b, total)
    if n < total:
        c.link.need = total
        return 0
    size = total - 6
    if total < 6 or memchr(p + 5, 0, size + 1) != p + total - 1:
        return violation(e, c, V_FORMAT, 0)
    effects = judge(e, c, p + 5, size)
    if not effects & EFF_ALLOWED:
        return no_server(c) if effects else refuse_query(e, c, b, total)
    if effects & EFF_EXECUTES and not up_executed(e, c, effects, p + 5, size, NULL, 0):
        c.pool.rejected += 1
        return refuse_query(e, c, b, total)
    if effects & TOLD_HERE:
        how = listen_check(e, c, p + 5, size, &effects, False)
        if how != LISTEN_GOES:
            return no_server(c) if how == LISTEN_HELD else refuse_query(e, c, b, total)
    if effects & (EFF_BEGINS | EFF_STARTS) and c.server != NULL and is_only_asked(c):
        # it has a server for no more than that: once it has none, this takes none
        e.pause(&c.link)
        return HOLD
    if without_server(e, c, effects, p + 5, size, b"", 0) or (effects & EFF_DISCARDS_ALL and discarded(e, c, effects)):
        # any simple query ends the unnamed statement
        client_drop_unnamed(c)
        return total
    if not may_pin(e, c, effects):
        return refuse_query(e, c, b, total)
    if effects & EFF_LAST and c.server == NULL:
        prefer_own(e, c)
    if c.pool.group != NULL:
        if effects & EFF_RESETS:
            effects = reset_effects(e, c, effects)
        lane = lane_check(e, c, effects & ~<uint32_t> EFF_RESETS)
        if lane != LANE_GOES:
            return no_server(c) if lane == LANE_HELD else refuse_query(e, c, b, total)
        if effects & (EFF_COMMITS | EFF_ROLLS_BACK):
            c.server.may_rest = 1
    s = server_of(e, c)
    if s == NULL or (c.listens and not heard_before(e, c, s, effects)):
        return no_server(c)
    s.batch_runs &= ~<int> RUNS_UNNAMED
    if not effects & EFF_LAST:
        before_touch(e, c, b, s, effects, True)
    else:
        c.pool.asks_last = 1
        how = values_check(e, c, s, effects)
        if how != VALUES_GO:
            return no_server(c) if how == VALUES_HELD else refuse_query(e, c, b, total)
        own_values(e, c, b, s, not s.batch_open)
    if effects & TOLD_HERE:
        r = for_ear(e, c, s, effects, p + 5, size, b"", 1)
        if r == NULL:
            return refuse_query(e, c, b, total)
    elif effects & EFF_EXECUTES and c.stmts.count:
        r = executed(e, c, b, s, p + 5, size, b"", 1, 1)
    if r != NULL:
        pass
    elif effects & EFF_RESETS and s.pool.is_group:
        r = up_reset(e, c, p + 5, size)
        if r == NULL:
            return refuse_query(e, c, b, total)
    elif effects & EFF_REWRITES:
        r = rewritten(e, c, p + 5, size, b"", 1)
        if r == NULL:
            return refuse_query(e, c, b, total)
    if effects & EFF_DEALLOCATES and c.tracks and (s.xact_status != XACT_FAILED or s.ring.count or effects & EFF_MULTI):
        how = up_deallocate(e, c, p + 5, size, True)
        if how == 1:
            keep_refusal(e, &answer)
            ring_push(&s.ring, R_QUERY, ACT_FAKE, answer, 0)
            s.unnamed_id = 0
            client_drop_unnamed(c)
            if r != NULL:
                rewrite_unref(r)
            return total
        if how == 2:
            server_forget_all(s)
            s.close_needed = 1
    if effects & EFF_RESETS and not s.pool.is_group:
        effects |= EFF_SETTINGS
    apply_effects(e, c, s, effects, p + 5, size)
    s.unnamed_id = 0
    client_drop_unnamed(c)
    ring_push(&s.ring, R_QUERY, (ACT_DISCARD if effects & EFF_DISCARDS_ALL else 0)
              | keep_begun(c, effects, p + 5, size), NULL, 0)
    if r != NULL:
        ring_mark(&s.ring, r)
        write_query(e, b, r)
        rewrite_unref(r)
    else:
        burst_forward(e, b, p, total)
    return total


cdef bint is_only_asked(Client *c) noexcept nogil:
    # whether its server, at rest, still has to say what the client has set there
    cdef Server *s = c.server
    return (c.pool.defers and c.tracks and not c.pinned and s.ring.count == 1
            and ring_head(&s.ring).action & ACT_ASK and not s.batch_open and not s.stream_left
            and s.xact_status == XACT_IDLE)


cdef ssize_t on_function_call(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    cdef Server *s
    cdef uint32_t effects
    cdef int lane
    if total < 11:
        return violation(e, c, V_FORMAT, 0)
    if n < 9:
        c.link.need = 9
        return 0
    if c.pool.scope == 0 and server_of(e, c) == NULL:
        return no_server(c)
    effects = up_judge_function(e, c, read_u32(p + 5))
    if not effects:
        c.pool.rejected += 1
        return refuse_query(e, c, b, total)
    if not may_pin(e, c, effects):
        return refuse_query(e, c, b, total)
    if c.pool.group != NULL:
        lane = lane_check(e, c, effects)
        if lane != LANE_GOES:
            return no_server(c) if lane == LANE_HELD else refuse_query(e, c, b, total)
    s = server_of(e, c)
    if s == NULL or (c.listens and not heard_before(e, c, s, effects)):
        return no_server(c)
    if c.began != NULL and may_repeat(effects):
        forget_began(c)
    apply_effects(e, c, s, effects, NULL, 0)
    ring_push(&s.ring, R_FUNCTION, 0, NULL, 0)
    return stream(e, c, b, p, n, total)


# --- the other events of a client's link ----------------------------------------------------


cdef void client_eof(Reactor r, Link *l) noexcept nogil:
    client_end(<Relay> r, <Client *> l, GONE)


cdef void client_drained(Reactor r, Link *l) noexcept nogil:
    # the client reads again: so may its server be, and what it sends itself
    cdef Client *c = <Client *> l
    r.unpause(l)
    if c.server != NULL:
        r.unpause(&c.server.link)


cdef void client_free(Reactor r, Link *l) noexcept nogil:
    free(l)
