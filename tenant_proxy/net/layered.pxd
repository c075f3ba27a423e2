from tenant_proxy.net.reactor cimport Link, Reactor

cdef void tls_readable(Reactor r, Link *l, ssize_t n) noexcept with gil
cdef void tls_say_goodbye(Reactor r, Link *l) noexcept with gil
cdef int tls_send(Reactor r, Link *l, const char *data, size_t n) noexcept with gil
