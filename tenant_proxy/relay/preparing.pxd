# Prepared statements that a server lacks, sent to it ahead of their use.

from libc.stddef cimport size_t

from tenant_proxy.guard.edits cimport Rewrite
from tenant_proxy.pool.pool cimport Client, Server, Stmt
from tenant_proxy.relay.core cimport Burst, Relay

cdef void write_parse(
    Relay e, Burst *b, const char *name, size_t name_len, const char *body, size_t size
) noexcept nogil
cdef void write_named(Relay e, Burst *b, Stmt *t) noexcept nogil
cdef void write_close(Relay e, Burst *b, Server *s, Stmt *t) noexcept nogil
cdef void make_room(Relay e, Client *c, Burst *b, Server *s) noexcept nogil
cdef bint ensure_known(
    Relay e, Client *c, Burst *b, Server *s, Stmt *t, Rewrite *r, bint unnamed
) noexcept nogil
cdef Rewrite *executed(
    Relay e, Client *c, Burst *b, Server *s, const char *sql, size_t n, const char *tail, size_t tail_size, bint alone
) noexcept nogil
