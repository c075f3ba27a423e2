"""How a client has the literals of its statements read: by DateStyle, IntervalStyle, TimeZone and client_encoding.

PostgreSQL turns `'01/02/2020'::date` to a value when the statement is parsed.  So a statement that is prepared
under one client's settings is no other client's whose settings differ.  The server reports all four, and a
client is always told what its own are.  Of those that are not reported (array_nulls, xmloption … :
settings_policy.LITERAL_SETTINGS) it is known who sets them: from then on such a client's statements are its own.
What a function sets of them unseen is not known.

What a server reports comes late for what is sent in one go (SET, and a Parse behind it): such a statement is read in
a way of its own, so that it is no other client's, and anew when it is used later.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp

from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.core cimport Relay, up_encoding
from tenant_proxy.relay.statements cimport hash_bytes
from tenant_proxy.wire.consts cimport B_PARAMETER_STATUS, read_u32

cdef enum:
    HEAD = 5                        # of a message: type and length
    ENCODING = 3


cdef int _which(const char *name, size_t n) noexcept nogil:
    if n == 9 and memcmp(name, b"DateStyle", 9) == 0:
        return 0
    if n == 13 and memcmp(name, b"IntervalStyle", 13) == 0:
        return 1
    if n == 8 and memcmp(name, b"TimeZone", 8) == 0:
        return 2
    if n == 15 and memcmp(name, b"client_encoding", 15) == 0:
        return ENCODING
    return -1


cdef uint64_t reading_of(Relay e, Client *c) noexcept nogil:
    # of a statement that is parsed now
    if not is_unsettled(c.server):
        return c.reading
    e.next_stmt += 1
    return hash_bytes(e.seed + ENCODING + 1, <const char *> &e.next_stmt, sizeof(e.next_stmt))


cdef void reads_alone(Relay e, Client *c) noexcept nogil:
    if not c.reads_alone:
        c.reads_alone = 1
        c.reading ^= hash_bytes(e.seed + ENCODING + 2, <const char *> &c.link.id, sizeof(c.link.id))


cdef void note_reading(Relay e, Client *c, const char *data, size_t n) noexcept nogil:
    # a ParameterStatus that the client is told
    cdef const char *name = data + HEAD
    cdef const char *end = <const char *> memchr(name, 0, n - HEAD)
    cdef int which = _which(name, end - name) if end != NULL else -1
    cdef uint64_t before
    if which < 0:
        return
    before = c.read_by[which]
    c.read_by[which] = hash_bytes(e.seed + which, end + 1, data + n - end - 1)
    c.reading ^= before ^ c.read_by[which]
    if which == ENCODING and (c.codec_bits or n != HEAD + 21 or memcmp(end + 1, b"UTF8", 5) != 0):
        # the texts themselves are read in it
        up_encoding(e, c, end + 1, data + n - end - 2)


cdef void note_readings(Relay e, Client *c, const char *greeting, size_t n) noexcept nogil:
    # all that it is told when it logs in
    cdef size_t size
    if c.pool != NULL and c.pool.group != NULL and c.startup_id:
        # servers are its tenant's, whatever the startup packets of clients say
        c.reading ^= hash_bytes(e.seed + ENCODING + 3, <const char *> &c.startup_id, sizeof(c.startup_id))
    while n > HEAD:
        size = <size_t> read_u32(greeting + 1) + 1
        if size > n or size < HEAD:
            return
        if greeting[0] == B_PARAMETER_STATUS:
            note_reading(e, c, greeting, size)
        greeting += size
        n -= size
