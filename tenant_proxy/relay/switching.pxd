# Upcalls about switches.

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Relay

cdef int up_switch(Relay e, Server *s, Client *c) noexcept nogil
cdef int up_ahead(Relay e, Client *c) noexcept nogil
