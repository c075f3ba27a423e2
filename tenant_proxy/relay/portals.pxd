# Portals that a server must not be asked to run.

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Relay

cdef enum:
    # portal_check()
    PORTAL_GOES = 0
    PORTAL_HELD = 1                 # the message stays until it is known how a simple Query has ended
    PORTAL_REFUSED = 2              # `refusal` holds the ErrorResponse

cdef int portal_check(Relay e, Client *c, Server *s) noexcept nogil

cdef bint breaks_copy(Relay e, Server *s, int code) noexcept nogil
