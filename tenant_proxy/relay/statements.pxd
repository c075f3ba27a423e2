# Prepared statements in transaction mode: one text is one Stmt for all clients of a pool, under a name
# of its own on every server that knows it.

from libc.stdint cimport uint32_t, uint64_t

from tenant_proxy.guard.edits cimport Rewrite
from tenant_proxy.pool.pool cimport Client, ClientStmt, Pool, Server, ServerStmt, Stmt
from tenant_proxy.relay.core cimport Relay

cdef enum:
    NAME_BYTES = 24                 # a server-side name with its NUL fits
    MAX_CLIENT_STATEMENTS = 10000   # named statements of one client

cdef uint64_t hash_bytes(uint64_t seed, const char *data, size_t n) noexcept nogil
cdef size_t statement_bytes(Relay e) noexcept nogil
cdef bint may_keep(Relay e, Client *c, size_t size) noexcept nogil
cdef size_t server_name(Stmt *t, char *out) noexcept nogil
cdef bint may_name(const char *name, size_t n) noexcept nogil

cdef Stmt *stmt_new(Relay e, Pool *p, const char *body, size_t n, uint32_t effects) noexcept nogil
cdef Stmt *stmt_intern(
    Relay e, Pool *p, const char *body, size_t n, uint32_t effects, uint64_t reading
) noexcept nogil
cdef void stmt_retire(Stmt *t) noexcept nogil
cdef void stmt_unref(Stmt *t) noexcept nogil

cdef ClientStmt *client_find(Client *c, uint64_t hash, const char *name, size_t n) noexcept nogil
cdef int client_add(Client *c, uint64_t hash, const char *name, size_t n, Stmt *t, uint32_t scope,
                    Rewrite *rewrite, uint64_t now_us) noexcept nogil
cdef void client_replace(Client *c, ClientStmt *cs, Stmt *t, uint32_t scope, Rewrite *rewrite) noexcept nogil
cdef void client_forget(Client *c, ClientStmt *cs) noexcept nogil
cdef void client_take(Client *c, ClientStmt *cs) noexcept nogil
cdef ClientStmt *client_take_unnamed(Client *c) noexcept nogil
cdef void close_here(Relay e, Client *c, ClientStmt *cs, bint unnamed) noexcept nogil
cdef void client_put_back(Client *c, ClientStmt *cs) noexcept nogil
cdef void client_stmt_free(ClientStmt *cs) noexcept nogil
cdef void client_confirm(Client *c, uint64_t hash, Stmt *t) noexcept nogil
cdef void client_undo(Client *c, uint64_t hash, Stmt *t) noexcept nogil
cdef void client_forget_all(Client *c) noexcept nogil
cdef void client_drop_unnamed(Client *c) noexcept nogil

cdef ServerStmt *server_find(Server *s, Stmt *t) noexcept nogil
cdef bint server_knows(Server *s, Stmt *t) noexcept nogil
cdef int server_learn(Server *s, Stmt *t, uint32_t generation) noexcept nogil
cdef void server_forget(Server *s, Stmt *t) noexcept nogil
cdef void server_forget_all(Server *s) noexcept nogil
