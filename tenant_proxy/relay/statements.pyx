"""Prepared statements that outlive a pairing: texts, clients' names for them, servers that know them.

A pool's table is its own, so one tenant's statements are never found by another's.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from tenant_proxy.guard.edits cimport Rewrite, rewrite_unref
from tenant_proxy.pool.pool cimport DOUBT_NONE
from tenant_proxy.relay.marks cimport definitions
from tenant_proxy.wire.ptrmap cimport PtrSlot, map_add, map_find, map_free, map_get, map_remove


cdef extern from *:
    """
    static inline unsigned long long tp_fold(unsigned long long a, unsigned long long b) {
        unsigned __int128 r = (unsigned __int128)a * b;
        return (unsigned long long)r ^ (unsigned long long)(r >> 64);
    }
    """
    uint64_t fold "tp_fold"(uint64_t a, uint64_t b) nogil


cdef uint64_t hash_bytes(uint64_t seed, const char *data, size_t n) noexcept nogil:
    # Multiply and fold, eight bytes at a time; what it finds is always compared whole.  The seed is in every
    # factor: else clients could make texts that collide whatever it is.
    cdef uint64_t h = seed ^ (n * <uint64_t> 0x9E3779B97F4A7C15)
    cdef uint64_t k = fold(seed ^ <uint64_t> 0xD6E8FEB86659FD93, <uint64_t> 0xA0761D6478BD642F)
    cdef uint64_t w
    while n >= 8:
        memcpy(&w, data, 8)
        h = fold(h ^ w, k ^ h)
        data += 8
        n -= 8
    w = 0
    memcpy(&w, data, n)
    return fold(fold(h ^ w, k), k ^ <uint64_t> 0x9E3779B97F4A7C15)


cdef size_t server_name(Stmt *t, char *out) noexcept nogil:
    # "tp_" and the id in hexadecimal; returns the length without the NUL
    cdef char digits[16]
    cdef int i = 0
    cdef size_t n = 3
    cdef uint64_t v = t.id
    memcpy(out, b"tp_", 3)
    while True:
        digits[i] = b"0123456789abcdef"[v & 15]
        i += 1
        v >>= 4
        if v == 0:
            break
    while i > 0:
        i -= 1
        out[n] = digits[i]
        n += 1
    out[n] = 0
    return n


cdef bint may_name(const char *name, size_t n) noexcept nogil:
    # Whether a client may mean a statement by this name that it has made in SQL.  Those of the proxy are no client's
    # (guard/statements.py refuses their names in SQL): values for them would be judged by nobody.
    cdef size_t i
    if n == 0:
        return False
    if n < 4 or memcmp(name, b"tp_", 3) != 0:
        return True
    if n == 7 and memcmp(name, b"tp_none", 7) == 0 or n == 10 and memcmp(name, b"tp_refused", 10) == 0:
        return False
    if n > 7 and memcmp(name, b"tp_turn", 7) == 0:
        for i in range(7, n):
            if not 48 <= name[i] <= 57:
                return True
        return False
    for i in range(3, n):
        if not (48 <= name[i] <= 57 or 97 <= name[i] <= 102):
            return True
    return False


# --- texts --------------------------------------------------------------------


cdef Stmt *stmt_new(Relay e, Pool *p, const char *body, size_t n, uint32_t effects) noexcept nogil:
    cdef Stmt *t = <Stmt *> malloc(sizeof(Stmt) + n)
    if t == NULL:
        return NULL
    e.next_stmt += 1
    p.owner.stmt_bytes += sizeof(Stmt) + n
    t.pool = p
    t.id = e.next_stmt
    t.hash = 0
    t.refs = 1
    t.effects = effects
    t.size = <uint32_t> n
    t.interned = 0
    t.generation = 0
    t.reading = 0
    t.scope = 0
    t.told = 0
    t.doubt = DOUBT_NONE
    t.rewrite = NULL
    t.body = <char *> t + sizeof(Stmt)
    memcpy(t.body, body, n)
    return t


cdef Stmt *stmt_intern(
    Relay e, Pool *p, const char *body, size_t n, uint32_t effects, uint64_t reading
) noexcept nogil:
    # the pool's Stmt of this text and these types, read so, with a reference for the caller
    cdef uint64_t h = hash_bytes(e.seed, body, n) ^ reading
    cdef PtrSlot *slot = map_find(&p.stmts, h, NULL)
    cdef uint32_t now = definitions(e, p)
    cdef Stmt *t
    while slot != NULL:
        t = <Stmt *> slot.value
        if t.size == n and t.reading == reading and memcmp(t.body, body, n) == 0:
            if t.generation != now:
                # servers that know it may have planned it before definitions were changed, and would say so
                stmt_retire(t)
                break
            t.refs += 1
            t.effects |= effects
            p.prepared_hits += 1
            return t
        slot = map_find(&p.stmts, h, slot)
    p.prepared_misses += 1
    t = stmt_new(e, p, body, n, effects)
    if t == NULL:
        return NULL
    t.hash = h
    t.generation = now
    t.reading = reading
    if map_add(&p.stmts, h, t) == 0:
        t.interned = 1
    return t


cdef void stmt_retire(Stmt *t) noexcept nogil:
    # Not to be found any more: the next Parse of this text makes a new one (its plan became invalid).
    cdef PtrSlot *slot
    if not t.interned:
        return
    t.interned = 0
    slot = map_find(&t.pool.stmts, t.hash, NULL)
    while slot != NULL:
        if slot.value == t:
            map_remove(&t.pool.stmts, slot)
            return
        slot = map_find(&t.pool.stmts, t.hash, slot)


cdef void stmt_unref(Stmt *t) noexcept nogil:
    t.refs -= 1
    if t.refs == 0:
        stmt_retire(t)
        t.pool.owner.stmt_bytes -= sizeof(Stmt) + t.size
        if t.rewrite != NULL:
            rewrite_unref(t.rewrite)
        free(t)


# --- clients' names -----------------------------------------------------------

cdef enum:
    LEAST_BYTES = 1048576           # of a client's named statements together, also where one may have less


cdef size_t statement_bytes(Relay e) noexcept nogil:
    # that the named statements of a client may hold
    return e.max_statement if e.max_statement > LEAST_BYTES else LEAST_BYTES


cdef inline size_t name_bytes(size_t n) noexcept nogil:
    # that a client's name for a statement takes, with its place in the table
    return sizeof(ClientStmt) + n + 2 * sizeof(PtrSlot)


cdef bint may_keep(Relay e, Client *c, size_t size) noexcept nogil:
    # whether a client may have one more named statement, so large with its name
    return c.stmts.count < MAX_CLIENT_STATEMENTS and c.stmt_bytes + size <= statement_bytes(e)


cdef ClientStmt *client_find(Client *c, uint64_t hash, const char *name, size_t n) noexcept nogil:
    cdef PtrSlot *slot = map_find(&c.stmts, hash, NULL)
    cdef ClientStmt *cs
    while slot != NULL:
        cs = <ClientStmt *> slot.value
        if cs.name_len == n and memcmp(&cs.name[0], name, n) == 0:
            return cs
        slot = map_find(&c.stmts, hash, slot)
    return NULL


cdef int client_add(Client *c, uint64_t hash, const char *name, size_t n, Stmt *t, uint32_t scope,
                    Rewrite *rewrite, uint64_t now_us) noexcept nogil:
    # -1: no memory
    cdef ClientStmt *cs
    cdef size_t size = n + t.size + (rewrite.size if rewrite != NULL else 0)
    cs = <ClientStmt *> malloc(sizeof(ClientStmt) + n)
    if cs == NULL:
        return -1
    cs.hash = hash
    cs.stmt = t
    cs.confirmed = 0
    cs.told = 0
    cs.generation = t.generation
    cs.made_us = now_us
    cs.scope = scope
    cs.rewrite = rewrite
    cs.name_len = <uint32_t> n
    memcpy(&cs.name[0], name, n)
    if map_add(&c.stmts, hash, cs) != 0:
        free(cs)
        return -1
    t.refs += 1
    if rewrite != NULL:
        rewrite.refs += 1
    c.stmt_bytes += size
    c.pool.owner.stmt_bytes += name_bytes(n)
    return 0


cdef void client_replace(Client *c, ClientStmt *cs, Stmt *t, uint32_t scope, Rewrite *rewrite) noexcept nogil:
    # The name stands for another text from here on; takes over the caller's references.
    cdef Stmt *before = cs.stmt
    c.stmt_bytes -= cs.stmt.size + _own_size(cs)
    if cs.rewrite != NULL:
        rewrite_unref(cs.rewrite)
    cs.stmt = t
    cs.scope = scope
    cs.rewrite = rewrite
    c.stmt_bytes += cs.stmt.size + _own_size(cs)
    stmt_unref(before)


cdef inline size_t _own_size(ClientStmt *cs) noexcept nogil:
    return cs.rewrite.size if cs.rewrite != NULL else 0


cdef void client_stmt_free(ClientStmt *cs) noexcept nogil:
    if cs.name_len:
        cs.stmt.pool.owner.stmt_bytes -= name_bytes(cs.name_len)
    if cs.rewrite != NULL:
        rewrite_unref(cs.rewrite)
    stmt_unref(cs.stmt)
    free(cs)


cdef void client_forget(Client *c, ClientStmt *cs) noexcept nogil:
    client_take(c, cs)
    client_stmt_free(cs)


cdef void client_take(Client *c, ClientStmt *cs) noexcept nogil:
    # the name is the client's no more; what it stood for is the caller's
    cdef PtrSlot *slot = map_find(&c.stmts, cs.hash, NULL)
    while slot != NULL:
        if slot.value == cs:
            map_remove(&c.stmts, slot)
            break
        slot = map_find(&c.stmts, cs.hash, slot)
    c.stmt_bytes -= cs.name_len + cs.stmt.size + _own_size(cs)


cdef ClientStmt *client_take_unnamed(Client *c) noexcept nogil:
    # As `client_take`; NULL: there is none, or no memory to keep it.
    cdef ClientStmt *cs = NULL
    if c.unnamed != NULL:
        cs = <ClientStmt *> calloc(1, sizeof(ClientStmt))
    if cs == NULL:
        client_drop_unnamed(c)
        return NULL
    cs.stmt = c.unnamed
    c.unnamed = NULL
    return cs


cdef void close_here(Relay e, Client *c, ClientStmt *cs, bint unnamed) noexcept nogil:
    # a Close of a client that has no server, so nothing that has failed makes one skip it
    if cs != NULL:
        client_take(c, cs)
        client_stmt_free(cs)
    elif unnamed:
        client_drop_unnamed(c)
    e.send(&c.link, b"3\0\0\0\4", 5)


cdef void client_put_back(Client *c, ClientStmt *cs) noexcept nogil:
    # a Close that the server has skipped
    if cs.name_len == 0 and c.unnamed == NULL:
        c.unnamed = cs.stmt
        free(cs)
        return
    if cs.name_len == 0:
        client_stmt_free(cs)
        return
    if map_add(&c.stmts, cs.hash, cs) != 0:
        client_stmt_free(cs)
        return
    c.stmt_bytes += cs.name_len + cs.stmt.size + _own_size(cs)


cdef void client_confirm(Client *c, uint64_t hash, Stmt *t) noexcept nogil:
    cdef PtrSlot *slot = map_find(&c.stmts, hash, NULL)
    while slot != NULL:
        if (<ClientStmt *> slot.value).stmt == t:
            (<ClientStmt *> slot.value).confirmed = 1
        slot = map_find(&c.stmts, hash, slot)


cdef void client_undo(Client *c, uint64_t hash, Stmt *t) noexcept nogil:
    # the Parse failed or was skipped after an error
    cdef PtrSlot *slot = map_find(&c.stmts, hash, NULL)
    while slot != NULL:
        if (<ClientStmt *> slot.value).stmt == t and not (<ClientStmt *> slot.value).confirmed:
            client_forget(c, <ClientStmt *> slot.value)
            return
        slot = map_find(&c.stmts, hash, slot)


cdef void client_forget_all(Client *c) noexcept nogil:
    cdef size_t i
    cdef ClientStmt *cs
    if c.stmts.slots != NULL:
        for i in range(c.stmts.mask + 1):
            cs = <ClientStmt *> c.stmts.slots[i].value
            if cs != NULL:
                client_stmt_free(cs)
    map_free(&c.stmts)
    c.stmt_bytes = 0


cdef void client_drop_unnamed(Client *c) noexcept nogil:
    if c.unnamed != NULL:
        stmt_unref(c.unnamed)
        c.unnamed = NULL


# --- servers' knowledge, most recently used first ------------------------------


cdef void _unlink(Server *s, ServerStmt *ss) noexcept nogil:
    if ss.newer != NULL:
        ss.newer.older = ss.older
    else:
        s.newest = ss.older
    if ss.older != NULL:
        ss.older.newer = ss.newer
    else:
        s.oldest = ss.newer


cdef void _link(Server *s, ServerStmt *ss) noexcept nogil:
    ss.newer = NULL
    ss.older = s.newest
    if s.newest != NULL:
        s.newest.newer = ss
    else:
        s.oldest = ss
    s.newest = ss


cdef ServerStmt *server_find(Server *s, Stmt *t) noexcept nogil:
    # used most recently now; NULL: it does not know it
    cdef ServerStmt *ss = <ServerStmt *> map_get(&s.stmts, t.id)
    if ss != NULL and s.newest != ss:
        _unlink(s, ss)
        _link(s, ss)
    return ss


cdef bint server_knows(Server *s, Stmt *t) noexcept nogil:
    return server_find(s, t) != NULL


cdef int server_learn(Server *s, Stmt *t, uint32_t generation) noexcept nogil:
    cdef ServerStmt *ss = <ServerStmt *> malloc(sizeof(ServerStmt))
    if ss == NULL or map_add(&s.stmts, t.id, ss) != 0:
        free(ss)
        return -1
    ss.stmt = t
    ss.generation = generation
    ss.rows = 0
    ss.doubt = DOUBT_NONE
    t.refs += 1
    _link(s, ss)
    return 0


cdef void server_forget(Server *s, Stmt *t) noexcept nogil:
    cdef PtrSlot *slot = map_find(&s.stmts, t.id, NULL)
    cdef ServerStmt *ss
    if slot == NULL:
        return
    ss = <ServerStmt *> slot.value
    map_remove(&s.stmts, slot)
    _unlink(s, ss)
    free(ss)
    stmt_unref(t)


cdef void server_forget_all(Server *s) noexcept nogil:
    while s.newest != NULL:
        server_forget(s, s.newest.stmt)
    map_free(&s.stmts)
    s.unnamed_id = 0
