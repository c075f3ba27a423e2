"""What servers are taught of prepared statements before clients use them, in transaction mode (relay.statements)."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from tenant_proxy.guard.edits cimport Rewrite
from tenant_proxy.pool.pool cimport (
    ACT_SKIP, R_CLOSE, R_PARSE, R_SYNC, Client, ClientStmt, Server, Stmt, ring_mark, ring_push,
)
from tenant_proxy.relay.core cimport Burst, Relay, rewrite_by, up_execute
from tenant_proxy.relay.marks cimport definitions
from tenant_proxy.relay.requests cimport burst_write
from tenant_proxy.relay.statements cimport (
    NAME_BYTES, client_find, hash_bytes, server_forget, server_knows, server_learn, server_name,
)
from tenant_proxy.wire.consts cimport XACT_FAILED, put_u32


cdef void write_parse(Relay e, Burst *b, const char *name, size_t name_len, const char *body, size_t size) noexcept nogil:
    cdef char m[5]
    m[0] = b'P'
    put_u32(&m[1], <uint32_t> (4 + name_len + 1 + size))
    burst_write(e, b, m, 5)
    burst_write(e, b, name, name_len)
    burst_write(e, b, b"", 1)
    burst_write(e, b, body, size)


cdef void write_named(Relay e, Burst *b, Stmt *t) noexcept nogil:
    cdef char name[NAME_BYTES]
    cdef size_t k = server_name(t, name)
    write_parse(e, b, name, k, t.body, t.size)


cdef void write_close(Relay e, Burst *b, Server *s, Stmt *t) noexcept nogil:
    cdef char m[6 + NAME_BYTES]
    cdef size_t k = server_name(t, &m[6]) + 1
    m[0] = b'C'
    put_u32(&m[1], <uint32_t> (5 + k))
    m[5] = b'S'
    burst_write(e, b, m, 6 + k)
    ring_push(&s.ring, R_CLOSE, ACT_SKIP, NULL, 0)


cdef void make_room(Relay e, Client *c, Burst *b, Server *s) noexcept nogil:
    # at the bound, the least recently used statement leaves the server
    cdef Stmt *t
    while s.stmts.count >= c.pool.max_prepared and s.oldest != NULL:
        t = s.oldest.stmt
        write_close(e, b, s, t)
        server_forget(s, t)
        c.pool.prepared_evictions += 1


cdef bint ensure_known(Relay e, Client *c, Burst *b, Server *s, Stmt *t, Rewrite *r, bint unnamed) noexcept nogil:
    # the server gets the statement ahead of its use if it does not have it
    if unnamed:
        if s.unnamed_id == t.id:
            return True
        write_parse(e, b, b"", 0, t.body, t.size)
        s.unnamed_id = t.id
        ring_push(&s.ring, R_PARSE, ACT_SKIP, NULL, t.id)
    elif not server_knows(s, t):
        make_room(e, c, b, s)
        if server_learn(s, t, definitions(e, c.pool)) != 0:
            return False
        write_named(e, b, t)
        t.refs += 1
        ring_push(&s.ring, R_PARSE, ACT_SKIP, t, 0)
    else:
        return True
    ring_mark(&s.ring, r)
    c.pool.server_parses += 1
    s.batch_open = 1
    return True


cdef Rewrite *executed(Relay e, Client *c, Burst *b, Server *s, const char *sql, size_t n, const char *tail,
                       size_t tail_size, bint alone) noexcept nogil:
    # A text with EXECUTE: where that names statements which the client has made by Parse, the server is taught them,
    # and the text names them as the server does.  NULL: it names none.  `alone`: a simple query follows.
    with gil:
        return _executed(e, c, b, s, sql, n, tail, tail_size, alone)


cdef Rewrite *_executed(Relay e, Client *c, Burst *b, Server *s, const char *sql, size_t n, const char *tail,
                        size_t tail_size, bint alone) noexcept:
    cdef ClientStmt *cs
    cdef Rewrite *r
    cdef bint taught = False
    cdef bytes name
    found = up_execute(e, c, sql, n)
    if found is None:
        return NULL
    try:
        r = rewrite_by(c, found[0], sql, n, tail, tail_size)
    except Exception:
        e.log.exception("renaming what EXECUTE names")
        return NULL
    for name in found[1]:
        cs = client_find(c, hash_bytes(e.seed, name, len(name)), name, len(name))
        # a transaction that has failed takes no Parse, and the statement fails anyway
        if cs != NULL and s.xact_status != XACT_FAILED and not server_knows(s, cs.stmt):
            taught = ensure_known(e, c, b, s, cs.stmt, cs.rewrite, False)
    if taught and alone:
        burst_write(e, b, b"S\0\0\0\x04", 5)
        ring_push(&s.ring, R_SYNC, ACT_SKIP, NULL, 0)
        s.batch_open = 0
    return r
