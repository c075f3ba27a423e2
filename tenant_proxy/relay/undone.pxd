# Requests that got no answer, as an error came before them.

from tenant_proxy.pool.pool cimport Outstanding, Server

cdef void drop_request(Server *s, Outstanding *o) noexcept nogil
