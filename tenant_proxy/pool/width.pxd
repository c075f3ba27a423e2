# How many turns run at once on a group's servers: no more than get more done.
#
# A server's machine has so many processors and disks.  Statements beyond what these can do at once are not
# done sooner: they only take time from each other, and from the single statement of a tenant that asks now
# and then, which no fair queue can help once all run.  So the width (how many turns run at once) is narrowed
# for as long as that loses little: for a while now and again a smaller one is tried, and the turns that end
# meanwhile are compared with those of the while before and after.  A width that loses nothing becomes the
# width; if the loss is nearly what the smaller width takes away, then more at once would get more done, and it
# grows.  What turns wait for (processors, disks, locks, their own client) need not be known.
#
# Only turns that are young count.  One that has run for OLD_US has left its place: it waits for something, or
# is long, and then the server's kernel sees to it that the short ones get through.  So long turns never stop
# the others.  Who has no turn yet may go when all places are taken, up to twice the width: the quiet ones do
# not wait for a flood at all.  While a turn of one that asks now and then runs, it takes LIGHT_PLACES more from
# tenants that have several: it came for one short statement, and they have others all the time.  And one tenant
# alone has no limit: nobody would gain.
#
# A width that loses nothing keeps all processors busy, so who comes waits for one each time: for that of the server's
# process, the worker's, its own client's.  So a flood (a tenant that begins most of all turns, and wants more at once
# than all may have) yields: it has a part of the width for as long as others ask now and then.

from libc.stdint cimport uint64_t

from tenant_proxy.pool.pool cimport Pool, Server, Share

cdef enum:
    OLD_US = 10000

cdef void width_enter(Pool *g, Share *member, Server *s, uint64_t now_us) noexcept nogil
cdef void width_leave(Pool *g, Share *member, Server *s, uint64_t now_us) noexcept nogil
cdef void width_narrows(Pool *g, bint narrows, bint yields) noexcept nogil
cdef bint width_allows(Pool *g, Share *s, uint64_t now_us) noexcept nogil
