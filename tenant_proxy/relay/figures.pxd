# The part of the engine that only looks.

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.entry cimport Entry

cdef class Figures(Entry):
    pass

# a statement or transaction is under way
cdef bint is_busy(Client *c) noexcept nogil
