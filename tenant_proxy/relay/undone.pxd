# Requests that got no answer, as an error came before them.

from tenant_proxy.pool.pool cimport Outstanding, Server
from tenant_proxy.relay.core cimport Relay

cdef void drop_request(Relay e, Server *s, Outstanding *o) noexcept nogil
