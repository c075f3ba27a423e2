# Who is paired with whom: obtaining a server, giving it back, and both ends of a link's life.

from libc.stdint cimport int32_t, uint64_t

from tenant_proxy.pool.pool cimport Client, Pool, Server
from tenant_proxy.relay.core cimport Relay

cdef enum:
    REST_BYTES = 64             # room for `rest_message`
    UNKNOWN_SETTINGS = 0xffffffff   # of a server: none that a client may have

cdef Server *obtain(Relay e, Client *c) noexcept nogil
cdef void queue_up(Relay e, Client *c) noexcept nogil
cdef bint wants_more(Pool *g) noexcept nogil
cdef void demand(Relay e, Pool *p) noexcept nogil
cdef void wait_patiently(Relay e, Pool *g) noexcept nogil
cdef void settled(Relay e, Server *s) noexcept nogil
cdef void make_available(Relay e, Server *s) noexcept nogil
cdef void serve_waiting(Relay e, Pool *g, Server *s) noexcept nogil
cdef void keep_together(Relay e, Server *s) noexcept nogil
cdef void unpair(Relay e, Server *s, Client *c) noexcept nogil
cdef void switch_undone(Relay e, Server *s) noexcept nogil
cdef bint others_next(Relay e, Server *s) noexcept nogil
cdef size_t rest_message(Server *s, char *m) noexcept nogil
cdef void forget_tenant(Relay e, Server *s) noexcept nogil
cdef void come_to_rest(Relay e, Server *s) noexcept nogil
cdef void give_up(Relay e, Server *s) noexcept nogil
cdef void maybe_release(Relay e, Server *s) noexcept nogil

cdef bint has_hung_up(Client *c) noexcept nogil
cdef void client_end(Relay e, Client *c, int reason) noexcept nogil
cdef void client_fail(Relay e, Client *c, int reason, uint64_t detail) noexcept nogil
cdef void server_end(Relay e, Server *s, int reason) noexcept nogil
