# currval() and lastval() in transaction mode.

from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Burst, Relay

cdef enum:
    # values_check()
    VALUES_GO = 0
    VALUES_HELD = 1                 # the message stays until it is known how the transaction stands
    VALUES_REFUSED = 2              # `refusal` holds the ErrorResponse

# ahead of a text that may leave values of sequences, where any client asks for them: what others have left goes first
cdef void before_touch(Relay e, Client *c, Burst *b, Server *s, uint32_t effects, bint simple) noexcept nogil
cdef int values_check(Relay e, Client *c, Server *s, uint32_t effects) noexcept nogil
# `alone`: a simple query follows
cdef void own_values(Relay e, Client *c, Burst *b, Server *s, bint alone) noexcept nogil
cdef void prefer_own(Relay e, Client *c) noexcept nogil
