# On which servers a transaction of a tenant with shared backends runs.

from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Relay

cdef enum:
    LANE_GOES = 0               # the client has its server
    LANE_HELD = 1               # it waits, or has ended
    LANE_REFUSED = 2            # `refusal` says why

cdef int lane_check(Relay e, Client *c, uint32_t effects) noexcept nogil
cdef uint32_t elsewhere(
    Relay e, Client *c, uint32_t effects, const char *rest, size_t n, size_t total
) noexcept nogil
cdef int moved(Relay e, Server *s) noexcept nogil
