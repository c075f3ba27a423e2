"""Clients' extended-query messages: Parse, Bind, Describe, Execute, Close (docs 54.2.3, Extended Query).

In session mode they go on as they are.  In transaction mode a statement's text is the pool's, under a
name of its own on every server that knows it: see relay.statements.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, strlen

from tenant_proxy.guard.edits cimport Edits, Rewrite, rewrite_new, rewrite_unref
from tenant_proxy.pool.pool cimport (
    ACT_FAKE, ACT_SKIP, R_BIND, R_CLOSE, R_DESCRIBE, R_EXECUTE, R_PARSE, RUNS, RUNS_UNNAMED, Client, ClientStmt, Server, ServerStmt, Stmt,
    ring_at, ring_mark, ring_push,
)
from tenant_proxy.relay.begins cimport batch_without_server, keep_bound, keep_executed
from tenant_proxy.relay.core cimport (
    BIND_AS_IS, BIND_CHANGED, BIND_REFUSED, EFF_ALLOWED, EFF_BEGINS, EFF_BOUND, EFF_CHANNELS, EFF_DEALLOCATES, EFF_DISCARDS_ALL,
    EFF_EXECUTES, EFF_LAST, EFF_LISTENS, EFF_REWRITES, EFF_SELF, EFF_STARTS, EFF_XACT_CONTROL, TOLD_HERE, V_FORMAT, V_MEMORY, Burst, Relay, refusal_data, refusal_size, up_bind, up_deallocate,
    up_executed, up_own_edits, up_existing_statement, up_missing_statement, up_other_rows, up_parameter_types, up_refuse_prepared, up_refuse_size,
)
from tenant_proxy.relay.declared cimport DECLARED_GOES, DECLARED_HELD, declared_check, declared_elsewhere
from tenant_proxy.relay.hearing cimport (
    LISTEN_GOES, LISTEN_HELD, for_ear, heard_before, listen_check, listens_still,
)
from tenant_proxy.relay.lanes cimport LANE_GOES, LANE_HELD, elsewhere, lane_check
from tenant_proxy.relay.holdings cimport SMALL_BYTES, may_prepare
from tenant_proxy.relay.portals cimport PORTAL_GOES, PORTAL_HELD, portal_check
from tenant_proxy.relay.preparing cimport ensure_known, executed, make_room, write_close, write_named, write_parse
from tenant_proxy.relay.requests cimport (
    HOLD, apply_effects, burst_forward, burst_write, judge, may_pin, no_server, refuse_extended, server_of, stream,
    unless_it_grows, violation,
)
from tenant_proxy.relay.readings cimport is_unsettled, reading_of
from tenant_proxy.relay.rewriting cimport (
    is_noted_bound, judge_noted, note_portal, note_statement, noted_portal, noted_statement, rewritten,
)
from tenant_proxy.relay.sequences cimport before_touch, own_values, prefer_own
from tenant_proxy.relay.stale cimport is_first
from tenant_proxy.relay.statements cimport (
    NAME_BYTES, client_add, client_drop_unnamed, client_find, client_replace, client_take, client_take_unnamed, close_here,
    hash_bytes, may_keep, may_name, server_find, server_forget_all, server_knows, server_learn, server_name, stmt_intern,
    stmt_new, stmt_unref,
)
from tenant_proxy.relay.told cimport ACT_TOLD, TOLD_GOES, TOLD_HELD, may_be_other, tell, tell_portal, told_check
from tenant_proxy.wire.consts cimport F_CLOSE, XACT_FAILED, put_u32

cdef enum:
    NAMES_LIMIT = 65536             # portal and statement name of a Bind together
    BOUND_LIMIT = 16777216          # a Bind whose values are judged


cdef Edits NO_EDITS
NO_EDITS.count = NO_EDITS.bytes = 0
NO_EDITS.list = NULL
NO_EDITS.texts = NULL


cdef ssize_t on_parse(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    cdef int lane
    cdef Server *s
    cdef uint32_t effects
    cdef char *end = p + total
    cdef char *name = p + 5
    cdef char *sql
    cdef char *tail
    cdef size_t name_len, size
    cdef ssize_t k
    cdef bint replaces
    cdef Rewrite *r = NULL
    if total > e.max_statement:
        up_refuse_size(e, c, total)
        return refuse_extended(e, c, b, total)
    if n < total:
        c.link.need = total
        return 0
    sql = <char *> memchr(name, 0, total - 5)
    if sql == NULL:
        return violation(e, c, V_FORMAT, 0)
    name_len = sql - name
    sql += 1
    tail = <char *> memchr(sql, 0, end - sql) if sql < end else NULL
    if tail == NULL or end - tail < 3:
        return violation(e, c, V_FORMAT, 0)
    size = tail - sql
    if <size_t> (end - tail - 3) != 4 * ((<size_t> <uint8_t> tail[1] << 8) | <uint8_t> tail[2]):
        return violation(e, c, V_FORMAT, 0)
    effects = judge(e, c, sql, size)
    if not effects & EFF_ALLOWED:
        return no_server(c) if effects else refuse_extended(e, c, b, total)
    if effects & EFF_BOUND and end - tail > 3 and not up_parameter_types(e, c, sql, size, tail + 3, end - tail - 3):
        c.pool.rejected += 1
        return refuse_extended(e, c, b, total)
    if (effects & EFF_EXECUTES or (effects & EFF_BOUND and name_len)) and not up_executed(
        e, c, effects, sql, size, name, name_len
    ):
        c.pool.rejected += 1
        return refuse_extended(e, c, b, total)
    if name_len == 0 and end - tail == 3 and end - sql <= SMALL_BYTES:
        k = batch_without_server(e, c, effects, sql, size, end, n - total)
        if k:
            # a Bind may still come for it
            client_drop_unnamed(c)
            c.unnamed = stmt_new(e, c.pool, sql, end - sql, effects)
            if c.unnamed != NULL:
                c.unnamed.scope = c.pool.scope | c.codec_bits
            return total + k
    if effects & TOLD_HERE:
        lane = listen_check(e, c, sql, size, &effects, True)
        if lane != LISTEN_GOES:
            return no_server(c) if lane == LISTEN_HELD else refuse_extended(e, c, b, total)
    if effects & EFF_LAST and c.server == NULL:
        prefer_own(e, c)
    if c.pool.group != NULL:
        lane = lane_check(e, c, effects | elsewhere(e, c, effects, end, n, total))
        if lane != LANE_GOES:
            return no_server(c) if lane == LANE_HELD else refuse_extended(e, c, b, total)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    if end - tail > 3:
        lane = declared_check(e, c, b, s, tail + 3, end - tail - 3, name_len == 0)
        if lane != DECLARED_GOES:
            return no_server(c) if lane == DECLARED_HELD else refuse_extended(e, c, b, total)
    if effects & TOLD_HERE:
        r = for_ear(e, c, s, effects, sql, size, tail, end - tail)
        if r == NULL:
            return refuse_extended(e, c, b, total)
    elif effects & EFF_EXECUTES and c.stmts.count:
        r = executed(e, c, b, s, sql, size, tail, end - tail, 0)
    if r != NULL:
        pass
    elif effects & EFF_REWRITES:
        r = rewritten(e, c, sql, size, tail, end - tail)
        if r == NULL:
            return refuse_extended(e, c, b, total)
    elif effects & EFF_BOUND and not c.tracks:
        r = rewrite_new(&NO_EDITS, 0, sql, size, NULL, 0, tail, end - tail)
        if r == NULL:
            return violation(e, c, V_MEMORY, 0)
    if c.tracks:
        k = parse_tracked(e, c, b, s, p, total, name_len, sql, size, effects, r)
    else:
        k = total
        if r != NULL:
            r.bound = effects & EFF_BOUND != 0
        replaces = name_len == 0 and is_fresh(s)
        if replaces and is_noted_bound(e, c, name, 0):
            # A Parse may fail before the server has dropped the one that is there (a cancel that comes as it begins,
            # characters that it has not), and Bind would find that; a Close can't
            burst_write(e, b, b"C\0\0\0\6S\0", 7)
            ring_push(&s.ring, R_CLOSE, ACT_SKIP, NULL, 0)
        if note_statement(e, c, name, name_len, r, replaces) != 0:
            rewrite_unref(r)
            up_refuse_prepared(e, c)
            return refuse_extended(e, c, b, total)
        apply_effects(e, c, s, effects, sql, size)
        # the unnamed statement is no one else's either
        s.dirty = 1
        s.batch_open = 1
        ring_push(&s.ring, R_PARSE, 0, NULL, 0)
        if r != NULL:
            ring_mark(&s.ring, r)
            write_parse(e, b, name, name_len, r.result, r.result_size + (end - tail))
        else:
            burst_forward(e, b, p, total)
    if r != NULL:
        rewrite_unref(r)
    return k


cdef inline bint is_fresh(Server *s) noexcept nogil:
    # what comes next is the first of its batch, so no error before it can make the server skip it
    return s.ring.count == 0 and not s.batch_open and not s.skipping


cdef ssize_t parse_tracked(Relay e, Client *c, Burst *b, Server *s, char *p, size_t total, size_t name_len,
                           char *sql, size_t size, uint32_t effects, Rewrite *r) noexcept nogil:
    # transaction mode: the text gets a name of the pool's on whatever server the client has
    cdef char *name = p + 5
    cdef char *body = sql if r == NULL else r.result
    cdef size_t body_size = p + total - sql
    cdef uint32_t scope = c.pool.scope | c.codec_bits
    cdef uint64_t hash = 0
    cdef Stmt *t
    cdef bint known
    if r != NULL:
        body_size = r.result_size + (body_size - size)
    if name_len:
        hash = hash_bytes(e.seed, name, name_len)
        if client_find(c, hash, name, name_len) != NULL:
            up_existing_statement(e, name, name_len)
            return refuse_extended(e, c, b, total)
        if not may_keep(e, c, name_len + body_size + (r.size if r != NULL else 0)):
            up_refuse_prepared(e, c)
            return refuse_extended(e, c, b, total)
    if (name_len or body_size > SMALL_BYTES) and not may_prepare(e, c, b, s, body_size):
        up_refuse_prepared(e, c)
        return refuse_extended(e, c, b, total)
    c.pool.client_parses += 1
    before_touch(e, c, b, s, effects, False)
    s.batch_open = 1
    if not name_len:
        # kept, since the next batch may meet another server
        client_drop_unnamed(c)
        if effects & EFF_DEALLOCATES:
            return parse_deallocate(e, c, b, s, p, sql, size, total, effects)
        t = c.unnamed = stmt_new(e, c.pool, body, body_size, effects)
        if t == NULL:
            return violation(e, c, V_MEMORY, 0)
        t.scope = scope
        s.unnamed_id = t.id
        ring_push(&s.ring, R_PARSE, 0, NULL, t.id)
        if r != NULL:
            t.rewrite = r
            r.refs += 1
            ring_mark(&s.ring, r)
            write_parse(e, b, p, 0, body, body_size)
        else:
            burst_forward(e, b, p, total)
        return total
    t = stmt_intern(e, c.pool, body, body_size, effects, reading_of(e, c))
    if t == NULL:
        return violation(e, c, V_MEMORY, 0)
    if client_add(c, hash, name, name_len, t, scope, r, e.now_us) != 0:
        stmt_unref(t)
        return violation(e, c, V_MEMORY, 0)
    known = server_knows(s, t)
    if known and (s.xact_status != XACT_FAILED or effects & EFF_XACT_CONTROL):
        ring_push(&s.ring, R_PARSE, ACT_FAKE, t, hash)
    else:
        if known:
            # whether the server fails it, as its transaction has, or not: it has it exactly if this Parse works
            write_close(e, b, s, t)
        else:
            make_room(e, c, b, s)
            server_learn(s, t, t.generation)
        write_named(e, b, t)
        c.pool.server_parses += 1
        # the ring takes over stmt_intern's reference
        ring_push(&s.ring, R_PARSE, 0, t, hash)
        ring_mark(&s.ring, r)
    return total


cdef ssize_t parse_deallocate(Relay e, Client *c, Burst *b, Server *s, char *p, char *sql, size_t size,
                              size_t total, uint32_t effects) noexcept nogil:
    # DEALLOCATE in the extended protocol: the client's names are forgotten here, and the server is given
    # a statement of the proxy's to deallocate, so that the reply and its errors are the server's own.
    cdef char m[16]
    cdef int how = up_deallocate(e, c, sql, size, False)
    if how != 1:
        if how == 2:
            server_forget_all(s)
            s.close_needed = 1
        c.unnamed = stmt_new(e, c.pool, sql, p + total - sql, effects)
        if c.unnamed == NULL:
            return violation(e, c, V_MEMORY, 0)
        s.unnamed_id = c.unnamed.id
        ring_push(&s.ring, R_PARSE, 0, NULL, c.unnamed.id)
        burst_forward(e, b, p, total)
        return total
    # left by one that was never executed
    m[0] = b'C'
    put_u32(&m[1], 4 + 1 + 8)
    burst_write(e, b, m, 5)
    burst_write(e, b, b"Stp_none\0", 9)
    ring_push(&s.ring, R_CLOSE, ACT_SKIP, NULL, 0)
    m[0] = b'P'
    put_u32(&m[1], 4 + 8 + 7 + 2)
    burst_write(e, b, m, 5)
    burst_write(e, b, b"tp_none\0SELECT\0\0\0", 17)
    ring_push(&s.ring, R_PARSE, ACT_SKIP, NULL, 0)
    put_u32(&m[1], 4 + 1 + 19 + 2)
    burst_write(e, b, m, 5)
    burst_write(e, b, b"\0DEALLOCATE tp_none\0\0\0", 22)
    c.unnamed = stmt_new(e, c.pool, b"DEALLOCATE tp_none\0\0\0", 21, EFF_ALLOWED)
    if c.unnamed == NULL:
        return violation(e, c, V_MEMORY, 0)
    # not to be judged: the guard lets no client name it
    c.unnamed.scope = c.pool.scope | c.codec_bits
    s.unnamed_id = c.unnamed.id
    ring_push(&s.ring, R_PARSE, 0, NULL, 0)
    return total


cdef ssize_t on_bind(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    cdef int lane
    cdef Server *s
    cdef size_t here = n if n < total else total
    cdef char *portal = p + 5
    cdef char *name
    cdef char *rest
    cdef size_t name_len, k, look
    cdef ClientStmt *cs
    cdef ServerStmt *ss
    cdef Stmt *t
    cdef Rewrite *r
    cdef Rewrite *plain
    cdef int how
    cdef bint first
    cdef char m[5 + NAME_BYTES]
    if not c.tracks and not c.rewrites.count:
        if n < 6:
            c.link.need = 6
            return 0
        s = server_of(e, c)
        if s == NULL:
            return no_server(c)
        s.batch_open = 1
        s.batch_runs |= RUNS if p[5] else RUNS | RUNS_UNNAMED
        ring_push(&s.ring, R_BIND, 0, NULL, 0)
        note_portal(e, c, NULL, 0, NULL)
        return stream(e, c, b, p, n, total)
    # the names must be here; parameters may follow in any number of pieces
    look = here if here < NAMES_LIMIT else NAMES_LIMIT
    name = <char *> memchr(portal, 0, look - 5)
    rest = <char *> memchr(name + 1, 0, p + look - name - 1) if name != NULL else NULL
    if rest == NULL:
        if here == total or look == NAMES_LIMIT:
            return violation(e, c, V_FORMAT, 0)
        c.link.need = total if total < NAMES_LIMIT else NAMES_LIMIT
        return 0
    name += 1
    name_len = rest - name
    rest += 1
    if not c.tracks:
        return bind_noted(e, c, b, p, n, total, portal, name, rest)
    cs = NULL
    if name_len:
        cs = client_find(c, hash_bytes(e.seed, name, name_len), name, name_len)
        t = read_anew(e, c, cs) if cs != NULL else NULL
    else:
        t = c.unnamed
    if t != NULL and is_dated(c, cs, t):
        k = judge_anew(e, c, cs)
        if k != 1:
            return no_server(c) if k else refuse_extended(e, c, b, total)
        t = cs.stmt if cs != NULL else c.unnamed
    if c.pool.full and t != NULL and not unless_it_grows(e, c, t.effects | EFF_ALLOWED):
        return refuse_extended(e, c, b, total)
    if t == NULL and not (c.pinned and may_name(name, name_len)):
        up_missing_statement(e, name, name_len)
        return refuse_extended(e, c, b, total)
    if t != NULL and not may_pin(e, c, t.effects):
        return refuse_extended(e, c, b, total)
    if t != NULL and t.effects & EFF_LAST and c.server == NULL:
        prefer_own(e, c)
    if t != NULL and t.effects & EFF_LISTENS:
        how = listens_still(e, c, cs.rewrite if cs != NULL else t.rewrite)
        if how != LISTEN_GOES:
            return no_server(c) if how == LISTEN_HELD else refuse_extended(e, c, b, total)
    if c.pool.group != NULL:
        lane = lane_check(e, c, 0 if t == NULL else t.effects | elsewhere(e, c, t.effects, p + total, n, total))
        if lane != LANE_GOES:
            return no_server(c) if lane == LANE_HELD else refuse_extended(e, c, b, total)
    s = server_of(e, c)
    if s == NULL or (c.listens and t != NULL and not heard_before(e, c, s, t.effects)):
        return no_server(c)
    ss = server_find(s, t) if cs != NULL else NULL
    if t != NULL and may_be_other(cs, ss, t):
        how = told_check(e, c, b, s, cs, t, ss)
        if how != TOLD_GOES:
            return no_server(c) if how == TOLD_HELD else refuse_extended(e, c, b, total)
    if c.began != NULL or t != NULL and t.effects & (EFF_BEGINS | EFF_STARTS):
        keep_bound(c, t, (NULL if t == NULL else cs.rewrite if cs != NULL else t.rewrite) != NULL, name - portal > 1)
    how = BIND_AS_IS
    if t != NULL and t.effects & EFF_BOUND:
        if total > BOUND_LIMIT:
            up_refuse_size(e, c, total)
            return refuse_extended(e, c, b, total)
        if n < total:
            c.link.need = total
            return 0
        r = cs.rewrite if cs != NULL else t.rewrite
        how = up_bind(e, c, t.body if r == NULL else r.text, strlen(t.body) if r == NULL else r.size,
                      rest, p + total - rest)
        if how == BIND_REFUSED:
            c.pool.rejected += 1
            return refuse_extended(e, c, b, total)
    c.pool.binds += 1
    if t != NULL and not t.effects & EFF_LAST:
        before_touch(e, c, b, s, t.effects, False)
    elif t != NULL:
        c.pool.asks_last = 1
        own_values(e, c, b, s, False)
    first = cs != NULL and not cs.told and is_first(e, b, s)
    s.batch_open = 1
    s.batch_runs |= RUNS if name - portal > 1 else RUNS | RUNS_UNNAMED
    if t == NULL:
        # of a pinned client: made by SQL PREPARE on its own server
        ring_push(&s.ring, R_BIND, 0, NULL, 0)
        return stream(e, c, b, p, n, total)
    r = cs.rewrite if cs != NULL else t.rewrite
    if t.effects & EFF_EXECUTES and r != NULL:
        # what it names was made known to the server that it was parsed on
        plain = executed(e, c, b, s, r.text, r.size, b"", 1, 0)
        if plain != NULL:
            rewrite_unref(plain)
    if (ss == NULL or t.effects & EFF_EXECUTES) and not ensure_known(e, c, b, s, t, r, name_len == 0):
        return violation(e, c, V_MEMORY, 0)
    if first and e.batch_size == 0:
        b.knows = t.id
    apply_effects(e, c, s, t.effects, t.body if r == NULL else r.text, t.size if r == NULL else r.size)
    if t.effects & EFF_DISCARDS_ALL:
        # whether and when it is executed is not followed
        s.close_needed = 1
    if cs == NULL or not (cs.told or name - portal == 1):
        ring_push(&s.ring, R_BIND, 0, NULL, 0)
    else:
        ring_push(&s.ring, R_BIND, ACT_TOLD if cs.told else 0, NULL, t.id if cs.told else cs.hash)
    ring_mark(&s.ring, r)
    note_portal(e, c, portal, name - 1 - portal, r)
    if how == BIND_CHANGED:
        k = server_name(t, m) if name_len else 0
        write_bind(e, b, portal, name - portal, m, k)
        return total
    if name_len == 0:
        return stream(e, c, b, p, n, total)
    k = server_name(t, &m[5]) + 1
    if t.effects & EFF_DEALLOCATES:
        bind_deallocate(e, c, s, t, r)
    m[0] = b'B'
    put_u32(&m[1], <uint32_t> (total - 1 - (name_len + 1) + k))
    burst_write(e, b, m, 5)
    burst_write(e, b, portal, name - portal)
    burst_write(e, b, &m[5], k)
    burst_forward(e, b, rest, p + here - rest)
    c.stream_left = total - here
    c.skip_stream = 0
    return here


cdef void bind_deallocate(Relay e, Client *c, Server *s, Stmt *t, Rewrite *r) noexcept nogil:
    # Of a named DEALLOCATE or DISCARD ALL: whether and when it is executed is not followed, so the names are gone, its own
    # too perhaps, and the server is not used again.
    if r == NULL:
        up_deallocate(e, c, t.body, strlen(t.body), False)
    else:
        up_deallocate(e, c, r.text, r.size, False)
    server_forget_all(s)
    s.close_needed = 1


cdef ssize_t bind_noted(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total, char *portal,
                        char *name, char *rest) noexcept nogil:
    # session mode, and the client has statements that were changed, or whose values are judged
    cdef Rewrite *r = noted_statement(e, c, name, rest - 1 - name)
    cdef Server *s = server_of(e, c)
    cdef int how = BIND_AS_IS
    if s == NULL:
        return no_server(c)
    if r != NULL:
        if n < total and total <= BOUND_LIMIT:
            c.link.need = total
            return 0
        if n < total:
            up_refuse_size(e, c, total)
            return refuse_extended(e, c, b, total)
        how = judge_noted(e, c, name, rest - 1 - name, rest, p + total - rest)
        if how == BIND_REFUSED:
            c.pool.rejected += 1
            return refuse_extended(e, c, b, total)
    s.batch_open = 1
    s.batch_runs |= RUNS if name - portal > 1 else RUNS | RUNS_UNNAMED
    ring_push(&s.ring, R_BIND, 0, NULL, 0)
    ring_mark(&s.ring, r)
    note_portal(e, c, portal, name - 1 - portal, r)
    if how == BIND_CHANGED:
        write_bind(e, b, portal, name - portal, name, rest - 1 - name)
        return total
    return stream(e, c, b, p, n, total)


cdef void write_bind(Relay e, Burst *b, const char *portal, size_t portal_size, const char *name,
                     size_t name_len) noexcept nogil:
    # a Bind with the values in `refusal`; `portal` with its NUL
    cdef char m[5]
    m[0] = b'B'
    put_u32(&m[1], <uint32_t> (4 + portal_size + name_len + 1 + refusal_size(e)))
    burst_write(e, b, m, 5)
    burst_write(e, b, portal, portal_size)
    burst_write(e, b, name, name_len)
    burst_write(e, b, b"", 1)
    burst_write(e, b, refusal_data(e), refusal_size(e))


cdef inline Stmt *read_anew(Relay e, Client *c, ClientStmt *cs) noexcept nogil:
    # The client's statement, as its literals are read by now.
    cdef Stmt *fresh
    if (not server_knows(c.server, cs.stmt)) if is_unsettled(c.server) else cs.stmt.reading != c.reading:
        fresh = stmt_intern(e, c.pool, cs.stmt.body, cs.stmt.size, cs.stmt.effects, reading_of(e, c))
        if fresh != NULL:
            if cs.rewrite != NULL:
                cs.rewrite.refs += 1
            client_replace(c, cs, fresh, cs.scope, cs.rewrite)
    return cs.stmt


cdef inline bint is_dated(Client *c, ClientStmt *cs, Stmt *t) noexcept nogil:
    # The rules have changed since a statement was parsed; or it tells what the client is, or listens to.
    cdef Rewrite *r
    if (cs.scope if cs != NULL else t.scope) != c.pool.scope | c.codec_bits:
        return True
    if not t.effects & (EFF_CHANNELS | EFF_SELF):
        return False
    r = cs.rewrite if cs != NULL else t.rewrite
    return r != NULL and r.tags_size == 0


cdef int judge_anew(Relay e, Client *c, ClientStmt *cs) noexcept nogil:
    # Of a statement that is dated (`cs` NULL: the unnamed one).  1: it may be used, its text perhaps another now; 0:
    # refused; -1: not before the client has a server.
    cdef Stmt *t = cs.stmt if cs != NULL else c.unnamed
    cdef Rewrite *before = cs.rewrite if cs != NULL else t.rewrite
    cdef Rewrite *r = NULL
    cdef size_t changed = strlen(t.body)
    cdef char *types = t.body + changed
    cdef size_t tail = t.size - changed
    cdef char *sql = t.body if before == NULL else before.text
    cdef size_t size = changed if before == NULL else before.size
    cdef Stmt *fresh = NULL
    cdef Rewrite *plain = NULL
    cdef uint32_t effects
    if tail > 3 and declared_elsewhere(e, c, cs.scope if cs != NULL else t.scope, types + 3, tail - 3):
        up_other_rows(e)
        return 0
    effects = judge(e, c, sql, size)
    if not effects & EFF_ALLOWED:
        return -1 if effects else 0
    t.effects |= effects
    if before != NULL and effects & TOLD_HERE:
        # for the client's ear, or of its session
        r = up_own_edits(e, c, sql, size, types, tail, True)
        if r == NULL:
            return 0
    elif effects & EFF_REWRITES:
        r = rewritten(e, c, sql, size, types, tail)
        if r == NULL:
            return 0
    elif before != NULL:
        plain = rewrite_new(&NO_EDITS, 0, sql, size, NULL, 0, types, tail)
        if plain == NULL:
            return 0
    if r != NULL or plain != NULL:
        sql = r.result if r != NULL else plain.result
        size = r.result_size if r != NULL else plain.result_size
        fresh = (stmt_intern(e, c.pool, sql, size + tail, effects, reading_of(e, c)) if cs != NULL
                 else stmt_new(e, c.pool, sql, size + tail, effects))
        if plain != NULL:
            rewrite_unref(plain)
        if fresh == NULL:
            if r != NULL:
                rewrite_unref(r)
            return 0
    if cs != NULL:
        if fresh == NULL:
            fresh = t
            t.refs += 1
        client_replace(c, cs, fresh, c.pool.scope | c.codec_bits, r)
    else:
        if fresh != NULL:
            client_drop_unnamed(c)
            c.unnamed = fresh
        c.unnamed.scope = c.pool.scope | c.codec_bits
        c.unnamed.rewrite = r
    return 1


cdef ssize_t on_name(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    # Describe and Close: a kind ('S' statement, 'P' portal) and a name
    cdef int lane
    cdef Server *s
    cdef ClientStmt *cs
    cdef ServerStmt *ss
    cdef Stmt *t
    cdef Rewrite *r
    cdef size_t name_len, k
    cdef int how
    cdef bint first
    cdef bint closing = p[0] == F_CLOSE
    cdef char m[6 + NAME_BYTES]
    cdef uint8_t request = R_CLOSE if closing else R_DESCRIBE
    if n < total:
        c.link.need = total
        return 0
    if total < 7 or not (p[5] == b'S' or p[5] == b'P') or memchr(p + 6, 0, total - 6) != p + total - 1:
        return violation(e, c, V_FORMAT, 0)
    if not c.tracks and closing and p[5] == b'S' and c.rewrites.count:
        s = server_of(e, c)
        if s == NULL:
            return no_server(c)
        note_statement(e, c, p + 6, total - 7, NULL, is_fresh(s))
    if not c.tracks or p[5] != b'S':
        return on_whole(e, c, b, p, n, total, request)
    name_len = total - 7
    t = NULL
    cs = NULL
    if name_len:
        cs = client_find(c, hash_bytes(e.seed, p + 6, name_len), p + 6, name_len)
        if cs != NULL:
            t = cs.stmt if closing else read_anew(e, c, cs)
    else:
        t = c.unnamed
    if closing and c.server == NULL:
        close_here(e, c, cs, name_len == 0)
        return total
    if closing:
        s = server_of(e, c)
        if s == NULL:
            return no_server(c)
        if cs != NULL:
            client_take(c, cs)
        elif not name_len and t != NULL and not is_under_way(s, t):
            cs = client_take_unnamed(c)
        elif not name_len:
            client_drop_unnamed(c)
        elif c.pinned and may_name(p + 6, name_len):
            return on_whole(e, c, b, p, n, total, request)
        s.batch_open = 1
        # the ring has it until it is sure that the server would not have skipped this
        ring_push(&s.ring, R_CLOSE, ACT_FAKE, cs, 0)
        return total
    if t == NULL:
        if c.pinned and may_name(p + 6, name_len):
            return on_whole(e, c, b, p, n, total, request)
        up_missing_statement(e, p + 6, name_len)
        return refuse_extended(e, c, b, total)
    if is_dated(c, cs, t):
        how = judge_anew(e, c, cs)
        if how != 1:
            return no_server(c) if how else refuse_extended(e, c, b, total)
        t = cs.stmt if cs != NULL else c.unnamed
    if c.pool.group != NULL:
        lane = lane_check(e, c, t.effects)
        if lane != LANE_GOES:
            return no_server(c) if lane == LANE_HELD else refuse_extended(e, c, b, total)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    ss = server_find(s, t) if cs != NULL else NULL
    if may_be_other(cs, ss, t):
        how = told_check(e, c, b, s, cs, t, ss)
        if how != TOLD_GOES:
            return no_server(c) if how == TOLD_HELD else refuse_extended(e, c, b, total)
    r = cs.rewrite if cs != NULL else t.rewrite
    first = cs != NULL and not cs.told and is_first(e, b, s)
    if ss == NULL and not ensure_known(e, c, b, s, t, r, name_len == 0):
        return violation(e, c, V_MEMORY, 0)
    if first and e.batch_size == 0:
        b.knows = t.id
    s.batch_open = 1
    tell(e, c, s, cs, t)
    ring_mark(&s.ring, r)
    if name_len == 0:
        burst_forward(e, b, p, total)
        return total
    k = server_name(t, &m[6]) + 1
    m[0] = b'D'
    put_u32(&m[1], <uint32_t> (5 + k))
    m[5] = b'S'
    burst_write(e, b, m, 6 + k)
    return total


cdef bint is_under_way(Server *s, Stmt *t) noexcept nogil:
    # whether the Parse of an unnamed statement is not answered yet, so that an error may still undo it
    cdef uint32_t i
    for i in range(s.ring.count):
        if ring_at(&s.ring, i).request == R_PARSE and ring_at(&s.ring, i).name_hash == t.id:
            return True
    return False


cdef ssize_t on_whole(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total, uint8_t request) noexcept nogil:
    cdef Server *s
    cdef int how
    if n < total:
        c.link.need = total
        return 0
    if request == R_EXECUTE and (total < 10 or memchr(p + 5, 0, total - 9) != p + total - 5):
        # a portal's name and a number of rows
        return violation(e, c, V_FORMAT, 0)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    if request == R_EXECUTE and p[5] == 0 and not s.batch_runs & RUNS_UNNAMED:
        how = portal_check(e, c, s)
        if how != PORTAL_GOES:
            return no_server(c) if how == PORTAL_HELD else refuse_extended(e, c, b, total)
    s.batch_open = 1
    if request == R_DESCRIBE and c.tracks and total == 7:
        tell_portal(c, s)
    else:
        ring_push(&s.ring, request, keep_executed(c, p[5] == 0) if request == R_EXECUTE else 0, NULL, 0)
    if c.portal_rewrite != NULL and request == R_EXECUTE:
        ring_mark(&s.ring, noted_portal(e, c, p + 5, total - 10))
    burst_forward(e, b, p, total)
    return total
