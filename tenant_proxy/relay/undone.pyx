"""Requests that a server skips, as an error has come before them in their batch: nothing of them is done."""

from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport (
    ACT_DISCARD, ACT_FAKE, ACT_REFUSED, ACT_SKIP, R_CLOSE, R_DESCRIBE, R_PARSE, R_QUERY, Client, ClientStmt,
    Outstanding, Server, Stmt, ring_at,
)
from tenant_proxy.relay.core cimport Relay, drop_object
from tenant_proxy.relay.declared cimport ACT_DECLARED, up_declared_answer
from tenant_proxy.relay.statements cimport (
    client_drop_unnamed, client_put_back, client_stmt_free, client_undo, server_forget, stmt_unref,
)
from tenant_proxy.relay.told cimport not_described


cdef void drop_request(Relay e, Server *s, Outstanding *o) noexcept nogil:
    if o.action & ACT_DECLARED:
        up_declared_answer(e, s, NULL, 0)
    if o.action & ACT_DISCARD or (o.request == R_CLOSE and o.action & ACT_SKIP):
        # it still has what was to go, perhaps another client's last values too
        s.close_needed = 1
        s.touched_by = 0
    if o.arg == NULL:
        if o.request == R_PARSE and o.name_hash:
            forget_unnamed(s, o)
        return
    if o.action & ACT_REFUSED or o.request == R_QUERY:
        drop_object(o.arg)
    elif o.request == R_PARSE:
        if s.client != NULL and not (o.action & ACT_SKIP):
            client_undo(s.client, o.name_hash, <Stmt *> o.arg)
            undo_closed(s, o)
        if not (o.action & ACT_FAKE):
            server_forget(s, <Stmt *> o.arg)
        stmt_unref(<Stmt *> o.arg)
    elif o.request == R_DESCRIBE:
        not_described(s, o)
    elif o.request == R_CLOSE and s.client != NULL:
        client_put_back(s.client, <ClientStmt *> o.arg)
    elif o.request == R_CLOSE:
        client_stmt_free(<ClientStmt *> o.arg)
    o.arg = NULL


cdef void undo_closed(Server *s, Outstanding *parse) noexcept nogil:
    # A Close behind a Parse that is dropped with it has the client's name for what was never there.
    cdef uint32_t i
    cdef Outstanding *o
    cdef ClientStmt *cs
    for i in range(s.ring.count):
        o = ring_at(&s.ring, i)
        cs = <ClientStmt *> o.arg
        if (o.request == R_CLOSE and cs != NULL and cs.hash == parse.name_hash and cs.stmt == <Stmt *> parse.arg
                and not cs.confirmed):
            client_stmt_free(cs)
            o.arg = NULL
            return


cdef void forget_unnamed(Server *s, Outstanding *o) noexcept nogil:
    # The Parse of an unnamed statement failed or was skipped; a later one may be under way.
    cdef Client *c = s.client
    if s.unnamed_id == o.name_hash:
        s.unnamed_id = 0
    if c != NULL and c.unnamed != NULL and c.unnamed.id == o.name_hash and not (o.action & ACT_SKIP):
        client_drop_unnamed(c)
