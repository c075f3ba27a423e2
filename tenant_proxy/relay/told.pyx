"""What clients were told the rows of their statements are, in transaction mode.

PostgreSQL fixes what a prepared statement's rows are when it is parsed, and refuses to run it once they would be
others ("cached plan must not change result type", RevalidateCachedQuery in src/backend/utils/cache/plancache.c):
a client that reads rows as they were described to it would read them wrongly.  A server that gets a client's
statement only after definitions have changed knows nothing of that.  So the proxy keeps, with each client's name for
a statement, a hash of what the client was told, and of which definitions that was.  Where a server has the statement
by other definitions, it is asked for the rows ahead of the client's message, which waits for the answer; if they
are others, the message is refused by PostgreSQL's own words.  Who was told nothing is not asked for.

A statement that the server has by the definitions that its client knows it by costs one comparison.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr

from tenant_proxy.pool.pool cimport (
    ACT_SKIP, DOUBT_ASKED, DOUBT_NONE, DOUBT_TRUE, R_BIND, R_DESCRIBE, Client, ClientStmt, Outstanding, Server,
    ServerStmt, Stmt, ring_at, ring_mark, ring_push,
)
from tenant_proxy.relay.core cimport Burst, Relay, up_other_rows
from tenant_proxy.relay.marks cimport define, definitions
from tenant_proxy.relay.preparing cimport ensure_known, write_close
from tenant_proxy.relay.requests cimport burst_write
from tenant_proxy.relay.statements cimport NAME_BYTES, hash_bytes, server_forget, server_name, stmt_unref
from tenant_proxy.wire.consts cimport XACT_FAILED, put_u32
from tenant_proxy.wire.ptrmap cimport PtrSlot, map_find, map_get

cdef enum:
    # instead of a hash
    NO_ROWS = 1
    UNREADABLE = 2
    HASHES = 3                      # … which are not below this


# --- before a statement is used -------------------------------------------------------


cdef int told_check(Relay e, Client *c, Burst *b, Server *s, ClientStmt *cs, Stmt *t, ServerStmt *ss) noexcept nogil:
    # Of a statement that its server lacks (`ss` NULL), or has by other definitions than its client.
    cdef uint32_t now
    if s.xact_status == XACT_FAILED and s.ring.count == 0 and not s.batch_open:
        # nothing but its end may run, and none is on its way
        return TOLD_GOES
    if cs == NULL:
        return unnamed_check(e, c, b, s, t)
    if not cs.told:
        return TOLD_GOES
    now = definitions(e, c.pool)
    if ss == NULL and cs.generation == now:
        return TOLD_GOES
    if ss != NULL and ss.doubt == DOUBT_ASKED:
        e.pause(&c.link)
        return TOLD_HELD
    if ss != NULL and ss.rows == cs.told:
        cs.generation = ss.generation
        return TOLD_GOES
    if ss != NULL and ss.rows and ss.generation == now:
        up_other_rows(e)
        return TOLD_OTHERWISE
    if ss != NULL and ss.generation != now:
        # it would go by what they were when it was parsed there
        write_close(e, b, s, t)
        server_forget(s, t)
    if not ensure_known(e, c, b, s, t, cs.rewrite, False):
        return TOLD_GOES
    ss = <ServerStmt *> map_get(&s.stmts, t.id)
    ss.doubt = DOUBT_ASKED
    ask(e, c, b, s, t, False)
    ring_mark(&s.ring, cs.rewrite)
    return TOLD_HELD


cdef int unnamed_check(Relay e, Client *c, Burst *b, Server *s, Stmt *t) noexcept nogil:
    # of the unnamed statement, which nobody shares, and of which its client was told
    if s.unnamed_id == t.id:
        if t.doubt == DOUBT_ASKED:
            e.pause(&c.link)
            return TOLD_HELD
        if t.doubt == DOUBT_NONE:
            return TOLD_GOES
        if t.generation == definitions(e, c.pool):
            up_other_rows(e)
            return TOLD_OTHERWISE
        s.unnamed_id = 0
    elif t.doubt == DOUBT_NONE and t.generation == definitions(e, c.pool):
        return TOLD_GOES
    ensure_known(e, c, b, s, t, t.rewrite, True)
    t.generation = definitions(e, c.pool)
    t.doubt = DOUBT_ASKED
    ask(e, c, b, s, t, True)
    ring_mark(&s.ring, t.rewrite)
    return TOLD_HELD


cdef void ask(Relay e, Client *c, Burst *b, Server *s, Stmt *t, bint unnamed) noexcept nogil:
    # by Flush: a Sync would end the client's batch
    cdef char m[6 + NAME_BYTES]
    cdef size_t k = 1 if unnamed else server_name(t, &m[6]) + 1
    m[0] = b'D'
    put_u32(&m[1], <uint32_t> (5 + k))
    m[5] = b'S'
    if unnamed:
        m[6] = 0
    burst_write(e, b, m, 6 + k)
    burst_write(e, b, b"H\0\0\0\4", 5)
    t.refs += 1
    ring_push(&s.ring, R_DESCRIBE, ACT_SKIP, t, 0)
    s.batch_open = 1
    e.pause(&c.link)


# --- what the client is told -----------------------------------------------------------


cdef void tell(Relay e, Client *c, Server *s, ClientStmt *cs, Stmt *t) noexcept nogil:
    # its Describe of a statement: once it knows, it is told nothing else
    if (cs.told if cs != NULL else t.told) != 0:
        ring_push(&s.ring, R_DESCRIBE, ACT_TOLD if cs != NULL else 0, NULL, t.id)
        return
    if cs == NULL:
        t.generation = definitions(e, c.pool)
    t.refs += 1
    ring_push(&s.ring, R_DESCRIBE, 0, t, cs.hash if cs != NULL else 0)


cdef void tell_portal(Client *c, Server *s) noexcept nogil:
    # its Describe of the unnamed portal
    cdef Outstanding *o = ring_at(&s.ring, s.ring.count - 1) if s.ring.count else NULL
    cdef uint64_t hash = o.name_hash if o != NULL and o.request == R_BIND and not o.action & ACT_TOLD else 0
    cdef PtrSlot *slot = map_find(&c.stmts, hash, NULL) if hash else NULL
    cdef Stmt *t = NULL
    if slot != NULL and map_find(&c.stmts, hash, slot) == NULL:
        t = (<ClientStmt *> slot.value).stmt
        t.refs += 1
    ring_push(&s.ring, R_DESCRIBE, 0, t, hash)


# --- what the server answers -----------------------------------------------------------


cdef void described(Relay e, Server *s, Outstanding *o, char *message, size_t total) noexcept nogil:
    # `message` NULL: it returns no rows
    cdef Stmt *t = <Stmt *> o.arg
    cdef ServerStmt *ss = <ServerStmt *> map_get(&s.stmts, t.id)
    cdef uint32_t rows = NO_ROWS if message == NULL else rows_hash(e, message, total)
    cdef ClientStmt *cs
    cdef PtrSlot *slot
    o.arg = NULL
    if o.action & ACT_SKIP and ss != NULL:
        ss.rows = rows
        ss.doubt = DOUBT_NONE
    elif o.action & ACT_SKIP:
        t.doubt = DOUBT_NONE if rows == t.told else DOUBT_TRUE
    elif s.client != NULL and o.name_hash:
        slot = map_find(&s.client.stmts, o.name_hash, NULL)
        while slot != NULL:
            cs = <ClientStmt *> slot.value
            if cs.stmt == t:
                cs.told = rows
                if ss != NULL:
                    cs.generation = ss.generation
            slot = map_find(&s.client.stmts, o.name_hash, slot)
    elif s.client != NULL and t == s.client.unnamed:
        t.told = rows
    stmt_unref(t)


cdef void not_described(Server *s, Outstanding *o) noexcept nogil:
    # an error has come instead, or before
    cdef Stmt *t = <Stmt *> o.arg
    cdef ServerStmt *ss = <ServerStmt *> map_get(&s.stmts, t.id)
    o.arg = NULL
    if o.action & ACT_SKIP:
        if ss != NULL:
            ss.doubt = DOUBT_NONE
        else:
            t.doubt = DOUBT_TRUE
    stmt_unref(t)


cdef void note_stale(Relay e, Server *s, Outstanding *o) noexcept nogil:
    # A server finds a plan outdated, of a statement that its client knows: if definitions have changed without a
    # word, that is known from here on.
    cdef ServerStmt *ss = <ServerStmt *> map_get(&s.stmts, o.name_hash)
    if ss != NULL and s.client != NULL and ss.stmt.generation == definitions(e, s.client.pool):
        define(e, s.client.pool)


cdef void untell(Client *c, Stmt *t) noexcept nogil:
    # it is told anew
    cdef size_t i
    cdef ClientStmt *cs
    if c.stmts.slots == NULL:
        return
    for i in range(c.stmts.mask + 1):
        cs = <ClientStmt *> c.stmts.slots[i].value
        if cs != NULL and cs.stmt == t:
            cs.told = 0


cdef uint32_t rows_hash(Relay e, char *message, size_t total) noexcept nogil:
    # Of a RowDescription, what PostgreSQL compares of it: names, types and their modifiers (equalTupleDescs in
    # src/backend/access/common/tupdesc.c).  Not where columns come from, nor the formats.
    cdef size_t at = 7
    cdef char *end
    cdef uint64_t h = e.seed
    while at < total:
        end = <char *> memchr(message + at, 0, total - at)
        if end == NULL or <size_t> (message + total - end) < 19:
            return UNREADABLE
        h = hash_bytes(h, message + at, end - (message + at))
        # behind table and column: type, its size, its modifier
        h = hash_bytes(h, end + 7, 10)
        at = end - message + 19
    h ^= h >> 32
    return <uint32_t> h if <uint32_t> h >= HASHES else <uint32_t> h + HASHES
