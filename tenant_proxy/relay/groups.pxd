# The part of the engine about shared servers.

from tenant_proxy.pool.pool cimport Pool
from tenant_proxy.relay.core cimport Relay
from tenant_proxy.relay.figures cimport Figures

cdef class Groups(Figures):
    pass

cdef void fail_members(Relay e, Pool *g)
