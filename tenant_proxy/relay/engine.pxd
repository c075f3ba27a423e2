# Engine: the relay as Python sees it.

from libc.stdint cimport uint32_t, uint64_t

from tenant_proxy.pool.pool cimport Client, Pool, Server
from tenant_proxy.relay.sessions cimport Sessions

cdef class Engine(Sessions):
    cdef Client *client(self, uint64_t id) noexcept
    cdef Server *server(self, uint64_t id) noexcept
    cdef Pool *pool(self, uint32_t id) noexcept
    cdef void own_session(self, Client *c, session)
    cdef void greet_with(self, Client *c, Server *s)
    cdef void fail_overdue(self, Client *c, int reason, uint64_t now)
