"""Start-time fair queueing over the tenants that share a group's servers, and their logins: pure decisions."""

from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, realloc
from libc.string cimport memset

from tenant_proxy.pool.pool cimport HOMES, SV_IDLE, Client, Pool, Server, Share
from tenant_proxy.pool.width cimport width_allows, width_enter, width_leave
from tenant_proxy.wire.ptrmap cimport map_add, map_get

cdef extern from *:
    """
    #define tp_fair_fence() __sync_synchronize()
    """
    void full_fence "tp_fair_fence"() nogil

cdef enum:
    SCALE = 65536               # of virtual time: microseconds × SCALE / weight
    #: how far ahead of the others a server's last tenant may be and still keep it: a switch saved
    CREDIT_US = 2000
    USUAL_WEIGHT = 100
    FIRST_GUESS_US = 1000
    LONGEST_US = 1000000        # more than this of one turn is not held against a pool
    LOOK = 64                   # members that are looked at for one who is at home
    OFTEN_NS = 100000000        # who comes less often gains nothing from a server of its own
    GAPS = 4                    # whom a server ran for last is expected back for so many of his usual gaps


cdef inline uint64_t virtual(uint32_t weight, uint64_t us) noexcept nogil:
    return (us if us < LONGEST_US else <uint64_t> LONGEST_US) * SCALE // (weight if weight else 1)


# --- two heaps of those in need below a share: those below their reserve go first -----------


cdef inline void put(Share *s, int32_t at) noexcept nogil:
    s.above.heap[s.urgent][at - 1] = s
    s.at = at


cdef void rise(Share *s) noexcept nogil:
    cdef Share **heap = s.above.heap[s.urgent]
    cdef int32_t at = s.at
    cdef Share *over
    while at > 1:
        over = heap[(at >> 1) - 1]
        if over.tag <= s.tag:
            break
        put(over, at)
        at >>= 1
    put(s, at)


cdef void sink(Share *s) noexcept nogil:
    cdef Share **heap = s.above.heap[s.urgent]
    cdef int32_t at = s.at
    cdef int32_t size = s.above.heap_size[s.urgent]
    cdef int32_t below
    while 2 * at <= size:
        below = 2 * at
        if below < size and heap[below].tag < heap[below - 1].tag:
            below += 1
        if s.tag <= heap[below - 1].tag:
            break
        put(heap[below - 1], at)
        at = below
    put(s, at)


cdef void leave(Share *s) noexcept nogil:
    cdef int which = s.urgent
    cdef Share *last
    if s.at == 0:
        return
    last = s.above.heap[which][s.above.heap_size[which] - 1]
    s.above.heap_size[which] -= 1
    if last != s:
        put(last, s.at)
        rise(last)
        sink(last)
    s.at = 0


cdef void enter(Share *s) noexcept nogil:
    # to where it belongs, if it is in need and may have one more
    cdef int which = 1 if s.active < s.reserved else 0
    cdef Share *above = s.above
    cdef Share **heap
    leave(s)
    if s.waiting == 0 or s.active >= s.max:
        return
    if above.heap_size[which] == above.heap_cap[which]:
        heap = <Share **> realloc(above.heap[which], (above.heap_cap[which] * 2 + 4) * sizeof(Share *))
        if heap == NULL:
            return
        above.heap[which] = heap
        above.heap_cap[which] = above.heap_cap[which] * 2 + 4
    above.heap_size[which] += 1
    s.urgent = which
    put(s, above.heap_size[which])
    rise(s)


# --- members ------------------------------------------------------------------


cdef inline int32_t unfilled(Share *s) noexcept nogil:
    return s.reserved - s.active if s.active < s.reserved else 0


cdef inline void note_wants(Share *s) noexcept nogil:
    cdef uint8_t wants = s.active > 0 or s.waiting > 0
    if wants != s.wants:
        s.wants = wants
        s.above.wanting += 1 if wants else -1
        s.above.weights += s.weight if wants else 0 - s.weight


cdef inline void weigh(Share *s, uint32_t weight) noexcept nogil:
    if s.wants:
        s.above.weights += weight - s.weight
    s.weight = weight


cdef void set_limits(Share *s, uint32_t weight, int reserved, int most) noexcept nogil:
    s.above.unfilled -= unfilled(s)
    s.reserved = reserved
    s.above.unfilled += unfilled(s)
    s.max = most
    s.given = weight if weight else 1
    weigh(s, s.given)
    enter(s)


cdef Share *share_of(Pool *g, uint32_t tenant) noexcept nogil:
    # a tenant's in a group, made when it is first asked for and kept; NULL: out of memory
    cdef Share *s = <Share *> map_get(&g.shares, tenant)
    if s == NULL:
        s = <Share *> calloc(1, sizeof(Share))
        if s != NULL:
            s.above = &g.share
            map_add(&g.shares, tenant, s)
    return s


cdef void share_count(Share *s, int32_t *turns, size_t apart, int32_t rows, int32_t row) noexcept nogil:
    # where the turns that run for it are counted, by each worker in its row; the places are for good
    s.turns = turns
    s.turns_apart = apart
    s.turns_rows = rows
    s.turns_row = row


cdef void share_join(Pool *p, Pool *g, Share *s, uint32_t weight, int reserved, int most) noexcept nogil:
    # A pool becomes one of its tenant's in a group, with those of its clients that wait, or the tenant's limits change.
    cdef Share *leaf = &p.share
    cdef Client *waiting = NULL
    cdef Client *c
    if leaf.above != NULL and leaf.above != s:
        while leaf.last != NULL:
            c = leaf.last
            share_remove(p, c)
            c.wait_next = waiting
            waiting = c
        share_part(p)
        if leaf.wants:
            leaf.above.wanting -= 1
            leaf.above.weights -= leaf.weight
            leaf.wants = 0
    if leaf.above != s:
        leaf.tag = s.time
    leaf.pool = p
    leaf.above = s
    leaf.weight = leaf.given = USUAL_WEIGHT
    leaf.max = INT32_MAX
    p.group = g
    if not leaf.hold_us:
        leaf.hold_us = FIRST_GUESS_US
    note_wants(leaf)
    if not p.joined:
        p.joined = 1
        s.members += 1
    set_limits(s, weight, reserved, most)
    while waiting != NULL:
        c = waiting
        waiting = c.wait_next
        share_push(p, c)


cdef void share_part(Pool *p) noexcept nogil:
    # It will have no new clients: what is reserved for its tenant is free when it was the last.
    cdef Share *s = p.share.above
    if not p.joined:
        return
    p.joined = 0
    s.members -= 1
    if s.members == 0:
        set_limits(s, s.given, 0, s.max)


cdef inline void catch_up(Share *s) noexcept nogil:
    # who comes back begins where the others are
    if s.active == 0 and s.tag < s.above.time:
        s.tag = s.above.time


cdef void wait_for(Share *s) noexcept nogil:
    s.waiting += 1
    note_wants(s)
    if s.waiting == 1:
        catch_up(s)
        enter(s)


cdef void wait_no_more(Share *s) noexcept nogil:
    s.waiting -= 1
    note_wants(s)
    if s.waiting == 0:
        leave(s)


cdef void share_push(Pool *p, Client *c) noexcept nogil:
    cdef Share *s = &p.share
    c.wait_next = NULL
    c.wait_prev = s.last
    if s.last != NULL:
        s.last.wait_next = c
    else:
        s.first = c
    s.last = c
    c.queued = 1
    p.group.waiting += 1
    wait_for(s)
    wait_for(s.above)


cdef void share_remove(Pool *p, Client *c) noexcept nogil:
    cdef Share *s = &p.share
    if c.wait_prev != NULL:
        c.wait_prev.wait_next = c.wait_next
    else:
        s.first = c.wait_next
    if c.wait_next != NULL:
        c.wait_next.wait_prev = c.wait_prev
    else:
        s.last = c.wait_prev
    c.wait_prev = c.wait_next = NULL
    c.queued = 0
    p.group.waiting -= 1
    wait_no_more(s)
    wait_no_more(s.above)


cdef int32_t elsewhere(Share *s, int32_t *workers) noexcept nogil:
    # turns that run for a tenant in other workers, and in how many of these
    cdef int32_t i, n
    cdef int32_t all = 0
    workers[0] = 0
    if s.turns == NULL:
        return 0
    for i in range(s.turns_rows):
        n = s.turns[i * s.turns_apart]
        if i != s.turns_row and n > 0:
            all += n
            workers[0] += 1
    return all


cdef inline bint has_most(Share *s) noexcept nogil:
    # over all workers
    cdef int32_t workers
    return s.active >= s.max or (s.turns_rows > 1 and s.active + elsewhere(s, &workers) >= s.max)


cdef inline void count_turn(Share *s, int n) noexcept nogil:
    if s.turns != NULL:
        s.turns[s.turns_row * s.turns_apart] += n


cdef bint share_claim(Pool *p) noexcept nogil:
    # Counts the turn that the pool is about to begin for all to see; False, and it is not counted, where another
    # worker has begun the last one that the tenant may have since its maximum was looked at.  As in pool.budget: adds
    # first and looks then, so that two never both get it; it may be that neither does, and then both look again soon.
    cdef Share *s = p.share.above
    cdef int32_t workers
    count_turn(s, 1)
    if s.turns_rows > 1:
        full_fence()
        if s.active + 1 + elsewhere(s, &workers) > s.max:
            count_turn(s, -1)
            return False
    return True


cdef bint open_to(Pool *g, Share *s) noexcept nogil:
    # whether places that others have reserved leave one for it
    return s.active < s.reserved or g.max - g.share.active > g.share.unfilled


cdef bint share_may_start(Pool *p, uint64_t now_us) noexcept nogil:
    # whether a client may take an idle server at once, without a place in the queue
    cdef Share *s = p.share.above
    if s.waiting or has_most(s) or not open_to(p.group, s):
        return False
    if s.active >= s.reserved and not width_allows(p.group, s, now_us):
        return False
    catch_up(s)
    catch_up(&p.share)
    return True


cdef Pool *login_next(Share *s, Server *server) noexcept nogil:
    # Of a tenant's logins that wait the one whose turn it is; within the credit that which `server` ran for last.
    cdef Share *least = s.heap[0][0]
    cdef Share *own
    if server.last != NULL and server.last.share.above == s:
        own = &server.last.share
        if own.at and own.tag <= least.tag + <uint64_t> CREDIT_US * SCALE // USUAL_WEIGHT:
            return server.last
    return least.pool


cdef Pool *share_next(Pool *g, Server *server, uint64_t now_us, Server **found) noexcept nogil:
    # The pool whose turn it is, NULL if nobody may have a server; `server` is an idle one, the last to come free.
    # `found` becomes one that suits the pool, or stays NULL if it may be any.  Within the credit, the pool that
    # `server` ran for last goes first, then who has waited long, then those that find a server that suits them.
    # One that has served many already waits for one that it suits, while nobody has waited for long.
    cdef Share *root = &g.share
    cdef Share *s
    cdef Share *own
    cdef Share *late = NULL
    cdef Share *fits = NULL
    cdef Share *least = NULL
    cdef Pool *p
    cdef Server *place
    cdef Server *free_place
    cdef uint64_t limit
    cdef int32_t i
    cdef int32_t looked = 0
    found[0] = NULL
    for i in range(root.heap_size[1]):
        own = root.heap[1][i]
        if (least == NULL or own.tag < least.tag) and not has_most(own):
            least = own
            if i == 0:
                break
    if least != NULL:
        return login_next(least, server)
    if root.heap_size[0] == 0:
        return NULL
    s = root.heap[0][0]
    if not open_to(g, s):
        return NULL
    limit = s.tag + <uint64_t> CREDIT_US * SCALE // USUAL_WEIGHT
    if server.last != NULL and server.last.group == g:
        own = server.last.share.above
        if (own.at and own.tag <= limit and not has_most(own) and login_next(own, server) == server.last
                and width_allows(g, own, now_us)):
            found[0] = server
            return server.last
    free_place = vacant(g, now_us)
    for i in range(root.heap_size[0]):
        own = root.heap[0][i]
        if has_most(own):
            continue
        looked += 1
        if looked > LOOK:
            break
        if not width_allows(g, own, now_us):
            continue
        if least == NULL or own.tag < least.tag:
            least = own
        if own.tag > limit:
            continue
        p = login_next(own, server)
        if now_us - p.share.first.request_us > PATIENCE_US:
            if late == NULL or own.tag < late.tag:
                late = own
        elif late == NULL and (fits == NULL or own.tag < fits.tag):
            place = place_of(g, p, server, free_place)
            if place != NULL:
                fits = own
                found[0] = place
    if late != NULL:
        found[0] = NULL
        return login_next(late, server)
    if fits != NULL:
        return login_next(fits, server)
    return login_next(least, server) if least != NULL and not all_choosy(g, server) else NULL


cdef Server *place_of(Pool *g, Pool *p, Server *server, Server *free_place) noexcept nogil:
    # an idle server that suits the pool: its last, one that is nobody's place, `server` itself, or a home
    cdef Server *place
    cdef int i
    if server.slot < 0:
        return server
    if p.last_place and p.last_place <= g.slots_size:
        place = g.slots[p.last_place - 1]
        if place != NULL and place.phase == SV_IDLE and place.last == p:
            return place
    if free_place != NULL and (not is_choosy(g, free_place) or suits(g, p, free_place)):
        return free_place
    if suits(g, p, server):
        return server
    for i in range(HOMES):
        if p.homes[i] >= 0:
            place = g.slots[p.homes[i]]
            if place != NULL and place.phase == SV_IDLE:
                return place
    return NULL


cdef void begin_in(Share *s, uint64_t charge, uint64_t now_us) noexcept nogil:
    # one level of `share_begin`
    cdef Share *above = s.above
    if above.time < s.tag:
        # the time of who is being served is everybody's
        above.time = s.tag
    above.unfilled -= unfilled(s)
    s.active += 1
    above.unfilled += unfilled(s)
    s.tag += charge
    note_wants(s)
    enter(s)
    note_gap(s, now_us, 3)


cdef void end_in(Share *s, uint64_t took_us, uint64_t guessed) noexcept nogil:
    cdef Share *above = s.above
    s.tag += virtual(s.weight, took_us)
    # less where the login has come to another tenant's share meanwhile, whose time is another
    s.tag = s.tag - guessed if s.tag > guessed else 0
    # what all in need have had on average: who has had his turn is not behind all who come anew
    above.time += virtual(above.weights, took_us)
    above.unfilled -= unfilled(s)
    s.active -= 1
    above.unfilled += unfilled(s)
    note_wants(s)
    enter(s)


cdef void share_begin(Pool *p, Server *server, uint64_t now_us) noexcept nogil:
    # A server begins to run for it (`share_claim` has counted that), and it and its tenant are charged what that
    # usually takes until `share_end`.
    cdef Pool *g = p.group
    cdef Share *leaf = &p.share
    cdef Share *s = leaf.above
    cdef int32_t workers
    if s.turns_rows > 1:
        # who has turns in several workers has a part of its weight in each
        elsewhere(s, &workers)
        weigh(s, s.given // (workers + 1) if s.given > <uint32_t> workers else 1)
    server.share = s
    server.guessed_us = leaf.hold_us
    server.guessed = virtual(s.weight, leaf.hold_us)
    server.assigned_us = now_us
    g.share.active += 1
    note_gap(&g.share, now_us, 6)
    begin_in(s, server.guessed, now_us)
    begin_in(leaf, virtual(leaf.weight, leaf.hold_us), now_us)
    p.last_place = server.slot + 1
    width_enter(g, s, server, now_us)


cdef void share_end(Pool *p, Server *server, uint64_t now_us) noexcept nogil:
    # the group and the tenant's share are those of the beginning, wherever the pool is now
    cdef Share *leaf = &p.share
    cdef Share *s = server.share
    cdef uint64_t took_us = now_us - server.assigned_us if now_us > server.assigned_us else 0
    end_in(s, took_us, server.guessed)
    end_in(leaf, took_us, virtual(leaf.weight, server.guessed_us))
    leaf.hold_us = (7 * leaf.hold_us + took_us) >> 3
    s.above.active -= 1
    count_turn(s, -1)
    width_leave(server.pool, s, server, now_us)


# --- idle servers ---------------------------------------------------------------


cdef inline void note_gap(Share *s, uint64_t now_us, int shift) noexcept nogil:
    # between the beginnings of its turns, of which some 2 ** shift count
    cdef uint64_t gap_us = now_us - s.begun_us if now_us > s.begun_us else 0
    if gap_us > LONGEST_US:
        gap_us = LONGEST_US
    s.begun_us = now_us
    s.gap_ns = s.gap_ns - (s.gap_ns >> shift) + (gap_us * 1000 >> shift)


cdef bint is_kept(Pool *g, Server *s, uint64_t now_us) noexcept nogil:
    # Whether an idle server is the place of a tenant that comes so often that it would have a server of its own
    # were all that there may be divided by turns, and is expected back.
    cdef Pool *p = s.last
    return (p != NULL and s.slot >= 0 and p.last_place == s.slot + 1
            and p.share.gap_ns <= OFTEN_NS and p.share.gap_ns <= 2 * g.share.gap_ns * <uint64_t> g.max
            and now_us - p.share.begun_us <= GAPS * p.share.gap_ns // 1000)


cdef Server *vacant(Pool *g, uint64_t now_us) noexcept nogil:
    # An idle server that is nobody's place, where those who come often find one each; NULL: none, or they don't.
    cdef Server *s = g.idle_last
    cdef Server *found = NULL
    cdef int kept = 0
    while s != NULL:
        if is_kept(g, s, now_us):
            kept += 1
        elif found == NULL:
            found = s
        s = s.newer
    return found if 2 * kept >= g.idle_count else NULL


cdef Server *share_pick(
    Pool *g, Pool *p, uint32_t startup_id, uint32_t settings_id, uint64_t now_us
) noexcept nogil:
    # As it is > the same tenant's > its last one > of those that suit it the one that is most its home, and is no
    # other's place.
    cdef Server *s = g.idle_first
    cdef Server *same = NULL
    cdef Server *last = NULL
    cdef Server *home = NULL
    cdef uint64_t score
    cdef uint64_t best = 0
    cdef bint kept
    cdef bint least_kept = True
    while s != NULL:
        if s.tenant == p:
            if s.startup_id == startup_id and s.settings_id == settings_id:
                return s
            if same == NULL:
                same = s
        elif s.last == p and last == NULL:
            last = s
        s = s.older
    if same != NULL:
        return same
    if last != NULL:
        return last
    s = g.idle_first
    while s != NULL:
        score = affinity(p, s.slot)
        kept = is_kept(g, s, now_us)
        if (home == NULL or kept < least_kept or (kept == least_kept and score > best)) \
                and (not is_choosy(g, s) or suits(g, p, s)):
            home = s
            best = score
            least_kept = kept
        s = s.older
    return home


# --- homes ------------------------------------------------------------------------
# A tenant is at home on the servers for which the hash of both is greatest: when servers come and go, few
# tenants move, and those that find their homes taken all go elsewhere, each to a place of its own.


cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    # the finalizer of splitmix64
    x = (x ^ (x >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t> 0x94D049BB133111EB
    return x ^ (x >> 31)


cdef uint64_t home_key(uint64_t tenant) noexcept nogil:
    return mixed(tenant + <uint64_t> 0x9E3779B97F4A7C15)


cdef inline uint64_t affinity(Pool *p, int32_t slot) noexcept nogil:
    return mixed(p.home_key + <uint64_t> (slot + 1) * <uint64_t> 0x9E3779B97F4A7C15)


cdef bint is_choosy(Pool *g, Server *s) noexcept nogil:
    # It has read the catalogs for so many that what room is left is for those that it suits.
    return g.tenants_limit > 0 and <int64_t> s.served.count * 5 >= <int64_t> g.tenants_limit * 2


cdef bint all_choosy(Pool *g, Server *server) noexcept nogil:
    # `server`, and all idle ones
    cdef Server *s = g.idle_first
    if not is_choosy(g, server):
        return False
    while s != NULL:
        if not is_choosy(g, s):
            return False
        s = s.older
    return True


cdef bint suits(Pool *g, Pool *p, Server *s) noexcept nogil:
    # whether it has read the catalogs for the tenant already, or should
    return map_get(&s.served, p.home_key) != NULL or is_home(g, p, s.slot)


cdef bint is_home(Pool *g, Pool *p, int32_t slot) noexcept nogil:
    cdef int i
    if slot < 0:
        return False
    if p.homes_of != g.slots_changed:
        find_homes(g, p)
    for i in range(HOMES):
        if p.homes[i] == slot:
            return True
    return False


cdef void find_homes(Pool *g, Pool *p) noexcept nogil:
    cdef uint64_t[HOMES] best
    cdef uint64_t score
    cdef int32_t slot
    cdef int i, k
    for i in range(HOMES):
        p.homes[i] = -1
        best[i] = 0
    for slot in range(g.slots_size):
        if g.slots[slot] == NULL:
            continue
        score = affinity(p, slot)
        for i in range(HOMES):
            if p.homes[i] < 0 or score > best[i]:
                for k in range(HOMES - 1, i, -1):
                    p.homes[k] = p.homes[k - 1]
                    best[k] = best[k - 1]
                p.homes[i] = slot
                best[i] = score
                break
    p.homes_of = g.slots_changed


cdef void slot_take(Pool *g, Server *s) noexcept nogil:
    # the lowest free number: who comes in place of another has the same tenants
    cdef int32_t i = 0
    cdef Server **slots
    while i < g.slots_size and g.slots[i] != NULL:
        i += 1
    s.slot = -1
    if i == g.slots_size:
        if i > 32000:
            return
        slots = <Server **> realloc(g.slots, (i * 2 + 8) * sizeof(Server *))
        if slots == NULL:
            return
        memset(&slots[i], 0, (i + 8) * sizeof(Server *))
        g.slots = slots
        g.slots_size = i * 2 + 8
    g.slots[i] = s
    s.slot = i
    g.slots_changed += 1


cdef void slot_leave(Pool *g, Server *s) noexcept nogil:
    if s.slot >= 0:
        g.slots[s.slot] = NULL
        g.slots_changed += 1
