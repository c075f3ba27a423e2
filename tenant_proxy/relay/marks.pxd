# Counters that all workers share: of tenants' code (relay.lanes), of those that wait, of pins.

from libc.stdint cimport int32_t, uint32_t

from tenant_proxy.pool.pool cimport Pool
from tenant_proxy.relay.core cimport Relay

cdef void count_shared(Relay e, int32_t index, int n) noexcept nogil
cdef int32_t counted(Relay e, int32_t index) noexcept nogil
cdef void count_pin(Relay e, Pool *p, int n) noexcept nogil
cdef int32_t tenant_waits(Relay e, Pool *p) noexcept nogil
cdef void define(Relay e, Pool *p) noexcept nogil
cdef uint32_t definitions(Relay e, Pool *p) noexcept nogil
cdef bint is_proven(Relay e, Pool *p) noexcept nogil
