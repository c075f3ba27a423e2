"""Groups: pools whose servers are shared by the pools of many tenants (relay.lanes, pool.fair)."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free

from tenant_proxy.net.reactor cimport KIND_CLIENT, KIND_SERVER, Link
from tenant_proxy.pool.fair cimport home_key, share_count, share_join, share_of, share_part
from tenant_proxy.pool.pool cimport Client, Pool, Server, Share, Usage
from tenant_proxy.pool.width cimport width_narrows
from tenant_proxy.relay.core cimport SERVER_UNAVAILABLE, YIELDED, Relay
from tenant_proxy.relay.figures cimport Figures
from tenant_proxy.relay.marks cimport counted
from tenant_proxy.relay.pairing cimport UNKNOWN_SETTINGS, client_fail, demand, serve_waiting, server_end, wait_patiently
from tenant_proxy.wire.ptrmap cimport map_get


cdef inline Pool *find_pool(Relay e, uint32_t id) noexcept:
    return <Pool *> map_get(&e.pools, id)


cdef class Groups(Figures):
    """Shared servers, as Python sets them up."""

    def use_counters(self, view, int32_t row, int32_t rows, size_t row_places):
        """Where the counters are that all workers share: `view` is writable memory of int32, kept."""
        cdef int32_t[::1] places = view
        self.counters_view = places
        self.counters = &places[0]
        self.row = row
        self.rows = rows
        self.row_places = row_places

    def use_usage(self, row, pace):
        """Where what tenants use is counted: this worker's row, and that of all workers; both are kept."""
        cdef uint64_t[::1] places = memoryview(row).cast("Q")
        cdef int64_t[::1] paces = memoryview(pace).cast("q")
        self.usage_view = places
        self.usage = <Usage *> &places[0]
        self.pace_view = paces
        self.pace = &paces[0]

    def pool_meter(self, uint32_t id, int32_t place, *, double statements_per_s, int burst, bint full):
        """Where a pool's tenant is counted (place -1: nowhere), how many statements a second it may run (0:
        any), so many at once, and whether it has more than it may store."""
        cdef Pool *p = find_pool(self, id)
        p.full = full
        p.usage = &self.usage_of_none
        p.pace = NULL
        p.gated = p.stopped
        if place < 0 or self.usage == NULL:
            return
        p.usage = self.usage + place
        if statements_per_s > 0:
            p.gated = 1
            p.pace = self.pace + place
            p.pace_us = <int64_t> (1e6 / statements_per_s)
            p.pace_burst_us = p.pace_us * (burst - 1 if burst > 0 else 0)

    def pool_stop(self, uint32_t id, bint stopped):
        """Clients of a stopped pool that have a server or are in the queue go on; what they begin then waits
        until it is stopped no more, for as long as they may wait in the queue."""
        cdef Pool *p = find_pool(self, id)
        cdef size_t i
        cdef Link *l
        p.stopped = stopped
        p.gated = stopped or p.pace != NULL
        if stopped or self.links.slots == NULL:
            return
        for i in range(self.links.mask + 1):
            l = <Link *> self.links.slots[i].value
            if l != NULL and l.kind == KIND_CLIENT and (<Client *> l).stopped and (<Client *> l).pool == p:
                (<Client *> l).stopped = 0
                self.unpause(l)
                self.make_ready(l)

    def counted(self, int32_t index):
        """The sum of a shared counter over all workers."""
        return counted(self, index)

    def pool_group(self, uint32_t id, uint32_t startup_id, int tenants_limit, bint narrows, bint yields):
        """Makes a pool one whose servers, opened with these settings, are shared by others'; called again when
        the limit changes.

        `tenants_limit`: a server that has served more tenants than this is closed; 0: none is.  `narrows`: no more
        turns run at once than get more done (pool.width); `yields`: of these, a flood has a part while others ask now
        and then.
        """
        cdef Pool *p = find_pool(self, id)
        p.is_group = 1
        p.last_startup = startup_id
        p.tenants_limit = tenants_limit
        width_narrows(p, narrows, yields)

    def group_patience(self, uint32_t id):
        """Gives idle servers to those who have waited for their homes for long."""
        cdef Pool *p = find_pool(self, id)
        p.patient = 0
        self.tick()
        serve_waiting(self, p, p.idle_last)
        wait_patiently(self, p)

    def group_needs(self, uint32_t id):
        """(servers of every phase, the weights of tenants that have one or wait for one)"""
        cdef Pool *p = find_pool(self, id)
        return p.total - p.yielding, p.share.weights

    def group_yield(self, uint32_t id):
        """Closes one of the group's servers, for another worker: an idle one, or the next that is at rest."""
        cdef Pool *p = find_pool(self, id)
        if p.idle_last != NULL:
            server_end(self, p.idle_last, YIELDED)
        else:
            p.yielding += 1

    def forget_switches(self):
        """What makes servers tenants' is composed anew, and is sent before the next use."""
        cdef size_t i
        cdef Pool *p
        cdef Link *l
        if self.links.slots != NULL:
            for i in range(self.links.mask + 1):
                l = <Link *> self.links.slots[i].value
                if l != NULL and l.kind == KIND_SERVER and (<Server *> l).client == NULL \
                        and (<Server *> l).pool.is_group:
                    (<Server *> l).settings_id = UNKNOWN_SETTINGS
        if self.pools.slots == NULL:
            return
        for i in range(self.pools.mask + 1):
            p = <Pool *> self.pools.slots[i].value
            if p != NULL:
                free(p.ahead)
                p.ahead = NULL

    def pool_join(self, uint32_t id, uint32_t group_id, *, uint32_t weight, int reserved, int max,
                  int32_t mark_index, int32_t active_index, int32_t coded_index, int32_t turns_index):
        """A pool's clients get servers of a group; called again when its tenant's limits change, which all pools of
        the tenant have together."""
        cdef Pool *p = find_pool(self, id)
        cdef Pool *g = find_pool(self, group_id)
        cdef Share *s = share_of(g, p.owner.id)
        if s == NULL:
            raise MemoryError
        p.mark_index = mark_index
        p.active_index = active_index
        p.coded_index = coded_index
        # all logins of a tenant use the same entries of the catalogs
        p.home_key = home_key(<uint64_t> mark_index if mark_index >= 0 else (<uint64_t> 1 << 32) + id)
        if turns_index >= 0 and self.counters != NULL:
            share_count(s, self.counters + turns_index, self.row_places, self.rows, self.row)
        share_join(p, g, s, weight, reserved, max)
        if p.share.waiting:
            # they may have come from another group
            demand(self, g)

    def pool_part(self, uint32_t id):
        """What was reserved for the pool's tenant is, unless it has other pools there; clients that have or wait for
        a shared server go on."""
        share_part(find_pool(self, id))

    def pool_proven(self, uint32_t id, int known, int32_t mark):
        """Whether all code of the pool's tenant is proven (1), or not (0), or not read yet (2), as of the shared
        counter's `mark`."""
        cdef Pool *p = find_pool(self, id)
        p.known = known
        p.known_mark = mark

    def pool_begins_own(self, uint32_t id):
        """From now on explicit transactions begin on servers of the pool's own."""
        find_pool(self, id).begins_own = 1


cdef void fail_members(Relay e, Pool *g):
    # nobody can be served: all who wait are told
    cdef size_t i
    cdef Pool *p
    for i in range(e.pools.mask + 1):
        p = <Pool *> e.pools.slots[i].value
        while p != NULL and p.group == g and p.share.first != NULL:
            client_fail(e, p.share.first, SERVER_UNAVAILABLE, 0)
