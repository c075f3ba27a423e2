# What servers send.

from libc.stddef cimport size_t

from tenant_proxy.net.reactor cimport Link, Reactor
from tenant_proxy.pool.pool cimport Server
from tenant_proxy.relay.core cimport Relay

cdef int server_bytes(Reactor r, Link *l, char *data, size_t n, size_t *used) noexcept nogil
cdef void server_eof(Reactor r, Link *l) noexcept nogil
cdef void server_drained(Reactor r, Link *l) noexcept nogil
cdef void server_free(Reactor r, Link *l) noexcept nogil
cdef void drain_fakes(Relay e, Server *s) noexcept nogil
