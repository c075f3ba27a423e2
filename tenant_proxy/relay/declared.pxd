# Types that a Parse declares its parameters to be of: whose they are.

from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Burst, Relay

cdef enum:
    # declared_check()
    DECLARED_GOES = 0               # all are known to be the tenant's, or everybody's
    DECLARED_HELD = 1               # its server is asked first: the message stays
    DECLARED_REFUSED = 2            # `refusal` holds the ErrorResponse

    # besides pool.ACT_…, with ACT_SKIP: asks whose types are
    ACT_DECLARED = 2048


cdef int declared_check(
    Relay e, Client *c, Burst *b, Server *s, const char *types, size_t size, bint unnamed
) noexcept nogil
# whether types that a statement was let through with, in a scope of before, may be others now
cdef bint declared_elsewhere(Relay e, Client *c, uint32_t scope, const char *types, size_t size) noexcept nogil
cdef void up_declared_answer(Relay e, Server *s, const char *tag, size_t n) noexcept nogil
