"""From one server to another: what a client had asked of one that refused to become its tenant's.

Nothing of it has run there (relay.ahead), so it is asked again, by the very bytes: a server that was
nobody's knew no statements, so they name none but those that they bring themselves.
"""

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from tenant_proxy.pool.pool cimport (
    ACT_AHEAD, ACT_REFUSED, R_CLOSE, R_DESCRIBE, R_PARSE, R_QUERY, Client, ClientStmt, Outstanding, Replay, Ring, Server,
    Stmt, ring_head, ring_pop,
)
from tenant_proxy.relay.core cimport drop_object
from tenant_proxy.relay.statements cimport client_stmt_free, server_forget_all, stmt_unref
from tenant_proxy.wire.ptrmap cimport PtrMap

cdef enum:
    KEPT_LEFT = 16384           # room that a server is left with for the next


cdef void clear_ring(Server *s) noexcept nogil:
    cdef Outstanding *o = ring_head(&s.ring)
    while o != NULL:
        if o.arg != NULL:
            if o.action & ACT_REFUSED or o.request == R_QUERY:
                drop_object(o.arg)
            elif o.request == R_PARSE or o.request == R_DESCRIBE:
                stmt_unref(<Stmt *> o.arg)
            elif o.request == R_CLOSE:
                client_stmt_free(<ClientStmt *> o.arg)
        ring_pop(&s.ring)
        o = ring_head(&s.ring)


cdef bint kept_room(Server *s, size_t n) noexcept nogil:
    # room for `n` bytes that are on their way; False: no memory
    cdef char *where
    if n <= s.kept_cap:
        return True
    where = <char *> realloc(s.kept, n)
    if where == NULL:
        return False
    s.kept = where
    s.kept_cap = n
    return True


cdef void kept_drop(Server *s) noexcept nogil:
    # its switch is acknowledged
    s.kept_size = 0
    if s.kept_cap > KEPT_LEFT:
        free(s.kept)
        s.kept = NULL
        s.kept_cap = 0


cdef Replay *replay_take(Server *s) noexcept nogil:
    # all that its client has sent; NULL if that was not kept
    cdef Replay *r
    if s.kept == NULL:
        return NULL
    r = <Replay *> calloc(1, sizeof(Replay))
    if r == NULL:
        return NULL
    while s.ring.count and ring_head(&s.ring).action & ACT_AHEAD:
        ring_pop(&s.ring)
    r.ring = s.ring
    memset(&s.ring, 0, sizeof(Ring))
    r.stmts = s.stmts
    memset(&s.stmts, 0, sizeof(PtrMap))
    r.newest = s.newest
    r.oldest = s.oldest
    s.newest = s.oldest = NULL
    r.unnamed_id = s.unnamed_id
    r.batch_open = s.batch_open
    r.copy_in = s.copy_in
    r.settings_changed = s.settings_changed
    r.touched = s.touched
    # what ends a turn is no message
    r.arming = s.arming and not s.turn
    r.bytes = s.kept
    r.start = s.kept_start
    r.size = s.kept_size
    s.kept = NULL
    s.kept_size = s.kept_cap = 0
    return r


cdef void replay_put(Client *c, Server *s) noexcept nogil:
    # The server, which knows no statements and has nothing outstanding, is taken to have been asked; the bytes
    # are still to be sent.
    cdef Replay *r = c.replay
    free(s.ring.items)
    s.ring = r.ring
    memset(&r.ring, 0, sizeof(Ring))
    s.stmts = r.stmts
    memset(&r.stmts, 0, sizeof(PtrMap))
    s.newest = r.newest
    s.oldest = r.oldest
    r.newest = r.oldest = NULL
    s.unnamed_id = r.unnamed_id
    s.batch_open = r.batch_open
    s.copy_in = r.copy_in
    s.settings_changed = r.settings_changed
    s.touched = r.touched
    if r.touched:
        s.touched_by = c.link.id
        c.touched = s.link.id
    s.arming = r.arming


cdef void replay_drop(Client *c) noexcept nogil:
    cdef Server nobody
    cdef Replay *r = c.replay
    if r == NULL:
        return
    memset(&nobody, 0, sizeof(nobody))
    nobody.ring = r.ring
    nobody.stmts = r.stmts
    nobody.newest = r.newest
    nobody.oldest = r.oldest
    clear_ring(&nobody)
    server_forget_all(&nobody)
    free(nobody.ring.items)
    free(r.bytes)
    free(r)
    c.replay = NULL
