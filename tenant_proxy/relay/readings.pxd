from libc.stdint cimport uint64_t

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.core cimport Relay

cdef void note_reading(Relay e, Client *c, const char *data, size_t n) noexcept nogil
cdef void note_readings(Relay e, Client *c, const char *greeting, size_t n) noexcept nogil
