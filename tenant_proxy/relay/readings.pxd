from libc.stdint cimport uint64_t

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Relay

cdef inline bint is_unsettled(Server *s) noexcept nogil:
    # whether a client's literals may be read otherwise by the time that its server reads what comes now
    return s != NULL and s.unsettled and s.ring.count > 0


cdef void reads_alone(Relay e, Client *c) noexcept nogil
cdef uint64_t reading_of(Relay e, Client *c) noexcept nogil
cdef void note_reading(Relay e, Client *c, const char *data, size_t n) noexcept nogil
cdef void note_readings(Relay e, Client *c, const char *greeting, size_t n) noexcept nogil
