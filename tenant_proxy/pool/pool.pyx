"""Lists and counters of a pool: pure decisions, no sockets and no messages."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc, free

from tenant_proxy.guard.edits cimport Rewrite, rewrite_unref

cdef enum:
    RING_FIRST = 16             # places that a server's ring starts with

cdef uint64_t HOUR_US = 3600000000

#: upper bounds of the histograms in microseconds; the last bucket has none
cdef uint64_t[BUCKETS - 1] bounds = [
    500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
    1000000, 2500000, 5000000, 10000000, 30000000,
]


# --- idle servers: a stack, so that the least used ones age out ---------------


cdef void idle_push(Pool *p, Server *s) noexcept nogil:
    s.older = p.idle_first
    s.newer = NULL
    if p.idle_first != NULL:
        p.idle_first.newer = s
    else:
        p.idle_last = s
    p.idle_first = s
    p.idle_count += 1


cdef void idle_remove(Pool *p, Server *s) noexcept nogil:
    if s.newer != NULL:
        s.newer.older = s.older
    else:
        p.idle_first = s.older
    if s.older != NULL:
        s.older.newer = s.newer
    else:
        p.idle_last = s.newer
    s.newer = s.older = NULL
    p.idle_count -= 1


cdef Server *idle_pick(Pool *p, uint32_t startup_id, uint32_t settings_id) noexcept nogil:
    # same settings > same startup; of those the most recently used
    cdef Server *s = p.idle_first
    cdef Server *second = NULL
    while s != NULL:
        if s.startup_id == startup_id:
            if s.settings_id == settings_id:
                return s
            if second == NULL:
                second = s
        s = s.older
    return second


# --- waiting clients: first come, first served --------------------------------


cdef void wait_push(Pool *p, Client *c) noexcept nogil:
    c.wait_next = NULL
    c.wait_prev = p.wait_last
    if p.wait_last != NULL:
        p.wait_last.wait_next = c
    else:
        p.wait_first = c
    p.wait_last = c
    c.queued = 1
    p.waiting += 1


cdef void wait_remove(Pool *p, Client *c) noexcept nogil:
    if c.wait_prev != NULL:
        c.wait_prev.wait_next = c.wait_next
    else:
        p.wait_first = c.wait_next
    if c.wait_next != NULL:
        c.wait_next.wait_prev = c.wait_prev
    else:
        p.wait_last = c.wait_prev
    c.wait_prev = c.wait_next = NULL
    c.queued = 0
    p.waiting -= 1


cdef Client *wait_pick(Pool *p, uint32_t startup_id, uint64_t now_us, uint64_t patience_us) noexcept nogil:
    # The first in the queue.  While it has waited less than `patience_us`, one behind it that the server
    # fits as it is goes before it: opening another server costs more than the turn.
    cdef Client *c = p.wait_first
    cdef int looked = 0
    if c == NULL or c.startup_id == startup_id or now_us - c.request_us > patience_us:
        return c
    while c != NULL and looked < 64:
        if c.startup_id == startup_id:
            return c
        c = c.wait_next
        looked += 1
    return p.wait_first


# --- outstanding requests -----------------------------------------------------


cdef int ring_push(Ring *r, uint8_t request, uint16_t action, void *arg, uint64_t name_hash) noexcept nogil:
    cdef Outstanding *items
    cdef Outstanding *o
    cdef uint32_t i, cap
    if r.count == r.cap:
        cap = r.cap * 2 if r.cap else RING_FIRST
        items = <Outstanding *> malloc(cap * sizeof(Outstanding))
        if items == NULL:
            return -1
        for i in range(r.count):
            items[i] = r.items[(r.head + i) & (r.cap - 1)]
        if r.items != NULL:
            free(r.items)
        r.items = items
        r.cap = cap
        r.head = 0
    o = &r.items[(r.head + r.count) & (r.cap - 1)]
    o.request = request
    o.action = action
    o.arg = arg
    o.name_hash = name_hash
    r.count += 1
    return 0


cdef int ring_push_front(Ring *r, uint8_t request, uint16_t action) noexcept nogil:
    # before all that is outstanding; it makes room by a place at the end, which falls away
    cdef Outstanding *o
    if ring_push(r, request, action, NULL, 0) != 0:
        return -1
    r.head = (r.head - 1) & (r.cap - 1)
    o = &r.items[r.head]
    o.request = request
    o.action = action
    o.arg = NULL
    o.name_hash = 0
    return 0


cdef void ring_mark(Ring *r, Rewrite *rewrite) noexcept nogil:
    # the request just pushed was changed; NULL: it was not
    cdef Outstanding *o
    if rewrite != NULL and r.count:
        o = ring_at(r, r.count - 1)
        o.action |= ACT_REWRITTEN
        o.rewrite = rewrite
        rewrite.refs += 1


cdef Outstanding *ring_head(Ring *r) noexcept nogil:
    return &r.items[r.head] if r.count else NULL


cdef Outstanding *ring_at(Ring *r, uint32_t i) noexcept nogil:
    return &r.items[(r.head + i) & (r.cap - 1)]


cdef void ring_pop(Ring *r) noexcept nogil:
    if r.items[r.head].action & ACT_REWRITTEN:
        rewrite_unref(r.items[r.head].rewrite)
    r.head = (r.head + 1) & (r.cap - 1)
    r.count -= 1


cdef void ring_remove_at(Ring *r, uint32_t i) noexcept nogil:
    while i + 1 < r.count:
        ring_at(r, i)[0] = ring_at(r, i + 1)[0]
        i += 1
    r.count -= 1


# --- figures ------------------------------------------------------------------


cdef int bucket(uint64_t us) noexcept nogil:
    cdef int i
    for i in range(BUCKETS - 1):
        if us <= bounds[i]:
            return i
    return BUCKETS - 1


cdef void count_wait(Pool *p, uint64_t us) noexcept nogil:
    p.wait_us += us
    p.wait_hist[bucket(us)] += 1


cdef void count_query(Pool *p, uint64_t us) noexcept nogil:
    p.query_us += us
    p.query_hist[bucket(us)] += 1


# --- what tenants use ---------------------------------------------------------


cdef void usage_enter(Pool *p, uint64_t now_us) noexcept nogil:
    cdef Usage *u = p.usage
    cdef uint64_t hour = now_us // HOUR_US
    u.clients += 1
    if u.peak_hour != hour:
        u.peak_hour = hour
        u.peak = u.clients
    elif u.clients > u.peak:
        u.peak = u.clients


cdef void usage_leave(Client *c) noexcept nogil:
    usage_tell(c)
    c.pool.usage.clients -= 1


cdef void usage_tell(Client *c) noexcept nogil:
    cdef Usage *u = c.pool.usage
    u.bytes_in += c.link.bytes_in - c.told_in
    u.bytes_out += c.link.bytes_out - c.told_out
    c.told_in = c.link.bytes_in
    c.told_out = c.link.bytes_out


cdef void usage_bill(Server *s, Pool *p, uint64_t now_us) noexcept nogil:
    if now_us > s.billed_us:
        p.usage.held_us += now_us - s.billed_us
        s.billed_us = now_us
