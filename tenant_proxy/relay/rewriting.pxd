# Statements whose text is changed on its way to the server, and what is turned back on its way to the client.

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from tenant_proxy.guard.edits cimport Rewrite
from tenant_proxy.pool.pool cimport Client, Pool, Server, Stmt
from tenant_proxy.relay.core cimport Burst, Relay

# The text with the edits of its verdict and `tail` behind it, with a reference for the caller; NULL: refused.
cdef Rewrite *rewritten(
    Relay e, Client *c, const char *sql, size_t n, const char *tail, size_t tail_size
) noexcept nogil
cdef void write_query(Relay e, Burst *b, Rewrite *r) noexcept nogil

# session mode: statements are the server's, and only those that were changed are known here
cdef int note_statement(Relay e, Client *c, const char *name, size_t n, Rewrite *r, bint replaces) noexcept nogil
cdef Rewrite *noted_statement(Relay e, Client *c, const char *name, size_t n) noexcept nogil
cdef bint is_noted_bound(Relay e, Client *c, const char *name, size_t n) noexcept nogil
cdef int judge_noted(
    Relay e, Client *c, const char *name, size_t n, const char *values, size_t size
) noexcept nogil
# the portal that a Bind makes, and its use
cdef void note_portal(Relay e, Client *c, const char *name, size_t n, Rewrite *r) noexcept nogil
cdef Rewrite *noted_portal(Relay e, Client *c, const char *name, size_t n) noexcept nogil
cdef void forget_rewrites(Client *c) noexcept nogil

# servers' messages
cdef bint names_own(Pool *p, const char *data, size_t n) noexcept nogil
cdef size_t prefix_of_channel(Pool *p, const char *data, size_t total) noexcept nogil
