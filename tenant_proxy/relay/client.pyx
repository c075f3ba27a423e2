"""The client's side of the relay: one function a message (docs 54.2, Message Flow).

A message is judged, gets a server, and goes on; the order of the steps is that of `client_message`.
A refused statement is answered here while the client has nothing outstanding; otherwise a request
that is bound to fail goes to the server in its place, and the server's error is replaced on its way
back.  So the server itself aborts the transaction and skips to Sync, and replies keep their order.

Return values: > 0 bytes consumed, 0 the message is not complete, HOLD it stays until a server is
there, ENDED the client is gone.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memchr, memcpy

from tenant_proxy.net.reactor cimport Link, Reactor
from tenant_proxy.pool.pool cimport (
    ACT_DISCARD, ACT_FAKE, ACT_REFUSED, ACT_SKIP, CL_ACTIVE, CL_ADMIN, CL_CLOSING, CL_IDLE, CL_LOGIN, CL_LOGIN_WAITING,
    CL_SKIP_TO_SYNC, CL_STARTUP, CL_WAITING, R_BIND, R_CLOSE, R_COPY_END, R_DESCRIBE, R_EXECUTE, R_FUNCTION,
    R_PARSE, R_QUERY, R_SYNC, Client, ClientStmt, Pool, Server, Stmt, ring_head, ring_push,
)
from tenant_proxy.relay.core cimport (
    EFF_ALLOWED, EFF_DDL, EFF_DEALLOCATES, EFF_DISCARDS_ALL, EFF_OPAQUE, EFF_PINS, EFF_READS, EFF_SETTINGS,
    EFF_XACT_CONTROL, GONE, PROTOCOL, TERMINATED, V_AFTER_SSL, V_FORMAT, V_LENGTH, V_MEMORY, V_NOT_PASSWORD,
    V_STARTUP, V_TYPE, Burst, Relay, keep_refusal, send_refusal, up_admin_message, up_deallocate,
    up_existing_statement, up_judge, up_judge_function, up_login_message, up_missing_statement, up_pinned,
    up_refuse_size, up_startup, up_violation,
)
from tenant_proxy.relay.pairing cimport client_end, client_fail, maybe_release, obtain
from tenant_proxy.relay.server cimport drain_fakes
from tenant_proxy.relay.statements cimport (
    NAME_BYTES, client_add, client_drop_unnamed, client_find, client_forget, hash_bytes, server_forget,
    server_forget_all, server_knows, server_learn, server_name, stmt_intern, stmt_new, stmt_unref,
)
from tenant_proxy.wire.buf cimport buf_len
from tenant_proxy.wire.consts cimport (
    F_BIND, F_CLOSE, F_COPY_DATA, F_COPY_DONE, F_COPY_FAIL, F_DESCRIBE, F_EXECUTE, F_FLUSH, F_FUNCTION_CALL,
    F_PARSE, F_PASSWORD, F_QUERY, F_SYNC, F_TERMINATE, XACT_FAILED, XACT_IDLE, frontend_limit, put_u32, read_u32,
)

cdef enum:
    HOLD = -1
    ENDED = -2
    LOGIN_MESSAGE_LIMIT = 65535     # PG_MAX_AUTH_TOKEN_LENGTH (src/include/libpq/auth.h)
    STARTUP_LIMIT = 10000           # MAX_STARTUP_PACKET_LENGTH (src/include/libpq/pqcomm.h)
    NAMES_LIMIT = 65536             # portal and statement name of a Bind together
    RING_LIMIT = 65536              # outstanding requests above which a client is not read
    LEAST_STATEMENT_BYTES = 1048576 # of a client's named statements together, also where one may have less

# A request that the server refuses whatever its state: it stands in for one that the guard refused.
# Named, so that the unnamed statement stays as it was.
cdef const char *POISON = b"tenant_proxy refused this statement"
cdef enum:
    POISON_SIZE = 35


# --- bytes ------------------------------------------------------------------------


cdef int client_bytes(Reactor r, Link *l, char *data, size_t n, size_t *used) noexcept nogil:
    return client_work(<Relay> r, <Client *> l, data, n, used)


cdef int client_work(Relay e, Client *c, char *data, size_t n, size_t *used) noexcept nogil:
    cdef Burst b
    cdef size_t pos = 0
    cdef size_t k
    cdef ssize_t r = 0
    cdef Server *s
    b.run = NULL
    b.run_size = 0
    e.batch_size = 0
    c.active_us = e.now_us
    c.link.need = 0
    while pos < n:
        if buf_len(&c.link.out) > e.send_limit:
            # it does not read what it has been answered
            e.pause(&c.link)
            break
        if c.stream_left:
            k = n - pos if n - pos < c.stream_left else c.stream_left
            if not c.skip_stream:
                burst_forward(e, &b, data + pos, k)
            c.stream_left -= k
            pos += k
            continue
        if c.phase < CL_IDLE:
            r = login_message(e, c, data + pos, n - pos)
        elif c.phase == CL_ADMIN:
            r = admin_message(e, c, data + pos, n - pos)
        else:
            r = client_message(e, c, &b, data + pos, n - pos)
        if r <= 0:
            break
        pos += r
    if c.phase == CL_CLOSING or c.link.dead:
        return -1
    used[0] = pos
    s = c.server
    if s != NULL:
        if s.ring.count and not c.request_us:
            c.request_us = e.now_us
        burst_flush(e, &b, c, s)
        if s.ring.count and ring_head(&s.ring).action & ACT_FAKE:
            drain_fakes(e, s)
        maybe_release(e, s)
    return 0 if c.phase != CL_CLOSING else -1


cdef void burst_forward(Relay e, Burst *b, char *data, size_t n) noexcept nogil:
    if b.run_size and b.run + b.run_size == data:
        b.run_size += n
        return
    if b.run_size:
        e.batch_add(b.run, b.run_size)
    b.run = data
    b.run_size = n


cdef void burst_write(Relay e, Burst *b, const char *data, size_t n) noexcept nogil:
    if b.run_size:
        e.batch_add(b.run, b.run_size)
        b.run_size = 0
    e.batch_add(data, n)


cdef void burst_flush(Relay e, Burst *b, Client *c, Server *s) noexcept nogil:
    cdef int full = 0
    if e.batch_size == 0:
        if b.run_size:
            full = e.send(&s.link, b.run, b.run_size)
    else:
        if b.run_size:
            e.batch_add(b.run, b.run_size)
        full = e.send(&s.link, e.batch, e.batch_size)
        e.batch_size = 0
    b.run_size = 0
    if full == 1 or s.ring.count > RING_LIMIT:
        e.pause(&c.link)


# --- before the relay ---------------------------------------------------------------


cdef ssize_t violation(Relay e, Client *c, int what, uint32_t value) noexcept nogil:
    if c.server == NULL or not (c.server.stream_left and c.server.relaying):
        up_violation(e, c, what, value)
    client_end(e, c, PROTOCOL)
    return ENDED


cdef ssize_t login_message(Relay e, Client *c, char *p, size_t n) noexcept nogil:
    cdef uint32_t length
    if c.held or c.phase == CL_LOGIN_WAITING:
        # more than the login needs may come early, but not without bound
        if n > LOGIN_MESSAGE_LIMIT:
            return violation(e, c, V_LENGTH, 0)
        e.pause(&c.link)
        return HOLD
    if c.phase == CL_STARTUP:
        if n >= 1 and p[0] == 0x16 and c.link.tls == NULL:
            # a TLS ClientHello: direct negotiation; the records go to the layer as they are
            up_startup(e, c, p, n)
            return <ssize_t> n if c.phase != CL_CLOSING and not c.link.dead else ENDED
        if n < 4:
            return 0
        length = read_u32(p)
        if length < 8 or length > STARTUP_LIMIT:
            return violation(e, c, V_STARTUP, 0)
        if n < length:
            c.link.need = length
            return 0
        if read_u32(p + 4) == 80877103 and n > length:
            # bytes behind an SSLRequest came in plain text and must not be read as encrypted ones
            return violation(e, c, V_AFTER_SSL, 0)
        if length == 8 and (read_u32(p + 4) == 80877104 or (
                read_u32(p + 4) == 80877103 and (not e.offers_tls or c.link.local))) and c.link.tls == NULL:
            # GSSENCRequest, or SSLRequest without TLS
            e.send(&c.link, b"N", 1)
            return length
        up_startup(e, c, p, length)
        return <ssize_t> length if c.phase != CL_CLOSING and not c.link.dead else ENDED
    if n < 5:
        return 0
    if p[0] != F_PASSWORD:
        if p[0] == F_TERMINATE:
            client_end(e, c, TERMINATED)
            return ENDED
        return violation(e, c, V_NOT_PASSWORD, <uint8_t> p[0])
    length = read_u32(p + 1)
    if length < 4 or length > LOGIN_MESSAGE_LIMIT:
        return violation(e, c, V_LENGTH, 0)
    if n < length + 1:
        c.link.need = length + 1
        return 0
    up_login_message(e, c, p, length + 1)
    return <ssize_t> length + 1 if c.phase != CL_CLOSING and not c.link.dead else ENDED


cdef ssize_t admin_message(Relay e, Client *c, char *p, size_t n) noexcept nogil:
    cdef uint32_t length
    if c.held:
        e.pause(&c.link)
        return HOLD
    if n < 5:
        return 0
    length = read_u32(p + 1)
    if frontend_limit(p[0]) == 0:
        return violation(e, c, V_TYPE, <uint8_t> p[0])
    if length < 4 or length > LOGIN_MESSAGE_LIMIT:
        return violation(e, c, V_LENGTH, 0)
    if n < length + 1:
        c.link.need = length + 1
        return 0
    if p[0] == F_TERMINATE:
        client_end(e, c, TERMINATED)
        return ENDED
    up_admin_message(e, c, p, length + 1)
    return <ssize_t> length + 1 if c.phase != CL_CLOSING and not c.link.dead else ENDED


# --- one message ----------------------------------------------------------------------


cdef ssize_t client_message(Relay e, Client *c, Burst *b, char *p, size_t n) noexcept nogil:
    cdef int code, limit
    cdef uint32_t length
    cdef size_t total
    cdef Server *s
    if c.phase == CL_WAITING:
        e.pause(&c.link)
        return HOLD
    if n < 5:
        return 0
    code = p[0]
    limit = frontend_limit(code)
    if limit == 0:
        return violation(e, c, V_TYPE, <uint8_t> p[0])
    length = read_u32(p + 1)
    if length < 4 or length > <uint32_t> limit:
        return violation(e, c, V_LENGTH, 0)
    total = <size_t> length + 1
    s = c.server
    if (code == F_SYNC or code == F_FLUSH) and total != 5:
        return violation(e, c, V_FORMAT, 0)
    if code == F_TERMINATE:
        if s != NULL:
            burst_flush(e, b, c, s)
        client_end(e, c, TERMINATED)
        return ENDED
    if c.phase == CL_SKIP_TO_SYNC or (s != NULL and s.skipping):
        if code != F_SYNC:
            return skip(c, total)
        if c.phase == CL_SKIP_TO_SYNC:
            c.phase = CL_ACTIVE if s != NULL else CL_IDLE
            tell_ready(e, c)
            return total
    if code == F_QUERY:
        return on_query(e, c, b, p, n, total)
    if code == F_PARSE:
        return on_parse(e, c, b, p, n, total)
    if code == F_BIND:
        return on_bind(e, c, b, p, n, total)
    if code == F_DESCRIBE or code == F_CLOSE:
        return on_name(e, c, b, p, n, total)
    if code == F_EXECUTE:
        return on_whole(e, c, b, p, n, total, R_EXECUTE)
    if code == F_SYNC:
        if s == NULL:
            tell_ready(e, c)
            return total
        s.skipping = 0
        if not s.copy_in:
            # a server that takes CopyData swallows Sync (CopyGetData in src/backend/commands/copyfromparse.c)
            s.batch_open = 0
            ring_push(&s.ring, R_SYNC, 0, NULL, 0)
        burst_forward(e, b, p, total)
        return total
    if code == F_FLUSH:
        if s != NULL:
            burst_forward(e, b, p, total)
        return total
    if code == F_FUNCTION_CALL:
        return on_function_call(e, c, b, p, n, total)
    # CopyData, CopyDone, CopyFail: without a COPY the server ignores them too, since the client may not
    # have read its failure yet (PostgresMain in src/backend/tcop/postgres.c)
    if s == NULL:
        return skip(c, total)
    if code != F_COPY_DATA:
        s.copy_in = 0
        if s.ring.count:
            ring_push(&s.ring, R_COPY_END, 0, NULL, 0)
    return stream(e, c, b, p, n, total)


cdef ssize_t skip(Client *c, size_t total) noexcept nogil:
    # drops a message, whether or not all of it is here
    c.skip_stream = 1
    c.stream_left = total - 5
    return 5


cdef ssize_t stream(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    # forwards a message as it comes
    cdef size_t k = total if n >= total else n
    burst_forward(e, b, p, k)
    c.stream_left = total - k
    c.skip_stream = 0
    return k


cdef void tell_ready(Relay e, Client *c) noexcept nogil:
    cdef char m[6]
    m[0] = b'Z'
    put_u32(&m[1], 5)
    m[5] = XACT_IDLE
    c.xact_status = XACT_IDLE
    e.send(&c.link, m, 6)


cdef inline bint in_peace(Client *c) noexcept nogil:
    # nothing outstanding and no transaction: the proxy may answer in the server's place
    return c.server == NULL or (c.server.ring.count == 0 and not c.server.batch_open and not c.server.stream_left
                                and c.server.xact_status == XACT_IDLE)


cdef inline uint32_t judge(Relay e, Client *c, const char *sql, size_t n) noexcept nogil:
    cdef uint32_t effects
    if c.pool.guard_mode == 2:
        effects = 0
    else:
        effects = e.verdicts.lookup(c.pool.scope, sql, n)
        if effects:
            return effects
    effects = up_judge(e, c, sql, n)
    if not effects:
        c.pool.rejected += 1
    return effects


cdef inline void apply_effects(Relay e, Client *c, Server *s, uint32_t effects, const char *sql, size_t n) noexcept nogil:
    # what the statement will leave on the server, if it succeeds
    if effects & (EFF_SETTINGS | EFF_PINS | EFF_DISCARDS_ALL):
        if effects & EFF_SETTINGS:
            s.settings_changed = 1
        if effects & EFF_PINS:
            s.dirty = 1
            if not c.pinned:
                c.pinned = 1
                c.pool.pinned += 1
                up_pinned(e, c, sql, n)
        if effects & EFF_DISCARDS_ALL:
            server_forget_all(s)
    if effects & ~<uint32_t> (EFF_READS | EFF_XACT_CONTROL | EFF_ALLOWED):
        # currval, lastval and the like stay behind in session mode
        if c.pool.session_mode:
            s.dirty = 1


cdef ssize_t refuse_query(Relay e, Client *c, Burst *b, size_t total) noexcept nogil:
    cdef char m[5]
    cdef void *error = NULL
    cdef Server *s = c.server
    # any simple query ends the unnamed statement, one that fails too
    client_drop_unnamed(c)
    if in_peace(c):
        send_refusal(e, &c.link)
        tell_ready(e, c)
    else:
        s.unnamed_id = 0
        keep_refusal(e, &error)
        m[0] = b'Q'
        put_u32(&m[1], 4 + POISON_SIZE + 1)
        burst_write(e, b, m, 5)
        burst_write(e, b, POISON, POISON_SIZE + 1)
        ring_push(&s.ring, R_QUERY, ACT_REFUSED, error, 0)
    return skip(c, total)


cdef ssize_t refuse_extended(Relay e, Client *c, Burst *b, size_t total) noexcept nogil:
    cdef char m[5]
    cdef void *error = NULL
    cdef Server *s = c.server
    if in_peace(c):
        send_refusal(e, &c.link)
        c.phase = CL_SKIP_TO_SYNC
    else:
        keep_refusal(e, &error)
        m[0] = b'P'
        put_u32(&m[1], 4 + 11 + POISON_SIZE + 1 + 2)
        burst_write(e, b, m, 5)
        burst_write(e, b, b"tp_refused\0", 11)
        burst_write(e, b, POISON, POISON_SIZE + 1)
        burst_write(e, b, b"\0\0", 2)
        ring_push(&s.ring, R_PARSE, ACT_REFUSED, error, 0)
        s.batch_open = 1
    return skip(c, total)


cdef inline Server *server_of(Relay e, Client *c) noexcept nogil:
    return c.server if c.server != NULL else obtain(e, c)


cdef inline ssize_t no_server(Client *c) noexcept nogil:
    return ENDED if c.phase == CL_CLOSING else HOLD


# --- simple query -----------------------------------------------------------------------


cdef ssize_t on_query(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    cdef Server *s
    cdef uint32_t effects
    cdef size_t size
    cdef int how
    cdef void *answer = NULL
    if total > e.max_statement:
        up_refuse_size(e, c, total)
        return refuse_query(e, c, b, total)
    if n < total:
        c.link.need = total
        return 0
    size = total - 6
    if total < 6 or memchr(p + 5, 0, size + 1) != p + total - 1:
        return violation(e, c, V_FORMAT, 0)
    effects = judge(e, c, p + 5, size)
    if not effects:
        return refuse_query(e, c, b, total)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    if effects & EFF_DEALLOCATES and c.tracks:
        how = up_deallocate(e, c, p + 5, size)
        if how == 1:
            keep_refusal(e, &answer)
            ring_push(&s.ring, R_QUERY, ACT_FAKE, answer, 0)
            return total
        if how == 2:
            server_forget_all(s)
            s.close_needed = 1
    apply_effects(e, c, s, effects, p + 5, size)
    s.unnamed_id = 0
    client_drop_unnamed(c)
    ring_push(&s.ring, R_QUERY, ACT_DISCARD if effects & EFF_DISCARDS_ALL else 0, NULL, 0)
    burst_forward(e, b, p, total)
    return total


# --- extended query -----------------------------------------------------------------------


cdef ssize_t on_parse(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    cdef Server *s
    cdef uint32_t effects
    cdef char *end = p + total
    cdef char *name = p + 5
    cdef char *sql
    cdef char *tail
    cdef size_t name_len, size
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
    if not effects:
        return refuse_extended(e, c, b, total)
    if c.tracks:
        return parse_tracked(e, c, b, p, total, name_len, sql, size, effects)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    apply_effects(e, c, s, effects, sql, size)
    # the unnamed statement is no one else's either
    s.dirty = 1
    s.batch_open = 1
    ring_push(&s.ring, R_PARSE, 0, NULL, 0)
    burst_forward(e, b, p, total)
    return total


cdef ssize_t parse_tracked(Relay e, Client *c, Burst *b, char *p, size_t total, size_t name_len, char *sql,
                           size_t size, uint32_t effects) noexcept nogil:
    # transaction mode: the text gets a name of the pool's on whatever server the client has
    cdef char *name = p + 5
    cdef size_t body = p + total - sql
    cdef uint64_t hash = 0
    cdef Stmt *t
    cdef Server *s
    cdef bint known
    if name_len:
        hash = hash_bytes(e.seed, name, name_len)
        if client_find(c, hash, name, name_len) != NULL:
            up_existing_statement(e, name, name_len)
            return refuse_extended(e, c, b, total)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    c.pool.client_parses += 1
    s.batch_open = 1
    if not name_len:
        # kept, since the next batch may meet another server
        client_drop_unnamed(c)
        if effects & EFF_DEALLOCATES:
            return parse_deallocate(e, c, b, s, p, sql, size, total, effects)
        c.unnamed = stmt_new(e, sql, body, effects)
        if c.unnamed == NULL:
            return violation(e, c, V_MEMORY, 0)
        s.unnamed_id = c.unnamed.id
        ring_push(&s.ring, R_PARSE, 0, NULL, c.unnamed.id)
        burst_forward(e, b, p, total)
        return total
    t = stmt_intern(e, c.pool, sql, body, effects)
    if t == NULL:
        return violation(e, c, V_MEMORY, 0)
    if client_add(c, hash, name, name_len, t, statement_bytes(e)) != 0:
        stmt_unref(c.pool, t)
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
            server_learn(s, t)
        write_parse(e, b, t)
        c.pool.server_parses += 1
        # the ring takes over stmt_intern's reference
        ring_push(&s.ring, R_PARSE, 0, t, hash)
    return total


cdef ssize_t parse_deallocate(Relay e, Client *c, Burst *b, Server *s, char *p, char *sql, size_t size,
                              size_t total, uint32_t effects) noexcept nogil:
    # DEALLOCATE in the extended protocol: the client's names are forgotten here, and the server is given
    # a statement of the proxy's to deallocate, so that the reply and its errors are the server's own.
    cdef char m[16]
    cdef int how = up_deallocate(e, c, sql, size)
    if how != 1:
        if how == 2:
            server_forget_all(s)
            s.close_needed = 1
        c.unnamed = stmt_new(e, sql, p + total - sql, effects)
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
    c.unnamed = stmt_new(e, b"DEALLOCATE tp_none\0\0\0", 21, EFF_ALLOWED)
    s.unnamed_id = c.unnamed.id if c.unnamed != NULL else 0
    ring_push(&s.ring, R_PARSE, 0, NULL, 0)
    return total


cdef void write_parse(Relay e, Burst *b, Stmt *t) noexcept nogil:
    cdef char m[5 + NAME_BYTES]
    cdef size_t k = server_name(t, &m[5]) + 1
    m[0] = b'P'
    put_u32(&m[1], <uint32_t> (4 + k + t.size))
    burst_write(e, b, m, 5 + k)
    burst_write(e, b, t.body, t.size)


cdef void write_close(Relay e, Burst *b, Server *s, Stmt *t) noexcept nogil:
    cdef char m[6 + NAME_BYTES]
    cdef size_t k = server_name(t, &m[6]) + 1
    m[0] = b'C'
    put_u32(&m[1], <uint32_t> (5 + k))
    m[5] = b'S'
    burst_write(e, b, m, 6 + k)
    ring_push(&s.ring, R_CLOSE, ACT_SKIP, NULL, 0)


cdef inline size_t statement_bytes(Relay e) noexcept nogil:
    # that the named statements of a client may hold
    return e.max_statement if e.max_statement > LEAST_STATEMENT_BYTES else LEAST_STATEMENT_BYTES


cdef void make_room(Relay e, Client *c, Burst *b, Server *s) noexcept nogil:
    # at the bound, the least recently used statement leaves the server
    cdef Stmt *t
    while s.stmts.count >= c.pool.max_prepared and s.oldest != NULL:
        t = s.oldest.stmt
        write_close(e, b, s, t)
        server_forget(s, t)
        c.pool.prepared_evictions += 1


cdef bint ensure_known(Relay e, Client *c, Burst *b, Server *s, Stmt *t, bint unnamed) noexcept nogil:
    # the server gets the statement ahead of its use if it does not have it
    cdef char m[6]
    if unnamed:
        if s.unnamed_id == t.id:
            return True
        m[0] = b'P'
        put_u32(&m[1], 4 + 1 + t.size)
        m[5] = 0
        burst_write(e, b, m, 6)
        burst_write(e, b, t.body, t.size)
        s.unnamed_id = t.id
        ring_push(&s.ring, R_PARSE, ACT_SKIP, NULL, t.id)
    elif not server_knows(s, t):
        make_room(e, c, b, s)
        if server_learn(s, t) != 0:
            return False
        write_parse(e, b, t)
        t.refs += 1
        ring_push(&s.ring, R_PARSE, ACT_SKIP, t, 0)
    else:
        return True
    c.pool.server_parses += 1
    s.batch_open = 1
    return True


cdef ssize_t on_bind(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    cdef Server *s
    cdef size_t here = n if n < total else total
    cdef char *portal = p + 5
    cdef char *name
    cdef char *rest
    cdef size_t name_len, k, look
    cdef ClientStmt *cs
    cdef Stmt *t
    cdef char m[5 + NAME_BYTES]
    if not c.tracks:
        s = server_of(e, c)
        if s == NULL:
            return no_server(c)
        s.batch_open = 1
        ring_push(&s.ring, R_BIND, 0, NULL, 0)
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
    if name_len:
        cs = client_find(c, hash_bytes(e.seed, name, name_len), name, name_len)
        t = cs.stmt if cs != NULL else NULL
    else:
        t = c.unnamed
    if t == NULL and not (c.pinned and name_len):
        up_missing_statement(e, name, name_len)
        return refuse_extended(e, c, b, total)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    c.pool.binds += 1
    s.batch_open = 1
    if t == NULL:
        # of a pinned client: made by SQL PREPARE on its own server
        ring_push(&s.ring, R_BIND, 0, NULL, 0)
        return stream(e, c, b, p, n, total)
    if not ensure_known(e, c, b, s, t, name_len == 0):
        return violation(e, c, V_MEMORY, 0)
    apply_effects(e, c, s, t.effects, t.body, t.size)
    if t.effects & EFF_DISCARDS_ALL:
        # whether and when it is executed is not followed
        s.close_needed = 1
    ring_push(&s.ring, R_BIND, 0, NULL, 0)
    if name_len == 0:
        return stream(e, c, b, p, n, total)
    k = server_name(t, &m[5]) + 1
    m[0] = b'B'
    put_u32(&m[1], <uint32_t> (total - 1 - (name_len + 1) + k))
    burst_write(e, b, m, 5)
    burst_write(e, b, portal, name - portal)
    burst_write(e, b, &m[5], k)
    burst_forward(e, b, rest, p + here - rest)
    c.stream_left = total - here
    c.skip_stream = 0
    return here


cdef ssize_t on_name(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    # Describe and Close: a kind ('S' statement, 'P' portal) and a name
    cdef Server *s
    cdef ClientStmt *cs
    cdef Stmt *t
    cdef size_t name_len, k
    cdef bint closing = p[0] == F_CLOSE
    cdef char m[6 + NAME_BYTES]
    cdef uint8_t request = R_CLOSE if closing else R_DESCRIBE
    if n < total:
        c.link.need = total
        return 0
    if total < 7 or not (p[5] == b'S' or p[5] == b'P') or memchr(p + 6, 0, total - 6) != p + total - 1:
        return violation(e, c, V_FORMAT, 0)
    if not c.tracks or p[5] != b'S':
        return on_whole(e, c, b, p, n, total, request)
    name_len = total - 7
    t = NULL
    cs = NULL
    if name_len:
        cs = client_find(c, hash_bytes(e.seed, p + 6, name_len), p + 6, name_len)
        if cs != NULL:
            t = cs.stmt
    else:
        t = c.unnamed
    if closing:
        s = server_of(e, c)
        if s == NULL:
            return no_server(c)
        if cs != NULL:
            client_forget(c, cs)
        elif not name_len:
            client_drop_unnamed(c)
        elif c.pinned:
            return on_whole(e, c, b, p, n, total, request)
        s.batch_open = 1
        ring_push(&s.ring, R_CLOSE, ACT_FAKE, NULL, 0)
        return total
    if t == NULL:
        if c.pinned and name_len:
            return on_whole(e, c, b, p, n, total, request)
        up_missing_statement(e, p + 6, name_len)
        return refuse_extended(e, c, b, total)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    if not ensure_known(e, c, b, s, t, name_len == 0):
        return violation(e, c, V_MEMORY, 0)
    s.batch_open = 1
    ring_push(&s.ring, R_DESCRIBE, 0, NULL, 0)
    if name_len == 0:
        burst_forward(e, b, p, total)
        return total
    k = server_name(t, &m[6]) + 1
    m[0] = b'D'
    put_u32(&m[1], <uint32_t> (5 + k))
    m[5] = b'S'
    burst_write(e, b, m, 6 + k)
    return total


cdef ssize_t on_whole(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total, uint8_t request) noexcept nogil:
    cdef Server *s
    if n < total:
        c.link.need = total
        return 0
    if request == R_EXECUTE and (total < 10 or memchr(p + 5, 0, total - 9) != p + total - 5):
        # a portal's name and a number of rows
        return violation(e, c, V_FORMAT, 0)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    s.batch_open = 1
    ring_push(&s.ring, request, 0, NULL, 0)
    burst_forward(e, b, p, total)
    return total


cdef ssize_t on_function_call(Relay e, Client *c, Burst *b, char *p, size_t n, size_t total) noexcept nogil:
    cdef Server *s
    cdef uint32_t effects
    if total < 11:
        return violation(e, c, V_FORMAT, 0)
    if n < 9:
        c.link.need = 9
        return 0
    effects = up_judge_function(e, c, read_u32(p + 5))
    if not effects:
        c.pool.rejected += 1
        return refuse_query(e, c, b, total)
    s = server_of(e, c)
    if s == NULL:
        return no_server(c)
    apply_effects(e, c, s, effects, NULL, 0)
    ring_push(&s.ring, R_FUNCTION, 0, NULL, 0)
    return stream(e, c, b, p, n, total)


# --- the other events of a client's link ----------------------------------------------------


cdef void client_eof(Reactor r, Link *l) noexcept nogil:
    client_end(<Relay> r, <Client *> l, GONE)


cdef void client_drained(Reactor r, Link *l) noexcept nogil:
    # the client reads again: so may its server be, and what it sends itself
    cdef Client *c = <Client *> l
    r.unpause(l)
    if c.server != NULL:
        r.unpause(&c.server.link)


cdef void client_free(Reactor r, Link *l) noexcept nogil:
    free(l)
