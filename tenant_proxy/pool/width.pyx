"""How many turns run at once on a group's servers: pure decisions on a clock that is given."""

from libc.stdint cimport int32_t, uint8_t, uint64_t

from tenant_proxy.pool.pool cimport Pool, Server, Share, Width

cdef enum:
    # Server.young
    YOUNG = 1
    LIGHT = 2

cdef enum:
    LEAST = 2                   # the width is never less
    LIGHT_PART = 4              # a tenant that keeps a server for less than this part of the time asks now and then
    LIGHT_PLACES = 3            # … and its turn takes so many places from those that have more than one
    YIELDS_PART = 8             # a flood that yields has such a part of the width
    YIELDS_US = 50000           # … for so long after the last such turn has begun
    YIELDS_LONGEST_US = 3000    # … if turns take no longer than this
    YIELDS_TIMES = 4            # … nor so many times as long as where the width was found …
    LEARNS_US = 2000000         # … else it does not for so long
    LEAD_MOST = 64              # so many more turns than all others is as many as are counted …
    LEAD = 32                   # … and with so many a tenant has most of them
    ALONE_US = 10000000         # after so long without a turn of a second tenant there is no limit
    WHILE_US = 25000            # at least so long each width is tried at a time …
    WHILE_ENDS = 32             # … and until so many turns have ended …
    WHILE_HOLDS = 4             # … and for so many times what a turn takes …
    WHILE_LONGEST_US = 500000   # … but no longer than this
    SETTLED = 3                 # whiles of the width for each of the smaller one
    PAIRS_LEAST = 5             # whiles of the smaller one before it may grow, if it is clear …
    PAIRS = 8                   # … before anything is decided …
    PAIRS_MOST = 24             # … and after which nothing is
    REST_MS = 500               # until the next comparison, where one has changed nothing …
    REST_MOST_MS = 2000         # … and where several have


cdef inline bint is_mixed(Width *w, uint64_t now_us) noexcept nogil:
    return w.mixed_us > 0 and now_us - w.mixed_us < ALONE_US


cdef inline bint is_in_force(Width *w, uint64_t now_us) noexcept nogil:
    return w.limit > 0 and is_mixed(w, now_us)


cdef inline void forget(Pool *g, Server *s) noexcept nogil:
    # its place is free
    cdef Width *w = &g.width
    if s.before != NULL:
        s.before.behind = s.behind
    else:
        w.first = s.behind
    if s.behind != NULL:
        s.behind.before = s.before
    else:
        w.last = s.before
    s.before = s.behind = NULL
    if s.young == LIGHT:
        w.light -= 1
    s.young = 0
    w.running -= 1


cdef inline void forget_old(Pool *g, uint64_t now_us) noexcept nogil:
    while g.width.first != NULL and now_us - g.width.first.assigned_us > OLD_US:
        forget(g, g.width.first)


cdef inline bint is_light(Share *member, Server *s) noexcept nogil:
    # Its turn is its only one, nothing waits behind, and it keeps a server for a small part of the time.
    return member.active == 1 and member.waiting == 0 and member.gap_ns > LIGHT_PART * 1000 * s.guessed_us


cdef void width_enter(Pool *g, Share *member, Server *s, uint64_t now_us) noexcept nogil:
    # The server's turn for the tenant begins; `assigned_us` is now.
    cdef Width *w = &g.width
    cdef int32_t needed
    if w.newest != member:
        if w.newest != NULL:
            w.mixed_us = now_us
        w.newest = member
    if member == w.leader:
        w.lead += w.lead < LEAD_MOST
    elif w.lead > 0:
        w.lead -= 1
    else:
        w.leader = member
    forget_old(g, now_us)
    s.behind = NULL
    s.before = w.last
    if w.last != NULL:
        w.last.behind = s
    else:
        w.first = s
    w.last = s
    s.young = LIGHT if is_light(member, s) else YOUNG
    s.link.urgent = s.young == LIGHT
    if s.young == LIGHT:
        w.light += 1
        w.light_us = now_us
    w.running += 1
    # the least width with which it could go
    needed = w.running if member.active > 1 else (w.running + 1) // 2
    if needed > w.peak:
        w.peak = needed


cdef void width_leave(Pool *g, Share *member, Server *s, uint64_t now_us) noexcept nogil:
    cdef Width *w = &g.width
    cdef uint64_t took = now_us - s.assigned_us if now_us > s.assigned_us else 0
    if s.young:
        forget(g, s)
    w.ended += 1
    w.flooded += member.waiting > w.limit
    w.hold_us = (15 * w.hold_us + (took if took < WHILE_LONGEST_US else <uint64_t> WHILE_LONGEST_US)) >> 4
    if w.limit >= 0 and now_us - w.since_us >= WHILE_US:
        look(g, now_us)


cdef void width_narrows(Pool *g, bint narrows, bint yields) noexcept nogil:
    # as configured
    g.width.keeps = not yields
    if not narrows:
        g.width.limit = -1
    elif g.width.limit < 0:
        g.width.limit = 0


cdef bint must_yield(Pool *g, Share *s, uint64_t now_us) noexcept nogil:
    # One that has a turn, begins most of all turns and still wants more at once than all may have: while others ask now
    # and then it has a part of the width, so that they find a processor that is free.
    cdef Width *w = &g.width
    if (now_us - w.light_us >= YIELDS_US or s.active + s.waiting <= w.limit or s != w.leader or w.lead < LEAD
            or w.keeps or w.falling or w.hold_us > YIELDS_LONGEST_US or now_us < w.learns_us):
        return False
    w.yielded = 1
    if w.hold_us > YIELDS_TIMES * w.found_us:
        # they wait for something else now, perhaps, so that more at once would get more done
        w.learns_us = now_us + LEARNS_US
        return False
    return w.running - w.light >= max(1, w.limit // YIELDS_PART)


cdef bint width_allows(Pool *g, Share *s, uint64_t now_us) noexcept nogil:
    # whether one more turn of the member may run
    cdef Width *w = &g.width
    cdef int32_t most
    if not is_in_force(w, now_us):
        return True
    if s.active == 0 and g.share.wanting <= g.total:
        # There is one for each: what is held back are others of the same tenant.
        return True
    forget_old(g, now_us)
    most = w.smaller if w.trying else w.limit
    if s.active == 0:
        most *= 2
    elif w.limit < g.max and must_yield(g, s, now_us):
        return False
    elif w.light and w.limit < g.max and w.running - w.light >= max(1, most - LIGHT_PLACES * w.light):
        return False
    if w.running < most:
        return True
    w.bound = 1
    return False


cdef void begin(Width *w, uint64_t now_us) noexcept nogil:
    w.since_us = now_us
    w.ended = 0
    w.flooded = 0
    w.bound = 0
    w.yielded = 0
    w.peak = 0


cdef void compare_with(Width *w, int32_t smaller) noexcept nogil:
    # a new comparison, of the width and a smaller one
    w.smaller = smaller if smaller < w.limit else w.limit - 1
    if w.smaller < 1:
        w.smaller = 1
    w.trying = 0
    w.whiles = 0
    w.tried = 0
    w.lost = 0
    w.sum_ends[0] = w.sum_ends[1] = 0
    w.sum_flooded[0] = w.sum_flooded[1] = 0
    w.sum_us[0] = w.sum_us[1] = 0


cdef void look(Pool *g, uint64_t now_us) noexcept nogil:
    # A while is over, perhaps.
    cdef Width *w = &g.width
    cdef double rate
    cdef uint64_t took = now_us - w.since_us
    if took < WHILE_LONGEST_US and (w.ended < WHILE_ENDS or took < WHILE_HOLDS * w.hold_us):
        return
    if not is_mixed(w, now_us) or took >= 2 * WHILE_LONGEST_US or w.yielded:
        # one alone, or nobody was here; or what has ended says nothing of the width
        begin(w, now_us)
        return
    w.found_us = w.hold_us
    if w.limit == 0:
        if w.peak >= 2 * LEAST:
            w.limit = w.peak
            w.falling = 1
            compare_with(w, w.limit // 2)
        begin(w, now_us)
        return
    if w.rest:
        w.rest = w.rest - <int32_t> (took // 1000) if took // 1000 < <uint64_t> w.rest else 0
    elif w.bound or g.waiting > 0:
        w.sum_ends[w.trying] += w.ended
        w.sum_flooded[w.trying] += w.flooded
        w.sum_us[w.trying] += took
        w.whiles += 1
        rate = <double> w.flooded / took if 4 * w.flooded >= w.ended else <double> w.ended / took
        if not w.trying:
            w.rate = rate
        else:
            w.tried += 1
            w.lost += rate < w.rate * (1 - 0.35 * (1 - <double> w.smaller / w.limit))
        if w.tried >= PAIRS_LEAST or (w.falling and w.tried and not w.trying):
            decide(g)
    w.trying = not w.rest and w.whiles % (2 if w.falling else SETTLED + 1) == (1 if w.falling else SETTLED)
    begin(w, now_us)


cdef void decide(Pool *g) noexcept nogil:
    # What is lost with the smaller width, in proportion to what that takes away: 0 nothing, 1 all of it.
    cdef Width *w = &g.width
    cdef double rate, loss
    cdef int32_t limit
    cdef uint64_t *ends = w.sum_ends
    if w.sum_us[0] == 0 or w.sum_ends[0] == 0 or w.sum_us[1] == 0:
        return
    if 4 * w.sum_flooded[0] >= w.sum_ends[0]:
        # Others get as much either way, which would look as if little was lost.
        ends = w.sum_flooded
    rate = (<double> ends[1] / w.sum_us[1]) / (<double> ends[0] / w.sum_us[0])
    loss = (1 - rate) / (1 - <double> w.smaller / w.limit)
    limit = w.limit
    if w.tried < PAIRS and not w.falling and loss <= 0.7:
        return
    if loss < (0.3 if w.falling else 0.15):
        limit = w.smaller if w.smaller > LEAST else <int32_t> LEAST
        w.growing = 0
    elif loss > (0.65 if w.falling else 0.5) and 4 * w.lost >= 3 * w.tried:
        # One while in which something else had the processors makes a mean, but not most of the whiles.
        limit = limit * 2 if w.growing and loss > 0.7 else limit * 12 // 10 + 1
        limit = limit if limit < g.max else g.max
        w.growing = 1
        w.falling = 0
    elif w.falling:
        w.falling = w.growing = 0
    elif w.tried < PAIRS_MOST:
        return
    if limit == LEAST:
        w.falling = 0
    if limit != w.limit:
        w.rested = 0
    else:
        w.rested = REST_MS if w.rested == 0 or limit == LEAST else min(2 * w.rested, <int32_t> REST_MOST_MS)
    w.rest = w.rested
    w.limit = limit
    compare_with(w, limit // 2 if w.falling else limit * 7 // 10)
