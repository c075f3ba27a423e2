# BEGIN takes no server: the first statement behind it does.

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t

from tenant_proxy.pool.pool cimport Client, Server, Stmt
from tenant_proxy.relay.core cimport Relay

cdef enum:
    ACT_KEPT = 4096             # repeated if the transaction begins anew elsewhere

cdef bint without_server(
    Relay e, Client *c, uint32_t effects, const char *sql, size_t size, const char *head, size_t head_size
) noexcept nogil
cdef size_t batch_without_server(
    Relay e, Client *c, uint32_t effects, const char *sql, size_t size, const char *rest, size_t n
) noexcept nogil
cdef char status_without(Client *c) noexcept nogil
cdef void begin_on(Relay e, Client *c, Server *s) noexcept nogil
cdef void begun(Server *s, bint failed) noexcept nogil
cdef void begins_anew(Client *c) noexcept nogil
cdef bint may_repeat(uint32_t effects) noexcept nogil
cdef uint16_t keep_begun(Client *c, uint32_t effects, const char *sql, size_t n) noexcept nogil
cdef void keep_bound(Client *c, Stmt *t, bint rewritten, bint named) noexcept nogil
cdef uint16_t keep_executed(Client *c, bint unnamed) noexcept nogil
cdef uint16_t keep_batch(Client *c) noexcept nogil
cdef void set_unseen(Client *c, uint16_t action) noexcept nogil
cdef void forget_begun(Client *c) noexcept nogil
cdef void forget_began(Client *c) noexcept nogil
