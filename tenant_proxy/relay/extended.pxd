# Extended-query messages of clients; results as in relay.requests.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.core cimport Burst, Relay

cdef ssize_t on_parse(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil
cdef ssize_t on_bind(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil
cdef ssize_t on_name(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil
cdef ssize_t on_whole(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total, uint8_t request) noexcept nogil
