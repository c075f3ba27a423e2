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

from tenant_proxy.pool.pool cimport (
    CODE_PROVEN, CODE_UNREAD, ESC_CODE, ESC_REFUSED, ESC_STATEMENT, ESC_TRANSACTION, LANE_OWN, LANE_SHARED, Client, Pool,
    Server,
)
from tenant_proxy.relay.core cimport (
    EFF_COPIES, EFF_DDL, EFF_DEALLOCATES, EFF_DISCARDS_ALL, EFF_ESCALATES, EFF_MULTI, EFF_OPAQUE, EFF_PINS,
    EFF_SETTINGS, EFF_UNPROVEN, EFF_XACT_CONTROL, Relay,
    up_escalate, up_quiesce, up_unread,
)
from tenant_proxy.relay.marks cimport count_shared, counted, is_proven
from tenant_proxy.relay.pairing cimport give_up, maybe_release, obtain
from tenant_proxy.wire.consts cimport XACT_IDLE

cdef enum:
    NOT_SHARED = EFF_ESCALATES | EFF_UNPROVEN | EFF_DDL | EFF_PINS | EFF_DISCARDS_ALL
    #: may leave the server in a transaction or a COPY, or is followed by a question about settings
    MAY_STAY = EFF_XACT_CONTROL | EFF_MULTI | EFF_COPIES | EFF_SETTINGS | EFF_DEALLOCATES


cdef int lane_check(Relay e, Client *c, uint32_t effects) noexcept nogil:
    # Called with each statement of a client whose pool is in a group, before it gets a server.
    cdef Server *s = c.server
    cdef Pool *p = c.pool
    cdef int why
    if s != NULL:
        if not s.pool.is_group:
            return check_code(e, c, effects)
        if not effects & NOT_SHARED and is_proven(e, p):
            if effects & MAY_STAY:
                s.may_rest = 0
            return LANE_GOES
        if s.settings_changed and s.ring.count == 0 and s.xact_status == XACT_IDLE:
            # it is asked for them first
            maybe_release(e, s)
            e.pause(&c.link)
            return LANE_HELD
        if s.ring.count == 0 and not s.batch_open and not s.stream_left and s.xact_status == XACT_IDLE:
            give_up(e, s)
        elif s.ring.count and not s.batch_open and s.xact_status == XACT_IDLE:
            # whether it is in a transaction shows when what it has asked for is answered
            e.pause(&c.link)
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
    elif p.begins_own and (effects & EFF_XACT_CONTROL or c.begun != NULL):
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
            if effects & MAY_STAY:
                s.may_rest = 0
            return LANE_GOES
        give_up(e, s)
        why = ESC_CODE
    c.lane = LANE_OWN
    p.escalated[why] += 1
    return check_code(e, c, effects)


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
        count_shared(e, p.coded_index, 1)
    return LANE_GOES
