# Statements whose plans a server finds outdated: asked again, made anew, where nobody can tell the difference.

from tenant_proxy.pool.pool cimport Client, Server, Stmt
from tenant_proxy.relay.core cimport Burst, Relay

cdef bint is_first(Relay e, Burst *b, Server *s) noexcept nogil
cdef void remember(Relay e, Burst *b, Client *c, Server *s) noexcept nogil
cdef bint asked_anew(Relay e, Server *s, char *message, size_t total) noexcept nogil
cdef bint is_stale(char *message, size_t total) noexcept nogil
cdef void retire_statements(Server *s) noexcept nogil
cdef int is_described(Relay e, Server *s, char *message, size_t n, size_t total) noexcept nogil
