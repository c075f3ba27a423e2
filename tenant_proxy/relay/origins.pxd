# What clients are asked for by how and from where they come: the rules that look at nothing else.

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.core cimport Entries

# By the first rule that fits; not where that is Python's to say.
cdef bint asked_for_scram(Entries *t, Client *c) noexcept nogil
# `origins` are auth.rules.Origin.
cdef int set_origins(Entries *t, origins) except -1
