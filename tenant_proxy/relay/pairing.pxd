# Who is paired with whom: obtaining a server, giving it back, and both ends of a link's life.

from libc.stdint cimport int32_t, uint64_t

from tenant_proxy.pool.pool cimport Client, Pool, Server
from tenant_proxy.relay.core cimport Relay

cdef Server *obtain(Relay e, Client *c) noexcept nogil
cdef void queue_up(Relay e, Client *c) noexcept nogil
cdef void demand(Relay e, Pool *p) noexcept nogil
cdef void settled(Relay e, Server *s) noexcept nogil
cdef void make_available(Relay e, Server *s) noexcept nogil
cdef void keep_together(Relay e, Server *s) noexcept nogil
cdef void unpair(Relay e, Server *s, Client *c) noexcept nogil
cdef void switch_refused(Relay e, Server *s) noexcept nogil
cdef void count_shared(Relay e, int32_t index, int n) noexcept nogil
cdef void give_up(Relay e, Server *s) noexcept nogil
cdef void maybe_release(Relay e, Server *s) noexcept nogil
cdef void clear_ring(Server *s) noexcept nogil

cdef bint has_hung_up(Client *c) noexcept nogil
cdef void client_end(Relay e, Client *c, int reason) noexcept nogil
cdef void client_fail(Relay e, Client *c, int reason, uint64_t detail) noexcept nogil
cdef void server_end(Relay e, Server *s, int reason) noexcept nogil
