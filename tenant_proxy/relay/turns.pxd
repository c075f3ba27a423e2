# A shared server's switch for one transaction.

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Burst, Relay

cdef bint turn_flush(Relay e, Burst *b, Client *c, Server *s) noexcept nogil
cdef void turn_made(Server *s) noexcept nogil
