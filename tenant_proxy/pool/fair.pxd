# Who gets a shared server next: start-time fair queueing over the tenants of a group, and over each one's logins.
#
# Each tenant has a tag, the virtual time up to which it has been served: what it has used of servers, in
# microseconds, divided by its weight.  The tenant with the least tag is next.  One that comes back after a pause
# starts at the group's time, so that nobody saves up, and nobody who asks seldom waits behind a flood.  What a
# turn will take is guessed when it begins and put right when it ends.  Within a tenant its logins have tags
# likewise, all of the same weight: one with many logins has no more than one with a single one, and none of them
# waits behind another's flood.
#
# Weights, reserves and maxima are the tenants'.  Where several workers serve one, each sees by the shared counters
# what the others run for it.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from tenant_proxy.pool.pool cimport Client, Pool, Server, Share

cdef enum:
    PATIENCE_US = 10000         # who waits longer than this gets any server, whoever is at home there

cdef Share *share_of(Pool *g, uint32_t tenant) noexcept nogil
cdef void share_count(Share *s, int32_t *turns, size_t apart, int32_t rows, int32_t row) noexcept nogil
cdef void share_join(Pool *p, Pool *g, Share *s, uint32_t weight, int reserved, int most) noexcept nogil
cdef void share_part(Pool *p) noexcept nogil
cdef void share_push(Pool *p, Client *c) noexcept nogil
cdef void share_remove(Pool *p, Client *c) noexcept nogil
cdef bint share_may_start(Pool *p, uint64_t now_us) noexcept nogil
cdef Pool *share_next(Pool *g, Server *server, uint64_t now_us, Server **found) noexcept nogil
cdef bint share_claim(Pool *p) noexcept nogil
cdef void share_begin(Pool *p, Server *server, uint64_t now_us) noexcept nogil
cdef void share_end(Pool *p, Server *server, uint64_t now_us) noexcept nogil
cdef Server *share_pick(
    Pool *g, Pool *p, uint32_t startup_id, uint32_t settings_id, uint64_t now_us
) noexcept nogil
cdef uint64_t home_key(uint64_t tenant) noexcept nogil
cdef bint is_kept(Pool *g, Server *s, uint64_t now_us) noexcept nogil
cdef bint is_choosy(Pool *g, Server *s) noexcept nogil
cdef void slot_take(Pool *g, Server *s) noexcept nogil
cdef void slot_leave(Pool *g, Server *s) noexcept nogil
