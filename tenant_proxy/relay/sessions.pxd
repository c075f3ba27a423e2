# The part of the engine about clients as sessions.

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.listening cimport Listening

cdef class Sessions(Listening):
    cdef cancel(self, Client *c)
