# What the prepared statements of a tenant's clients take of the worker's memory together: see Tenant.
#
# A text is kept once for all clients of a login and all servers that know it, and so it is counted; each client's name
# for it is counted too.  What servers alone still know can be given up; what clients have names for can't, as nobody
# would tell them.

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport Burst, Relay

cdef enum:
    SMALL_BYTES = 8192          # an unnamed statement, of which each client has one, that is never refused

cdef bint may_prepare(Relay e, Client *c, Burst *b, Server *s, size_t size) noexcept nogil
