"""The scheduler of shared servers alone, for simulations."""

from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tenant_proxy.pool.fair cimport (
    share_begin, share_claim, share_count, share_end, share_join, share_may_start, share_next, share_of, share_part, share_push,
    share_remove,
)
from tenant_proxy.pool.pool cimport Client, Pool, Server, Share
from tenant_proxy.pool.width cimport width_narrows
from tenant_proxy.wire.ptrmap cimport map_free


cdef class Model:
    """A group and its members without servers and sockets: what the tests' simulations decide by.

    Members are tenants of one login each, or the logins of which `tenants` has each one's tenant.  `workers`: in so
    many it is counted what runs for tenants.  `yields`: so does a flood, as configured.
    """

    cdef Pool *group
    cdef Pool **members
    cdef int32_t *turns
    cdef int count
    cdef int workers

    def __cinit__(self, int servers, limits, tenants=None, int workers=1, bint yields=True):
        cdef int i
        cdef int tenant
        cdef Share *s
        self.group = <Pool *> calloc(1, sizeof(Pool))
        self.group.max = servers
        width_narrows(self.group, True, yields)
        logins = range(len(limits)) if tenants is None else tenants
        self.count = len(logins)
        self.workers = workers
        self.members = <Pool **> calloc(self.count, sizeof(Pool *))
        self.turns = <int32_t *> calloc(len(limits) * workers, sizeof(int32_t))
        for i in range(self.count):
            tenant = logins[i]
            weight, reserved, most = limits[tenant]
            self.members[i] = <Pool *> calloc(1, sizeof(Pool))
            self.members[i].id = i
            s = share_of(self.group, tenant + 1)
            share_count(s, self.turns + tenant, len(limits), workers, 0)
            share_join(self.members[i], self.group, s, weight, reserved, most)

    def __dealloc__(self):
        cdef int i
        cdef size_t k
        cdef Client *c
        cdef Share *s
        for i in range(self.count):
            while self.members[i].share.first != NULL:
                c = self.members[i].share.first
                share_remove(self.members[i], c)
                free(c)
            free(self.members[i])
        free(self.members)
        free(self.turns)
        for k in range(self.group.shares.mask + 1 if self.group.shares.slots != NULL else 0):
            s = <Share *> self.group.shares.slots[k].value
            if s != NULL:
                free(s.heap[0])
                free(s.heap[1])
                free(s)
        map_free(&self.group.shares)
        free(self.group.share.heap[0])
        free(self.group.share.heap[1])
        free(self.group)

    @property
    def width(self):
        """How many turns may run at once, 0: any."""
        return self.group.width.limit

    @property
    def need(self):
        """The weights of the tenants that have a server or wait for one."""
        return self.group.share.weights

    def elsewhere(self, int member, int worker, int32_t turns):
        """So many turns run for the member's tenant in another worker."""
        cdef Share *s = self.members[member].share.above
        s.turns[worker * s.turns_apart] = turns

    def counted(self, int member, int worker):
        """How many turns run for the member's tenant in a worker, this one's number is 0."""
        cdef Share *s = self.members[member].share.above
        return s.turns[worker * s.turns_apart]

    def move(self, int member, int tenant):
        """The member becomes one of a tenant that had none."""
        cdef Share *before = self.members[member].share.above
        cdef Share *s = share_of(self.group, tenant + 1)
        share_join(self.members[member], self.group, s, before.given, before.reserved, before.max)

    def part(self, int member):
        """The member will have no new clients."""
        share_part(self.members[member])

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
        """A turn, for `end`; 0 if another worker has begun the last one that there may be."""
        if not share_claim(self.members[member]):
            return 0
        cdef Server *s = <Server *> calloc(1, sizeof(Server))
        s.pool = self.group
        share_begin(self.members[member], s, now_us)
        return <size_t> s

    def end(self, int member, size_t turn, uint64_t now_us=0):
        cdef Server *s = <Server *> turn
        share_end(self.members[member], s, now_us)
        free(s)
