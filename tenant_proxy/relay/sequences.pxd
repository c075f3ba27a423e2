# currval() and lastval() in transaction mode.

from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Burst, Relay

# `alone`: a simple query follows
cdef void own_values(Relay e, Client *c, Burst *b, Server *s, bint alone) noexcept nogil
cdef void prefer_own(Relay e, Client *c) noexcept nogil
