# What the handlers of clients' messages share.
#
# A handler returns > 0: bytes consumed; 0: the message is not complete; HOLD: it stays until a server is
# there; ENDED: the client is gone.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Burst, Relay

cdef enum:
    HOLD = -1
    ENDED = -2

    HELD = 0x40000000               # judge(): the client has to wait, for a verdict or for a server

cdef void burst_forward(Relay e, Burst *b, char *data, size_t n) noexcept nogil
cdef void burst_write(Relay e, Burst *b, const char *data, size_t n) noexcept nogil
cdef void burst_flush(Relay e, Burst *b, Client *c, Server *s) noexcept nogil
cdef ssize_t violation(Relay e, Client *c, int what, uint32_t value) noexcept nogil
cdef ssize_t skip(Client *c, size_t total) noexcept nogil
cdef ssize_t stream(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil
cdef void tell_ready(Relay e, Client *c) noexcept nogil
cdef bint in_peace(Client *c) noexcept nogil
cdef uint32_t judge(Relay e, Client *c, const char *sql, size_t n) noexcept nogil
cdef uint32_t unless_it_grows(Relay e, Client *c, uint32_t effects) noexcept nogil
cdef bint may_pin(Relay e, Client *c, uint32_t effects) noexcept nogil
cdef void apply_effects(Relay e, Client *c, Server *s, uint32_t effects, const char *sql, size_t n) noexcept nogil
cdef bint gather(Relay e, Client *c, size_t size) noexcept nogil
cdef void let_go(Client *c) noexcept nogil
cdef ssize_t refuse_gathered(Relay e, Client *c, Burst *b, int code, size_t total) noexcept nogil
cdef ssize_t refuse_query(Relay e, Client *c, Burst *b, size_t total) noexcept nogil
cdef ssize_t refuse_extended(Relay e, Client *c, Burst *b, size_t total) noexcept nogil
cdef Server *server_of(Relay e, Client *c) noexcept nogil
cdef ssize_t no_server(Client *c) noexcept nogil
