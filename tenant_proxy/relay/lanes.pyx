"""Prove or escalate: which transactions run on shared servers, and which on the tenant's own.

A shared server's session belongs to a login that may become every tenant.  So nothing runs there but
what is known to change neither role nor session, whatever its parameters: statements that the guard
has read (no Effect of `NOT_SHARED`), of tenants all of whose code (functions, views, defaults …) has
been read too (`is_proven`).  Everything else runs on servers logged in as the tenant's own role.

A tenant's code changes only by its own statements, on its own servers, and those that may change it
unseen (Effect.UNPROVEN) are counted before they are sent.  From then on nothing of the tenant's starts
on shared servers, in no worker, until its code has been read again; and the statement waits until what
runs there has ended.  The counters are in the workers' shared memory.
"""

from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memchr, strlen
from posix.strings cimport strncasecmp

from tenant_proxy.pool.pool cimport (
    ACT_FAKE, ACT_SKIP, CL_ACTIVE, CL_IDLE, CL_WAITING, CODE_PROVEN, CODE_UNREAD, ESC_CODE, ESC_REFUSED, ESC_STATEMENT, ESC_TRANSACTION,
    LANE_OWN, LANE_SHARED, R_QUERY, R_SYNC, Client, Pool, Server, ring_head, ring_push,
)
from tenant_proxy.relay.begins cimport begins_anew, forget_began, may_repeat
from tenant_proxy.relay.core cimport (
    EFF_ALLOWED, EFF_BEGINS, EFF_BOUND, EFF_COMMITS, EFF_COPIES, EFF_DDL, EFF_DEALLOCATES, EFF_DISCARDS_ALL, EFF_ESCALATES,
    EFF_MULTI, EFF_OPAQUE, EFF_PINS, EFF_READS, EFF_RESETS, EFF_REWRITES, EFF_ROLLS_BACK, EFF_SELF, EFF_SETTINGS, EFF_STARTS,
    EFF_UNPROVEN, EFF_XACT_CONTROL, UNCLEAN, Relay,
    up_escalate, up_quiesce, up_unread,
)
from tenant_proxy.relay.marks cimport count_shared, counted, is_proven
from tenant_proxy.relay.pairing cimport give_up, maybe_release, obtain, server_end, unpair
from tenant_proxy.relay.server cimport drain_fakes
from tenant_proxy.wire.consts cimport XACT_IDLE, XACT_OPEN, put_u32, read_u32

cdef enum:
    #: RESET ALL leads a shared one back to nobody's settings; who can do it without (relay.resets) does not say it here
    NOT_SHARED = EFF_ESCALATES | EFF_UNPROVEN | EFF_DDL | EFF_PINS | EFF_DISCARDS_ALL | EFF_RESETS
    #: may leave the server in a transaction or a COPY, or is followed by a question about settings
    MAY_STAY = EFF_XACT_CONTROL | EFF_MULTI | EFF_COPIES | EFF_SETTINGS | EFF_DEALLOCATES
    #: whatever does more is no turn (relay.turns)
    TURNS = EFF_READS | EFF_REWRITES | EFF_BOUND | EFF_ALLOWED
    #: a transaction of these alone may begin anew elsewhere
    READING = EFF_READS | EFF_MULTI | EFF_REWRITES | EFF_BOUND | EFF_SELF | EFF_ALLOWED
    #: a transaction that could not run on shared servers is seldom the only one (a migration, a test suite):
    #: others of the tenant begin on its own for so long
    OWN_FOR_US = 300000000

#: fails if the transaction has written, in a function perhaps, or is to see one snapshot to its end
cdef const char *MAY_MOVE = (
    b"SELECT pg_catalog.int4div(1, CASE WHEN pg_catalog.txid_current_if_assigned() IS NULL AND pg_catalog.texteq("
    b"pg_catalog.current_setting('transaction_isolation'), 'read committed') THEN 1 ELSE 0 END)"
)


cdef int lane_check(Relay e, Client *c, uint32_t effects) noexcept nogil:
    # Called with each statement of a client whose pool is in a group, before it gets a server.
    cdef Server *s = c.server
    cdef Pool *p = c.pool
    cdef int why
    cdef bint begins_own
    if effects & NOT_SHARED and (c.begun != NULL or (s != NULL and s.xact_status == XACT_OPEN)):
        p.own_until_us = e.now_us + OWN_FOR_US
    if s != NULL:
        if not s.pool.is_group:
            return check_code(e, c, effects)
        # a client may have kept its server for what it has set there
        begins_own = (
            begins_elsewhere(e, p) and effects & EFF_XACT_CONTROL
            and s.xact_status == XACT_IDLE and not s.batch_open and not s.stream_left
        )
        if not effects & NOT_SHARED and not begins_own and is_proven(e, p):
            if c.began == NULL:
                pass
            elif effects & EFF_READS and not effects & ~<uint32_t> READING:
                c.has_read = 1
            elif not may_repeat(effects):
                forget_began(c)
            note_effects(s, effects)
            return LANE_GOES
        if effects & (EFF_COMMITS | EFF_ROLLS_BACK):
            # Clients take a transaction for ended whatever COMMIT says.  All that it does was proven when it was
            # said, deferred triggers too: who changes the tenant's code waits for its end (`check_code`).
            if c.began != NULL:
                forget_began(c)
            s.may_rest = 0
            return LANE_GOES
        if s.ring.count and not s.skipping and ring_head(&s.ring).action & ACT_FAKE and ring_head(&s.ring).request != R_QUERY:
            # its names for statements, closed ahead of this one: that needs no server's answer
            drain_fakes(e, s)
        if s.settings_changed and s.ring.count == 0 and not s.batch_open and s.xact_status == XACT_IDLE:
            # it is asked for them first
            maybe_release(e, s)
            e.pause(&c.link)
            return LANE_HELD
        if s.ring.count == 0 and not s.batch_open and not s.stream_left and s.xact_status == XACT_IDLE:
            give_up(e, s)
        elif s.ring.count and not s.batch_open and (s.xact_status == XACT_IDLE or c.began != NULL):
            # whether it is in a transaction, and may be moved, shows when what it has asked for is answered
            e.pause(&c.link)
            return LANE_HELD
        elif (s.batch_open and not s.batch_runs and not s.skipping and s.xact_status == XACT_IDLE and s.ring.count == 0
                and not s.stream_left):
            end_batch(e, c, s)
            return LANE_HELD
        elif (c.began != NULL and s.xact_status == XACT_OPEN and s.ring.count == 0 and not s.batch_runs and not s.skipping
                and not s.stream_left and (c.repeats_sets or not s.settings_changed)):
            ask_to_move(e, c, s)
            return LANE_HELD
        else:
            p.begins_own = 1
            p.escalated[<int> ESC_REFUSED] += 1
            up_escalate(e, c)
            return LANE_REFUSED
    if effects & NOT_SHARED:
        why = ESC_STATEMENT
    elif p.known == CODE_UNREAD:
        up_unread(e, c)
        e.pause(&c.link)
        return LANE_HELD
    elif begins_elsewhere(e, p) and (effects & EFF_XACT_CONTROL or c.begun != NULL):
        why = ESC_TRANSACTION
    elif not is_proven(e, p):
        why = ESC_CODE
    else:
        c.lane = LANE_SHARED
        s = obtain(e, c)
        if s == NULL:
            return LANE_HELD
        # now it is counted: who changes code waits for it, or was there before and is seen here
        if is_proven(e, p):
            note_effects(s, effects)
            return LANE_GOES
        give_up(e, s)
        why = ESC_CODE
    c.lane = LANE_OWN
    p.escalated[why] += 1
    return check_code(e, c, effects)


cdef inline void note_effects(Server *s, uint32_t effects) noexcept nogil:
    # what a statement that goes to a shared server leaves possible at the end of its burst
    if effects & ~<uint32_t> TURNS:
        s.may_turn = 0
        if effects & MAY_STAY:
            s.may_rest = 0


cdef uint32_t elsewhere(
    Relay e, Client *c, uint32_t effects, const char *rest, size_t n, size_t total
) noexcept nogil:
    # what a BEGIN has besides its own effects, in a message of `total` bytes, of the `n` that are here; `rest` is behind it
    if effects & (EFF_BEGINS | EFF_STARTS) and c.server == NULL and n > total and leads_elsewhere(e, c, rest, n - total):
        return EFF_ESCALATES
    return 0


cdef bint leads_elsewhere(Relay e, Client *c, const char *rest, size_t n) noexcept nogil:
    # Whether the statement that was sent with a BEGIN, in the same batch, is none for shared servers, as far as is known
    # at a glance: then the transaction begins on the tenant's own, and need not be repeated there.
    cdef size_t size
    cdef const char *sql
    cdef const char *end
    cdef uint32_t effects
    while n >= 5:
        size = <size_t> read_u32(rest + 1) + 1
        if size > n or not (rest[0] == b'P' or rest[0] == b'B' or rest[0] == b'D' or rest[0] == b'E' or rest[0] == b'H'):
            return False
        if rest[0] == b'P':
            break
        rest += size
        n -= size
    if n < 5:
        return False
    sql = <const char *> memchr(rest + 5, 0, size - 5)
    end = <const char *> memchr(sql + 1, 0, rest + size - sql - 1) if sql != NULL else NULL
    if end == NULL:
        return False
    sql += 1
    effects = e.verdicts.lookup(c.pool.scope | c.codec_bits, sql, end - sql)
    if effects:
        return effects & NOT_SHARED != 0
    while sql < end and (sql[0] == b' ' or sql[0] == b'\n' or sql[0] == b'\t' or sql[0] == b'\r'):
        sql += 1
    return end - sql > 6 and (strncasecmp(sql, b"CREATE", 6) == 0 or strncasecmp(sql, b"DROP", 4) == 0
                              or strncasecmp(sql, b"ALTER", 5) == 0)


cdef int check_code(Relay e, Client *c, uint32_t effects) noexcept nogil:
    # on the way to a server of the tenant's own: what may change code unseen is counted, and goes alone
    cdef Pool *p = c.pool
    cdef Server *s
    cdef bint changes = effects & EFF_UNPROVEN or effects & EFF_OPAQUE and not is_proven(e, p)
    if changes:
        count_shared(e, p.mark_index, 1)
        if counted(e, p.active_index) > 0:
            if not up_quiesce(e, c):
                return LANE_REFUSED
            e.pause(&c.link)
            return LANE_HELD
    s = c.server if c.server != NULL else obtain(e, c)
    if s == NULL:
        return LANE_HELD
    if changes and not s.coded:
        s.coded = 1
        s.counted_at = p.coded_index
        count_shared(e, s.counted_at, 1)
    return LANE_GOES


cdef void end_batch(Relay e, Client *c, Server *s) noexcept nogil:
    # Statements were prepared and flushed, and no Sync has come, as where a driver learns types first: nothing has run,
    # so this Sync ends nothing but the server's part, and the client's own will find another.
    ring_push(&s.ring, R_SYNC, ACT_SKIP, NULL, 0)
    e.batch_add(b"S\0\0\0\4", 5)
    s.batch_open = 0
    c.phase = CL_WAITING
    e.pause(&c.link)


cdef inline bint begins_elsewhere(Relay e, Pool *p) noexcept nogil:
    return p.begins_own or e.now_us < p.own_until_us


# --- a transaction that has only read and set begins anew ----------------------------------------


cdef void ask_to_move(Relay e, Client *c, Server *s) noexcept nogil:
    cdef char m[5]
    cdef const char *sql = b"SELECT"
    if c.has_read:
        sql = MAY_MOVE
    ring_push(&s.ring, R_QUERY, ACT_SKIP, NULL, 0)
    m[0] = b'Q'
    put_u32(&m[1], <uint32_t> (4 + strlen(sql) + 1))
    e.batch_add(m, 5)
    e.batch_add(sql, strlen(sql) + 1)
    s.moving = 1
    c.phase = CL_WAITING
    e.pause(&c.link)


cdef int moved(Relay e, Server *s) noexcept nogil:
    # The server has answered.  -1: it has ended, and nothing is left of the transaction there.
    cdef Client *c = s.client
    s.moving = 0
    e.unpause(&c.link)
    if s.xact_status != XACT_OPEN:
        # so the statement that waits is refused
        forget_began(c)
        c.phase = CL_ACTIVE
        return 0
    begins_anew(c)
    unpair(e, s, c)
    c.phase = CL_IDLE
    server_end(e, s, UNCLEAN)
    return -1
