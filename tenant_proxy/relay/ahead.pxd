# A switch behind which the client's bytes go unacknowledged.

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Burst, Relay

cdef void ahead_flush(Relay e, Burst *b, Client *c, Server *s) noexcept nogil
cdef int ahead_ready(Relay e, Server *s) noexcept nogil
cdef void rest_behind(Relay e, Burst *b, Client *c, Server *s) noexcept nogil
cdef void part(Relay e, Server *s) noexcept nogil
cdef void ask_again(Relay e, Client *c, Server *s) noexcept nogil
