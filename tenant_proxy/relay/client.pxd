# What clients send.

from libc.stddef cimport size_t

from tenant_proxy.net.reactor cimport Link, Reactor
from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Relay

cdef int client_bytes(Reactor r, Link *l, char *data, size_t n, size_t *used) noexcept nogil
cdef void client_eof(Reactor r, Link *l) noexcept nogil
cdef void client_drained(Reactor r, Link *l) noexcept nogil
cdef void client_free(Reactor r, Link *l) noexcept nogil
