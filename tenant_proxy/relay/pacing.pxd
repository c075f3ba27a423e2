# Statements that wait before they need a server: for their turn, or until their pool is no longer stopped.

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.core cimport Relay

cdef enum:
    PACE_FREE = 0
    PACE_HELD = 1               # the message stays until its turn has come
    PACE_REFUSED = 2            # `refusal` says so

# Called with each message of a client whose pool has a limit or is stopped.
cdef int gate_check(Relay e, Client *c, int code) noexcept nogil
