"""Start-time fair queueing over the pools that share a group's servers: pure decisions."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from tenant_proxy.pool.pool cimport HOMES, SV_IDLE, Client, Pool, Server, Share
from tenant_proxy.pool.width cimport width_allows, width_enter, width_leave
from tenant_proxy.wire.ptrmap cimport map_get

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


cdef uint64_t virtual(Share *s, uint64_t us) noexcept nogil:
    return (us if us < LONGEST_US else <uint64_t> LONGEST_US) * SCALE // s.weight


# --- two heaps of members in need: those below their reserve go first ------------


cdef inline void put(Pool *g, int which, int32_t at, Share *s) noexcept nogil:
    g.heap[which][at - 1] = s
    s.at = at


cdef void rise(Pool *g, Share *s) noexcept nogil:
    cdef int which = s.urgent
    cdef int32_t at = s.at
    cdef Share *above
    while at > 1:
        above = g.heap[which][(at >> 1) - 1]
        if above.tag <= s.tag:
            break
        put(g, which, at, above)
        at >>= 1
    put(g, which, at, s)


cdef void sink(Pool *g, Share *s) noexcept nogil:
    cdef int which = s.urgent
    cdef int32_t at = s.at
    cdef int32_t size = g.heap_size[which]
    cdef int32_t below
    while 2 * at <= size:
        below = 2 * at
        if below < size and g.heap[which][below].tag < g.heap[which][below - 1].tag:
            below += 1
        if s.tag <= g.heap[which][below - 1].tag:
            break
        put(g, which, at, g.heap[which][below - 1])
        at = below
    put(g, which, at, s)


cdef void leave(Pool *g, Share *s) noexcept nogil:
    cdef int which = s.urgent
    cdef Share *last
    if s.at == 0:
        return
    last = g.heap[which][g.heap_size[which] - 1]
    g.heap_size[which] -= 1
    if last != s:
        put(g, which, s.at, last)
        rise(g, last)
        sink(g, last)
    s.at = 0


cdef void enter(Pool *g, Share *s) noexcept nogil:
    # to where it belongs, if it is in need and may have one more
    cdef int which = 1 if s.active < s.reserved else 0
    cdef Share **heap
    leave(g, s)
    if s.waiting == 0 or s.active >= s.max:
        return
    if g.heap_size[which] == g.heap_cap[which]:
        heap = <Share **> realloc(g.heap[which], (g.heap_cap[which] * 2 + 16) * sizeof(Share *))
        if heap == NULL:
            return
        g.heap[which] = heap
        g.heap_cap[which] = g.heap_cap[which] * 2 + 16
    g.heap_size[which] += 1
    s.urgent = which
    put(g, which, g.heap_size[which], s)
    rise(g, s)


# --- members ------------------------------------------------------------------


cdef inline int32_t unfilled(Share *s) noexcept nogil:
    return s.reserved - s.active if s.active < s.reserved else 0


cdef inline void note_wants(Pool *g, Share *s) noexcept nogil:
    cdef uint8_t wants = s.active > 0 or s.waiting > 0
    if wants != s.wants:
        s.wants = wants
        g.wanting += 1 if wants else -1
        g.share.weight += s.weight if wants else 0 - s.weight


cdef void share_join(Pool *p, Pool *g, uint32_t weight, int reserved, int most) noexcept nogil:
    # A pool becomes a member, or its limits change.  A group's own share has the sums: `active` servers, places that
    # are `reserved` and not taken, and the `weight` of those in need.
    cdef Share *s = &p.share
    if p.group != NULL:
        g.share.reserved -= unfilled(s)
    p.group = g
    s.pool = p
    if s.wants:
        g.share.weight -= s.weight
    s.weight = weight if weight else 1
    if s.wants:
        g.share.weight += s.weight
    s.reserved = reserved
    s.max = most
    g.share.reserved += unfilled(s)
    if not s.hold_us:
        s.hold_us = FIRST_GUESS_US
    enter(g, s)


cdef void share_push(Pool *p, Client *c) noexcept nogil:
    cdef Pool *g = p.group
    cdef Share *s = &p.share
    c.wait_next = NULL
    c.wait_prev = s.last
    if s.last != NULL:
        s.last.wait_next = c
    else:
        s.first = c
    s.last = c
    c.queued = 1
    s.waiting += 1
    g.waiting += 1
    note_wants(g, s)
    if s.waiting == 1:
        if s.active == 0 and s.tag < g.share.tag:
            s.tag = g.share.tag
        enter(g, s)


cdef void share_remove(Pool *p, Client *c) noexcept nogil:
    cdef Pool *g = p.group
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
    s.waiting -= 1
    g.waiting -= 1
    note_wants(g, s)
    if s.waiting == 0:
        leave(g, s)


cdef bint open_to(Pool *g, Share *s) noexcept nogil:
    # whether places that others have reserved leave one for it
    return s.active < s.reserved or g.max - g.share.active > g.share.reserved


cdef bint share_may_start(Pool *p, uint64_t now_us) noexcept nogil:
    # whether a client may take an idle server at once, without a place in the queue
    cdef Share *s = &p.share
    if s.waiting or s.active >= s.max or not open_to(p.group, s):
        return False
    if s.active >= s.reserved and not width_allows(p.group, s, now_us):
        return False
    if s.active == 0 and s.tag < p.group.share.tag:
        s.tag = p.group.share.tag
    return True


cdef Pool *share_next(Pool *g, Server *server, uint64_t now_us, Server **found) noexcept nogil:
    # The pool whose turn it is, NULL if nobody may have a server; `server` is an idle one, the last to come free.
    # `found` becomes one that suits the pool, or stays NULL if it may be any.  Within the credit, the pool that
    # `server` ran for last goes first, then who has waited long, then those that find a server that suits them.
    # One that has served many already waits for one that it suits, while nobody has waited for long.
    cdef Share *s
    cdef Share *own
    cdef Share *late = NULL
    cdef Share *fits = NULL
    cdef Share *least = NULL
    cdef Server *place
    cdef Server *free_place
    cdef uint64_t limit
    cdef int32_t i
    found[0] = NULL
    if g.heap_size[1]:
        return g.heap[1][0].pool
    if g.heap_size[0] == 0:
        return NULL
    s = g.heap[0][0]
    if not open_to(g, s):
        return NULL
    limit = s.tag + <uint64_t> CREDIT_US * SCALE // USUAL_WEIGHT
    if server.last != NULL and server.last.group == g:
        own = &server.last.share
        if own.at and own.tag <= limit and width_allows(g, own, now_us):
            found[0] = server
            return server.last
    free_place = vacant(g, now_us)
    for i in range(g.heap_size[0] if g.heap_size[0] < LOOK else LOOK):
        own = g.heap[0][i]
        if not width_allows(g, own, now_us):
            continue
        if least == NULL or own.tag < least.tag:
            least = own
        if own.tag > limit:
            continue
        if now_us - own.first.request_us > PATIENCE_US:
            if late == NULL or own.tag < late.tag:
                late = own
        elif late == NULL and (fits == NULL or own.tag < fits.tag):
            place = place_of(g, own.pool, server, free_place)
            if place != NULL:
                fits = own
                found[0] = place
    if late != NULL:
        found[0] = NULL
        return late.pool
    if fits != NULL:
        return fits.pool
    return least.pool if least != NULL and not all_choosy(g, server) else NULL


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


cdef void share_begin(Pool *p, Server *server, uint64_t now_us) noexcept nogil:
    # A server begins to run for it, and is charged what that usually takes until `share_end`.
    cdef Pool *g = p.group
    cdef Share *s = &p.share
    if g.share.tag < s.tag:
        # the time of who is being served is everybody's
        g.share.tag = s.tag
    g.share.reserved -= unfilled(s)
    s.active += 1
    g.share.reserved += unfilled(s)
    g.share.active += 1
    s.tag += virtual(s, s.hold_us)
    note_wants(g, s)
    enter(g, s)
    note_gap(s, now_us, 3)
    note_gap(&g.share, now_us, 6)
    server.guessed_us = s.hold_us
    server.assigned_us = now_us
    p.last_place = server.slot + 1
    width_enter(g, p, server, now_us)


cdef void share_end(Pool *p, Server *server, uint64_t now_us) noexcept nogil:
    cdef Pool *g = p.group
    cdef Share *s = &p.share
    cdef uint64_t took_us = now_us - server.assigned_us if now_us > server.assigned_us else 0
    s.tag += virtual(s, took_us)
    s.tag -= virtual(s, server.guessed_us)
    # what all in need have had on average: who has had his turn is not behind all who come anew
    g.share.tag += virtual(&g.share, took_us)
    s.hold_us = (7 * s.hold_us + took_us) >> 3
    g.share.reserved -= unfilled(s)
    s.active -= 1
    g.share.reserved += unfilled(s)
    g.share.active -= 1
    note_wants(g, s)
    enter(g, s)
    width_leave(g, s, server, now_us)


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


# --- for simulations --------------------------------------------------------------


cdef class Model:
    """A group and its members without servers and sockets: what the tests' simulations decide by."""

    cdef Pool *group
    cdef Pool **members
    cdef int count

    def __cinit__(self, int servers, members):
        cdef int i = 0
        self.group = <Pool *> calloc(1, sizeof(Pool))
        self.members = <Pool **> calloc(len(members), sizeof(Pool *))
        self.group.max = servers
        self.count = len(members)
        for weight, reserved, most in members:
            self.members[i] = <Pool *> calloc(1, sizeof(Pool))
            self.members[i].id = i
            share_join(self.members[i], self.group, weight, reserved, most)
            i += 1

    def __dealloc__(self):
        cdef int i
        cdef Client *c
        for i in range(self.count):
            while self.members[i].share.first != NULL:
                c = self.members[i].share.first
                share_remove(self.members[i], c)
                free(c)
            free(self.members[i])
        free(self.members)
        free(self.group.heap[0])
        free(self.group.heap[1])
        free(self.group)

    @property
    def width(self):
        """How many turns may run at once, 0: any."""
        return self.group.width.limit

    def may_start(self, int member, uint64_t now_us=0):
        return share_may_start(self.members[member], now_us)

    def wait(self, int member, uint64_t now_us=0):
        cdef Client *c = <Client *> calloc(1, sizeof(Client))
        c.request_us = now_us
        share_push(self.members[member], c)

    def next(self, int last=-1, uint64_t now_us=0):
        """The member whose turn it is on a server that ran for `last`, None if nobody may."""
        cdef Server s
        cdef Server *found
        cdef Pool *p
        memset(&s, 0, sizeof(s))
        s.slot = -2
        s.last = self.members[last] if last >= 0 else NULL
        p = share_next(self.group, &s, now_us, &found)
        return p.id if p != NULL else None

    def take_waiting(self, int member):
        cdef Client *c = self.members[member].share.first
        share_remove(self.members[member], c)
        free(c)

    def begin(self, int member, uint64_t now_us=0):
        """A turn, for `end`."""
        cdef Server *s = <Server *> calloc(1, sizeof(Server))
        share_begin(self.members[member], s, now_us)
        return <size_t> s

    def end(self, int member, size_t turn, uint64_t now_us=0):
        cdef Server *s = <Server *> turn
        share_end(self.members[member], s, now_us)
        free(s)
