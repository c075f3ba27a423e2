# Counters that all workers share, about tenants' code: see relay.lanes.

from libc.stdint cimport int32_t, uint32_t

from tenant_proxy.pool.pool cimport Pool
from tenant_proxy.relay.core cimport Relay

cdef void count_shared(Relay e, int32_t index, int n) noexcept nogil
cdef int32_t counted(Relay e, int32_t index) noexcept nogil
cdef void define(Relay e, Pool *p) noexcept nogil
cdef uint32_t definitions(Relay e, Pool *p) noexcept nogil
cdef bint is_proven(Relay e, Pool *p) noexcept nogil
