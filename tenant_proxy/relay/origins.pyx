"""What clients are asked for by how and from where they come (auth.rules), whoever they are."""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.core cimport MAX_ORIGINS, Entries, Origin

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <string.h>
    #include <sys/socket.h>
    /* the peer's address as 4 or 16 bytes, 0 where there is none; an IPv4 client of a dual-stack socket has 4 */
    static int tp_peer(int fd, unsigned char *address) {
        struct sockaddr_storage a;
        socklen_t n = sizeof a;
        const struct in6_addr *six = &((struct sockaddr_in6 *)&a)->sin6_addr;
        if (getpeername(fd, (struct sockaddr *)&a, &n))
            return 0;
        if (a.ss_family == AF_INET) {
            memcpy(address, &((struct sockaddr_in *)&a)->sin_addr, 4);
            return 4;
        }
        if (a.ss_family != AF_INET6)
            return 0;
        if (IN6_IS_ADDR_V4MAPPED(six)) {
            memcpy(address, six->s6_addr + 12, 4);
            return 4;
        }
        memcpy(address, six->s6_addr, 16);
        return 16;
    }
    """
    int tp_peer(int fd, unsigned char *address) nogil


cdef bint asked_for_scram(Entries *t, Client *c) noexcept nogil:
    # by the first rule for where the client is
    cdef uint8_t connection = 2 if c.link.tls != NULL else 1 if c.link.local else 4
    cdef uint8_t[16] address
    cdef int size = -1
    cdef int i, at
    cdef Origin *o
    for i in range(t.origin_count):
        o = &t.origins[i]
        if not o.connections & connection:
            continue
        if o.size:
            if size < 0:
                size = tp_peer(c.link.fd, address)
            if size != o.size:
                continue
            at = 0
            while at < size and (address[at] & o.mask[at]) == o.network[at]:
                at += 1
            if at < size:
                continue
        return o.scram
    return False


cdef int set_origins(Entries *t, origins) except -1:
    # those that find no room are Python's, as all that fit none
    cdef Origin *o
    cdef bytes network, mask
    t.origin_count = 0
    for connections, network, mask, scram in origins[:MAX_ORIGINS]:
        o = &t.origins[t.origin_count]
        o.connections = connections
        o.scram = scram
        o.size = len(network)
        assert len(network) == len(mask) <= 16
        memcpy(o.network, <const char *> network, o.size)
        memcpy(o.mask, <const char *> mask, o.size)
        t.origin_count += 1
    return 0
