"""What keeps a client's next statement back before it needs a server: its tenant may run so many a second, over
all workers; or is stopped.

A tenant has one number in memory that all workers share: when its next statement is due.  Each statement
moves it on by the time between two; it may run ahead of the clock by the burst.  A statement that is early
has taken its turn and waits for it, so that those who wait go in their order, each woken once; one that
would wait longer than pool.queue_timeout_s is refused and takes none.

Only the first statement of a transaction waits: in a transaction one is counted, but holding its backend
would make others wait who have a right to it.

Where a pool is stopped (PAUSE, a move), the first message that would need a server stays unread until it is
stopped no more; what has a server, or waits for one already, ends as ever.
"""

from libc.stdint cimport int64_t, uint64_t

from tenant_proxy.pool.pool cimport PACE_COUNTED, PACE_GOES, PACE_WAITS, Client, Pool
from tenant_proxy.relay.core cimport Relay, up_pace, up_refuse_pace
from tenant_proxy.relay.requests cimport in_peace
from tenant_proxy.wire.consts cimport F_BIND, F_EXECUTE, F_FLUSH, F_FUNCTION_CALL, F_PARSE, F_QUERY, F_SYNC

cdef extern from *:
    """
    #define tp_swap(at, old, new) __atomic_compare_exchange_n(at, old, new, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)
    """
    bint tp_swap(int64_t *at, int64_t *old, int64_t new) nogil


cdef int gate_check(Relay e, Client *c, int code) noexcept nogil:
    if c.pool.stopped and c.server == NULL and code != F_SYNC and code != F_FLUSH:
        if not c.stopped:
            c.stopped = 1
            c.request_us = e.now_us
        e.pause(&c.link)
        return PACE_HELD
    c.stopped = 0
    return pace_check(e, c, code) if c.pool.pace != NULL else PACE_FREE


cdef int pace_check(Relay e, Client *c, int code) noexcept nogil:
    cdef Pool *p = c.pool
    cdef bint simple = code == F_QUERY or code == F_FUNCTION_CALL
    cdef int64_t wait
    if c.paced == PACE_GOES:
        c.paced = 0 if simple else PACE_COUNTED
        return PACE_FREE
    if code == F_SYNC:
        if c.paced == PACE_COUNTED:
            c.paced = 0
        else:
            take_turn(p, e.now_us, 0)
        return PACE_FREE
    if not simple and (c.paced == PACE_COUNTED or code != F_PARSE and code != F_BIND and code != F_EXECUTE):
        return PACE_FREE
    if not in_peace(c):
        if simple:
            take_turn(p, e.now_us, 0)
        return PACE_FREE
    wait = take_turn(p, e.now_us, <int64_t> p.queue_timeout_us)
    if wait <= 0:
        if not simple:
            c.paced = PACE_COUNTED
        return PACE_FREE
    if p.queue_timeout_us and <uint64_t> wait > p.queue_timeout_us:
        up_refuse_pace(e, c, wait)
        p.rejected += 1
        return PACE_REFUSED
    c.paced = PACE_WAITS
    e.pause(&c.link)
    up_pace(e, c, wait)
    return PACE_HELD


cdef int64_t take_turn(Pool *p, uint64_t now_us, int64_t most_us) noexcept nogil:
    # How long a statement has to wait that comes now, if that is more than 0.  It is counted, unless it would
    # have to wait longer than `most_us`; 0: no matter how long.
    cdef int64_t now = <int64_t> now_us
    cdef int64_t old = p.pace[0]
    cdef int64_t due, wait
    while True:
        due = old if old > now else now
        wait = due - now - p.pace_burst_us
        if most_us > 0 and wait > most_us:
            return wait
        if tp_swap(p.pace, &old, due + p.pace_us):
            return wait
