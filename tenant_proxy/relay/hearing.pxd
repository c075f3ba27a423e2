# Clients in transaction mode that listen: see hearing.pyx.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t

from tenant_proxy.guard.edits cimport Rewrite
from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Relay

cdef enum:
    # listen_check()
    LISTEN_GOES = 0
    LISTEN_HELD = 1                 # the message stays until the proxy listens
    LISTEN_REFUSED = 2              # `refusal` says why

    # Server.notified: whether a transaction that has ended may have notified, unheard of so far
    NOTIFIED = 1                    # … of any client
    NOTIFIED_OWN = 2                # … of the client that has it, which listens; and of no other

cdef int listen_check(Relay e, Client *c, const char *sql, size_t n, uint32_t *effects, bint stays) noexcept nogil
cdef int listens_still(Relay e, Client *c, Rewrite *r) noexcept nogil
cdef Rewrite *for_ear(
    Relay e, Client *c, Server *s, uint32_t effects, const char *sql, size_t n, const char *tail, size_t tail_size
) noexcept nogil
cdef bint heard_before(Relay e, Client *c, Server *s, uint32_t effects) noexcept nogil
cdef bint hears_first(Relay e, Server *s, char status) noexcept nogil
cdef bint tell_tag(Relay e, Server *s, Rewrite *r, char *data, size_t pos, size_t total, size_t *sent) noexcept nogil
cdef void notify_client(
    Relay e, Client *c, const char *message, size_t n, int32_t pid, int32_t notifier
) noexcept nogil
cdef void tell_notes(Relay e, Client *c) noexcept nogil
cdef void heard(Relay e, Server *s) noexcept nogil
cdef void tell_renamed(Relay e, Server *s, char *message, size_t total) noexcept nogil
