# What has been waiting, idle or running for too long: the Reason to end it for, 0 if none.

from libc.stdint cimport uint64_t

from tenant_proxy.pool.pool cimport Client, Server

cdef int client_overdue(Client *c, uint64_t now, uint64_t login_timeout_us) noexcept nogil
cdef int server_overdue(Server *s, uint64_t now) noexcept nogil
