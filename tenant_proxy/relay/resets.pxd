# RESET ALL and DISCARD ALL of clients in transaction mode.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.core cimport Relay

cdef bint discarded(Relay e, Client *c, uint32_t effects) noexcept nogil
cdef uint32_t reset_effects(Relay e, Client *c, uint32_t effects) noexcept nogil
