# The part of the engine about ears.

from libc.stdint cimport uint64_t

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.groups cimport Groups

cdef class Listening(Groups):
    cdef Client *listener(self, uint64_t id) noexcept
