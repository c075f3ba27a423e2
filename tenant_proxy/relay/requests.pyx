"""What the handlers of clients' messages share: the burst, verdicts, refusals, and dropping or streaming.

A refused statement is answered here while the client has nothing outstanding; otherwise a request
that is bound to fail goes to the server in its place, and the server's error is replaced on its way
back.  So the server itself aborts the transaction and skips to Sync, and replies keep their order.
"""

from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport (
    ACT_REFUSED, CL_CLOSING, CL_SKIP_TO_SYNC, R_PARSE, R_QUERY, RUNS_UNNAMED, Client, Server, ring_push,
)
from tenant_proxy.relay.core cimport (
    EFF_ALLOWED, EFF_BEGINS, EFF_DDL, EFF_DISCARDS_ALL, EFF_GROWS, EFF_KEEPS, EFF_LITERALS, EFF_OPAQUE, EFF_PINS, EFF_READS, EFF_RESETS,
    EFF_SETTINGS, EFF_STARTS, EFF_WRITES, EFF_XACT_CONTROL, JUDGING, NO_NEWS, PROTOCOL, Burst, Relay,
    keep_refusal, send_refusal, up_judge, up_pinned, up_refuse_gathered, up_refuse_growth, up_too_many_pins, up_violation,
)
from tenant_proxy.relay.begins cimport begin_on, status_without
from tenant_proxy.relay.hearing cimport NOTIFIED
from tenant_proxy.relay.lanes cimport LANE_GOES, lane_check
from tenant_proxy.relay.marks cimport count_pin, counted, define
from tenant_proxy.relay.pairing cimport client_end, obtain
from tenant_proxy.relay.readings cimport reads_alone
from tenant_proxy.relay.statements cimport client_drop_unnamed, server_forget_all
from tenant_proxy.wire.consts cimport F_QUERY, XACT_IDLE, put_u32

cdef enum:
    RING_LIMIT = 65536              # outstanding requests above which a client is not read

# A request that the server refuses whatever its state: it stands in for one that the guard refused.
# Named, so that the unnamed statement stays as it was.
cdef const char *POISON = b"tenant_proxy refused this statement"
cdef enum:
    POISON_SIZE = 35


# --- the burst ----------------------------------------------------------------------


cdef void burst_forward(Relay e, Burst *b, char *data, size_t n) noexcept nogil:
    if b.run_size and b.run + b.run_size == data:
        b.run_size += n
        return
    if b.run_size:
        e.batch_add(b.run, b.run_size)
    b.run = data
    b.run_size = n


cdef void burst_write(Relay e, Burst *b, const char *data, size_t n) noexcept nogil:
    if b.run_size:
        e.batch_add(b.run, b.run_size)
        b.run_size = 0
    e.batch_add(data, n)


cdef void burst_flush(Relay e, Burst *b, Client *c, Server *s) noexcept nogil:
    cdef int full = 0
    if e.batch_size == 0:
        if b.run_size:
            full = e.send(&s.link, b.run, b.run_size)
    else:
        if b.run_size:
            e.batch_add(b.run, b.run_size)
        full = e.send(&s.link, e.batch, e.batch_size)
        e.batch_size = 0
    b.run_size = 0
    if full == 1 or s.ring.count > RING_LIMIT:
        e.pause(&c.link)


# --- answers ------------------------------------------------------------------------


cdef ssize_t violation(Relay e, Client *c, int what, uint32_t value) noexcept nogil:
    if c.server == NULL or not (c.server.stream_left and c.server.relaying):
        up_violation(e, c, what, value)
    client_end(e, c, PROTOCOL)
    return ENDED


cdef ssize_t skip(Client *c, size_t total) noexcept nogil:
    # drops a message, whether or not all of it is here
    c.skip_stream = 1
    c.stream_left = total - 5
    return 5


cdef ssize_t stream(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    # forwards a message as it comes
    cdef size_t k = total if n >= total else n
    burst_forward(e, b, p, k)
    c.stream_left = total - k
    c.skip_stream = 0
    return k


cdef void tell_ready(Relay e, Client *c) noexcept nogil:
    cdef char m[6]
    m[0] = b'Z'
    put_u32(&m[1], 5)
    m[5] = c.xact_status = status_without(c)
    e.send(&c.link, m, 6)


cdef bint in_peace(Client *c) noexcept nogil:
    # nothing outstanding and no transaction: the proxy may answer in the server's place
    return c.server == NULL or (c.server.ring.count == 0 and not c.server.batch_open and not c.server.stream_left
                                and c.server.xact_status == XACT_IDLE)


cdef uint32_t judge(Relay e, Client *c, const char *sql, size_t n) noexcept nogil:
    # the statement's effects with EFF_ALLOWED; 0: refused; HELD: the message stays for the time being
    cdef uint32_t effects
    if c.pool.guard_mode == 2:
        effects = 0
    else:
        effects = e.verdicts.lookup(c.pool.scope | c.codec_bits, sql, n)
        if effects:
            return effects if not c.pool.full else unless_it_grows(e, c, effects)
    if c.pool.scope == 0 and server_of(e, c) == NULL:
        # what the server has installed decides, and is not known before one is open
        return HELD
    effects = up_judge(e, c, sql, n)
    if not effects:
        if c.judging == JUDGING:
            return HELD
        c.pool.rejected += 1
    return effects if not c.pool.full else unless_it_grows(e, c, effects)


cdef uint32_t unless_it_grows(Relay e, Client *c, uint32_t effects) noexcept nogil:
    # of a tenant that is over its storage; 0: refused
    if not effects & EFF_ALLOWED or not effects & EFF_GROWS:
        return effects
    c.pool.rejected += 1
    up_refuse_growth(e, c)
    return 0


cdef bint may_pin(Relay e, Client *c, uint32_t effects) noexcept nogil:
    # Whether the client may keep its server for what the statement leaves there; if not, `refusal` says so.
    if not effects & EFF_PINS or c.pinned or not c.pool.max_pins:
        return True
    if counted(e, c.pool.pins_index) < c.pool.max_pins:
        return True
    up_too_many_pins(e, c)
    return False


cdef inline bint may_set(uint32_t effects) noexcept nogil:
    # SET LOCAL does nothing that is known; the end of a transaction takes back what was set in it
    if effects & (EFF_SETTINGS | EFF_OPAQUE | EFF_RESETS | EFF_KEEPS):
        return True
    if effects & EFF_XACT_CONTROL:
        return not effects & (EFF_BEGINS | EFF_STARTS)
    return not effects & (EFF_READS | EFF_WRITES)


cdef void apply_effects(Relay e, Client *c, Server *s, uint32_t effects, const char *sql, size_t n) noexcept nogil:
    # what the statement will leave on the server, if it succeeds
    if may_set(effects):
        s.unsettled = 1
    if effects & EFF_LITERALS:
        reads_alone(e, c)
    if effects & (EFF_SETTINGS | EFF_PINS | EFF_DISCARDS_ALL):
        if effects & EFF_SETTINGS:
            s.settings_changed = 1
        if effects & EFF_PINS:
            s.dirty = 1
            if not c.pinned:
                c.pinned = 1
                count_pin(e, c.pool, 1)
                up_pinned(e, c, sql, n)
        if effects & EFF_DISCARDS_ALL:
            server_forget_all(s)
    if effects & EFF_DDL:
        # what is prepared from here on must not meet plans of before: now in its own transaction, later in others
        define(e, c.pool)
        s.defines = 1
    if effects & ~<uint32_t> (NO_NEWS | EFF_ALLOWED):
        s.notifier = c.pid
        s.notifier_pool = c.pool.id
        if not s.notified:
            s.notified = NOTIFIED
        # currval, lastval and the like stay behind in session mode
        if c.pool.session_mode:
            s.dirty = 1
        else:
            s.touched = 1
            s.touched_by = c.link.id
            c.touched = s.link.id


cdef bint gather(Relay e, Client *c, size_t size) noexcept nogil:
    # whether there is room for a message that has to be kept until it is whole
    cdef size_t others = c.pool.owner.gathered - c.gathered
    if others and others + size > e.max_gathered:
        return False
    c.pool.owner.gathered = others + size
    c.gathered = size
    return True


cdef void let_go(Client *c) noexcept nogil:
    c.pool.owner.gathered -= c.gathered
    c.gathered = 0


cdef ssize_t refuse_gathered(Relay e, Client *c, Burst *b, int code, size_t total) noexcept nogil:
    c.link.need = 0
    up_refuse_gathered(e, c)
    return refuse_query(e, c, b, total) if code == F_QUERY else refuse_extended(e, c, b, total)


cdef ssize_t refuse_query(Relay e, Client *c, Burst *b, size_t total) noexcept nogil:
    cdef char m[5]
    cdef void *error = NULL
    cdef Server *s = c.server
    # any simple query ends the unnamed statement, one that fails too
    client_drop_unnamed(c)
    if in_peace(c):
        send_refusal(e, &c.link)
        c.begun_failed = 1
        tell_ready(e, c)
    else:
        s.unnamed_id = 0
        s.batch_runs &= ~<int> RUNS_UNNAMED
        keep_refusal(e, &error)
        m[0] = b'Q'
        put_u32(&m[1], 4 + POISON_SIZE + 1)
        burst_write(e, b, m, 5)
        burst_write(e, b, POISON, POISON_SIZE + 1)
        ring_push(&s.ring, R_QUERY, ACT_REFUSED, error, 0)
    return skip(c, total)


cdef ssize_t refuse_extended(Relay e, Client *c, Burst *b, size_t total) noexcept nogil:
    cdef char m[5]
    cdef void *error = NULL
    cdef Server *s = c.server
    if in_peace(c):
        send_refusal(e, &c.link)
        c.begun_failed = 1
        c.phase = CL_SKIP_TO_SYNC
    else:
        keep_refusal(e, &error)
        m[0] = b'P'
        put_u32(&m[1], 4 + 11 + POISON_SIZE + 1 + 2)
        burst_write(e, b, m, 5)
        burst_write(e, b, b"tp_refused\0", 11)
        burst_write(e, b, POISON, POISON_SIZE + 1)
        burst_write(e, b, b"\0\0", 2)
        ring_push(&s.ring, R_PARSE, ACT_REFUSED, error, 0)
        s.batch_open = 1
    return skip(c, total)


cdef Server *server_of(Relay e, Client *c) noexcept nogil:
    cdef Server *s = c.server
    if s == NULL:
        if c.pool.group != NULL:
            # it may have one that is not yet what the client's bytes must find
            s = c.server if lane_check(e, c, 0) == LANE_GOES else NULL
        else:
            s = obtain(e, c)
    if s != NULL and c.begun != NULL:
        begin_on(e, c, s)
        return NULL
    return s


cdef ssize_t no_server(Client *c) noexcept nogil:
    return ENDED if c.phase == CL_CLOSING else HOLD
