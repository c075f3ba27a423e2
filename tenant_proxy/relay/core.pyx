"""What all parts of the relay share, and the upcalls into Python.

`Relay.hooks` is an object with the methods named here (worker.Hooks).  An upcall that fails is
logged with an id and ends the link it was for: an exception never travels through the engine.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from tenant_proxy.guard.cache cimport MAX_TEXT_BYTES
from tenant_proxy.guard.edits cimport TAGS, Edits, Rewrite, edits_pack, rewrite_new, rewrite_unref
from tenant_proxy.net.reactor cimport Link, Reactor
from tenant_proxy.pool.pool cimport ACT_ASK, ACT_SKIP, ACT_SYNC, R_QUERY, Client, Pool, Server, ring_push
from tenant_proxy.wire.ptrmap cimport map_free


cdef class Relay(Reactor):

    def __cinit__(self):
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.max_statement = 64 * 1024 * 1024
        self.max_gathered = 256 * 1024 * 1024
        self.max_clients = 20_000
        self.max_logins = 500
        self.batch_cap = 65536
        self.batch = <char *> malloc(self.batch_cap)
        if self.batch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.batch)
        map_free(&self.pools)
        map_free(&self.keys)

    cdef int batch_room(self, size_t n) noexcept nogil:
        cdef size_t cap = self.batch_cap
        cdef char *batch
        if self.batch_size + n <= cap:
            return 0
        while cap < self.batch_size + n:
            cap <<= 1
        batch = <char *> realloc(self.batch, cap)
        if batch == NULL:
            return -1
        self.batch = batch
        self.batch_cap = cap
        return 0

    cdef void batch_add(self, const char *data, size_t n) noexcept nogil:
        if self.batch_room(n) == 0:
            memcpy(self.batch + self.batch_size, data, n)
            self.batch_size += n


# --- clients ------------------------------------------------------------------


cdef void up_startup(Relay e, Client *c, const char *data, size_t n) noexcept nogil:
    e.called_us = e.now_us
    with gil:
        try:
            e.hooks.on_startup(c.link.id, data[:n])
        except Exception:
            e.hooks.on_bug(c.link.id)


cdef void up_login_message(Relay e, Client *c, const char *data, size_t n) noexcept nogil:
    e.called_us = e.now_us
    with gil:
        try:
            e.hooks.on_login_message(c.link.id, data[5:n])
        except Exception:
            e.hooks.on_bug(c.link.id)


cdef void up_entry(Relay e, Client *c, bytes packet, bytes first, bytes nonce, bytes body) noexcept:
    e.called_us = e.now_us
    try:
        e.hooks.on_entry(c.link.id, packet, first, nonce, body)
    except Exception:
        e.hooks.on_bug(c.link.id)


cdef void up_entered(Relay e, Client *c) noexcept nogil:
    with gil:
        try:
            e.hooks.on_entered(c.link.id, session_of(e, c))
        except Exception:
            e.log.exception("logging a login")


cdef void up_admin_message(Relay e, Client *c, const char *data, size_t n) noexcept nogil:
    e.called_us = e.now_us
    with gil:
        try:
            e.hooks.on_admin_message(c.link.id, data[0], data[5:n])
        except Exception:
            e.hooks.on_bug(c.link.id)


cdef void up_client_gone(Relay e, Client *c, int reason) noexcept nogil:
    with gil:
        try:
            session_of(e, c)
            e.hooks.on_client_gone(c.link.id, take_object(&c.session), reason)
        except Exception:
            e.log.exception("closing a client")


cdef void up_greet(Relay e, Client *c, Server *s) noexcept nogil:
    with gil:
        try:
            e.hooks.on_greet(c.link.id, <object> <PyObject *> c.session, s.link.id, <object> <PyObject *> s.info)
        except Exception:
            e.hooks.on_bug(c.link.id)


cdef void up_fail_client(Relay e, Client *c, int reason, uint64_t detail) noexcept nogil:
    with gil:
        try:
            message = e.hooks.failure(c.link.id, session_of(e, c), reason, detail)
            e.send(&c.link, PyBytes_AS_STRING(<bytes> message), PyBytes_GET_SIZE(<bytes> message))
        except Exception:
            e.log.exception("telling a client of a failure")


cdef void up_violation(Relay e, Client *c, int what, uint32_t value) noexcept nogil:
    with gil:
        try:
            message = e.hooks.violation(c.link.id, session_of(e, c), what, value)
            e.send(&c.link, PyBytes_AS_STRING(<bytes> message), PyBytes_GET_SIZE(<bytes> message))
        except Exception:
            e.log.exception("telling a client of a protocol violation")


# --- the guard ----------------------------------------------------------------


cdef uint32_t up_judge(Relay e, Client *c, const char *sql, size_t n) noexcept nogil:
    # a text that the cache does not know; 0: refused, and `refusal` holds the ErrorResponse, or the client
    # has to wait for the verdict (`judging`)
    with gil:
        try:
            result = None
            if c.judging == JUDGED and n > MAX_TEXT_BYTES:
                # not to be kept, so only the verdict is wanted: the text is not copied again
                result = e.hooks.judge(session_of(e, c), c.pool.scope | c.codec_bits, None, c.link.id)
            if result is None:
                result = e.hooks.judge(session_of(e, c), c.pool.scope | c.codec_bits, sql[:n], c.link.id)
            if result is None:
                c.judging = JUDGING
                e.called_us = e.now_us
                e.pause(&c.link)
                return 0
            if isinstance(result, bytes):
                e.refusal = result
                return 0
            return <uint32_t> result
        except Exception:
            e.refusal = e.hooks.bug_message()
            return 0


cdef void up_judged(Relay e, Client *c) noexcept nogil:
    e.called_us = e.now_us
    c.judging = 0
    with gil:
        try:
            e.hooks.on_judged(c.link.id)
        except Exception:
            e.log.exception("forgetting a verdict")


cdef Rewrite *up_rewrite(
    Relay e, Client *c, const char *sql, size_t n, const char *tail, size_t tail_size
) noexcept nogil:
    # of a text that the cache does not hold; NULL: refused, and `refusal` holds the ErrorResponse
    with gil:
        try:
            places = e.hooks.edits(c.pool.scope | c.codec_bits, sql[:n], c.link.id)
            return rewrite_by(c, places, sql, n, tail, tail_size)
        except Exception:
            e.refusal = e.hooks.bug_message()
            return NULL


cdef bint is_granted(Relay e, object refusal):
    # what a hook says that refuses by an ErrorResponse
    if refusal is not None:
        e.refusal = refusal
    return refusal is None


cdef bint up_parameter_types(
    Relay e, Client *c, const char *sql, size_t n, const char *types, size_t size
) noexcept nogil:
    # whether the values that a Parse declares to be of these types can be judged; `refusal` holds why not
    with gil:
        try:
            return is_granted(e, e.hooks.parameter_types(
                session_of(e, c), c.pool.scope | c.codec_bits, sql[:n], types[:size], c.link.id
            ))
        except Exception:
            e.refusal = e.hooks.bug_message()
        return False


cdef int up_bind(
    Relay e, Client *c, const char *sql, size_t n, const char *values, size_t size
) noexcept nogil:
    # judges the values of a Bind, `values` being all behind the statement's name
    with gil:
        try:
            result = e.hooks.bind(session_of(e, c), c.pool.scope | c.codec_bits, sql[:n], values[:size])
            if result is None:
                return BIND_AS_IS
            refused, e.refusal = result
            return BIND_REFUSED if refused else BIND_CHANGED
        except Exception:
            e.refusal = e.hooks.bug_message()
            return BIND_REFUSED


cdef bint up_executed(
    Relay e, Client *c, uint32_t effects, const char *sql, size_t n, const char *name, size_t name_len
) noexcept nogil:
    # whether all that SQL's EXECUTE runs is judged (executed.py); `refusal` holds why not.  `name` is that of the
    # statement that a Parse makes, NULL for a Query
    with gil:
        try:
            return is_granted(e, e.hooks.executed(
                c.link.id, session_of(e, c), c.pool.scope | c.codec_bits, effects, sql[:n],
                name[:name_len] if name != NULL else None, c.tracks,
            ))
        except Exception:
            e.refusal = e.hooks.bug_message()
        return False


cdef uint32_t up_judge_function(Relay e, Client *c, uint32_t oid) noexcept nogil:
    with gil:
        try:
            result = e.hooks.judge_function(session_of(e, c), c.pool.scope, oid)
            if isinstance(result, bytes):
                e.refusal = result
                return 0
            return <uint32_t> result
        except Exception:
            e.refusal = e.hooks.bug_message()
            return 0


cdef void up_refuse_size(Relay e, Client *c, size_t n) noexcept nogil:
    with gil:
        e.refusal = e.hooks.refuse_size(session_of(e, c), n)


cdef void up_refuse_gathered(Relay e, Client *c) noexcept nogil:
    with gil:
        e.refusal = e.hooks.refuse_gathered(session_of(e, c))


cdef void up_refuse_prepared(Relay e, Client *c) noexcept nogil:
    with gil:
        e.refusal = e.hooks.refuse_prepared(session_of(e, c))


cdef void up_refuse_growth(Relay e, Client *c) noexcept nogil:
    with gil:
        e.refusal = e.hooks.refuse_growth(session_of(e, c))


cdef void up_pace(Relay e, Client *c, uint64_t wait_us) noexcept nogil:
    e.called_us = e.now_us
    with gil:
        e.hooks.on_pace(c.link.id, wait_us)


cdef void up_refuse_pace(Relay e, Client *c, uint64_t wait_us) noexcept nogil:
    with gil:
        e.refusal = e.hooks.refuse_pace(session_of(e, c), wait_us)


cdef void up_too_many_pins(Relay e, Client *c) noexcept nogil:
    with gil:
        e.refusal = e.hooks.too_many_pins(session_of(e, c))


cdef void up_missing_statement(Relay e, const char *name, size_t n) noexcept nogil:
    with gil:
        e.refusal = e.hooks.missing_statement(name[:n])


cdef void up_existing_statement(Relay e, const char *name, size_t n) noexcept nogil:
    with gil:
        e.refusal = e.hooks.existing_statement(name[:n])


cdef void up_other_rows(Relay e) noexcept nogil:
    with gil:
        e.refusal = e.hooks.other_rows()


cdef void up_failed_transaction(Relay e) noexcept nogil:
    with gil:
        e.refusal = e.hooks.failed_transaction()


cdef object up_execute(Relay e, Client *c, const char *sql, size_t n):
    # (edits, names) where EXECUTE names statements that the client has made by Parse, else None
    try:
        return e.hooks.execute(c.link.id, c.pool.scope | c.codec_bits, sql[:n])
    except Exception:
        e.log.exception("reading EXECUTE")
        return None


cdef Rewrite *up_reset(Relay e, Client *c, const char *sql, size_t n) noexcept nogil:
    # the text with a RESET that does nothing in place of RESET ALL; NULL: `refusal` holds an ErrorResponse
    with gil:
        try:
            return rewrite_by(c, e.hooks.reset_edits(c.pool.scope | c.codec_bits, sql[:n]), sql, n, b"", 1)
        except Exception:
            e.refusal = e.hooks.bug_message()
            return NULL


cdef int up_listen(Relay e, Client *c, const char *sql, size_t n) noexcept nogil:
    # hearing.LISTEN_…, and 3 where the client has to keep its server for it
    with gil:
        try:
            result = e.hooks.listen(c.link.id, session_of(e, c), c.pool.scope | c.codec_bits, sql[:n])
            if isinstance(result, bytes):
                e.refusal = result
                return 2
            if result == 0:
                c.listens = 1
            return <int> result
        except Exception:
            e.refusal = e.hooks.bug_message()
            return 2


cdef Rewrite *up_own_edits(
    Relay e, Client *c, const char *sql, size_t n, const char *tail, size_t tail_size, bint resets
) noexcept nogil:
    # a text with some of TOLD_HERE; NULL: `refusal` holds an ErrorResponse
    cdef Rewrite *r
    with gil:
        try:
            places, tags = e.hooks.own_edits(
                c.link.id, session_of(e, c), c.pool.scope | c.codec_bits, sql[:n], bool(resets)
            )
            if len(tags) > TAGS:
                raise ValueError("too many LISTEN and NOTIFY in one text")
            r = rewrite_by(c, places, sql, n, tail, tail_size)
            if r.result_size > e.max_statement:
                e.refusal = e.hooks.refuse_size(session_of(e, c), r.result_size)
                rewrite_unref(r)
                return NULL
            r.tags_size = <uint8_t> len(tags)
            memcpy(r.tags, PyBytes_AS_STRING(<bytes> tags), len(tags))
            return r
        except Exception:
            e.refusal = e.hooks.bug_message()
            return NULL


cdef void up_hear(Relay e, Client *c, Server *s) noexcept nogil:
    # `heard` follows, unless `hearing` is taken back
    with gil:
        try:
            if not e.hooks.hear(c.link.id, s.link.id, s.ring.count <= 1):
                s.hearing = 0
        except Exception:
            s.hearing = 0
            e.hooks.on_bug(c.link.id)


cdef void up_unlisten(Relay e, Client *c) noexcept nogil:
    # DISCARD ALL
    c.listens = 0
    with gil:
        try:
            e.hooks.unlisten(c.link.id)
        except Exception:
            e.hooks.on_bug(c.link.id)


cdef Rewrite *rewrite_by(
    Client *c, places, const char *sql, size_t n, const char *tail, size_t tail_size
) except NULL:
    cdef Edits *edits = edits_pack(places)
    cdef Rewrite *r = rewrite_new(edits, c.pool.scope | c.codec_bits, sql, n, NULL, 0, tail, tail_size)
    free(edits)
    if r == NULL:
        raise ValueError("edits do not fit the statement")
    return r


cdef int up_deallocate(Relay e, Client *c, const char *sql, size_t n, bint alone) noexcept nogil:
    # 1: answered without the server (`refusal` then holds the CommandComplete); 0: goes to the server;
    # 2: goes to the server, which then has none of the pool's statements left.  `alone`: the text of a simple query
    with gil:
        try:
            result = e.hooks.deallocate(c.link.id, c.pool.scope | c.codec_bits, sql[:n], c.pinned, bool(alone))
            if isinstance(result, bytes):
                e.refusal = result
                return 1
            return 2 if result else 0
        except Exception:
            e.refusal = e.hooks.bug_message()
            return 1


cdef void up_pinned(Relay e, Client *c, const char *sql, size_t n) noexcept nogil:
    with gil:
        try:
            e.hooks.on_pinned(c.link.id, session_of(e, c), c.pool.scope | c.codec_bits, sql[:n])
        except Exception:
            e.log.exception("counting a pin")


# --- servers ------------------------------------------------------------------


cdef void up_demand(Relay e, Pool *p) noexcept nogil:
    e.called_us = e.now_us
    with gil:
        try:
            e.hooks.on_demand(p.id)
        except Exception:
            e.log.exception("opening a server")


cdef void up_crowded(Relay e, Pool *p) noexcept nogil:
    e.called_us = e.now_us
    with gil:
        try:
            e.hooks.on_crowded(p.id, p.last_startup)
        except Exception:
            e.log.exception("opening one more server")


cdef void up_server_connected(Relay e, Server *s) noexcept nogil:
    e.called_us = e.now_us
    with gil:
        try:
            e.hooks.on_server_connected(s.link.id)
        except Exception:
            e.hooks.on_server_bug(s.link.id)


cdef void up_server_message(Relay e, Server *s, const char *data, size_t n) noexcept nogil:
    e.called_us = e.now_us
    with gil:
        try:
            e.hooks.on_server_message(s.link.id, data[0] & 255, data[5:n] if n > 5 else b"")
        except Exception:
            e.hooks.on_server_bug(s.link.id)


cdef void up_server_gone(Relay e, Server *s, int reason) noexcept nogil:
    with gil:
        try:
            e.hooks.on_server_gone(s.link.id, s.pool.id, take_object(&s.info), reason)
        except Exception:
            e.log.exception("closing a server")


cdef bint up_error(Relay e, Server *s, const char *data, size_t n, Rewrite *rewrite) noexcept nogil:
    # counts an error by class; a FATAL one ends the session.  True: `refusal` goes to the client in its place
    with gil:
        try:
            fatal, message = e.hooks.on_error(s.client.pool.id if s.client != NULL else s.pool.id, data[5:n],
                                              _both(rewrite))
            if fatal:
                s.told_fatal = <uint8_t> fatal
                s.close_needed = 1
            if s.client != NULL and s.client.tracks and b'"tp_' in data[5:n]:
                message = e.hooks.own_statements(s.client.link.id, data[:n] if message is None else message)
            if message is not None:
                e.refusal = message
                return True
        except Exception:
            e.log.exception("reading an error")
        return False


cdef bint up_notice(Relay e, Server *s, const char *data, size_t n, Rewrite *rewrite) noexcept nogil:
    # True: `refusal` goes to the client in its place
    with gil:
        try:
            message = e.hooks.on_notice(s.client.link.id, s.client.pool.id, data[5:n], _both(rewrite))
            if message is not None:
                e.refusal = message
                return True
        except Exception:
            e.log.exception("reading a notice")
        return False


cdef object _both(Rewrite *r):
    # the scope, the client's own text, what the server got, and the places: start and end in the one, start
    # and size in the other
    cdef uint32_t k
    if r == NULL:
        return None
    places = [(r.edits[k].start, r.edits[k].end, r.edits[k].at, r.edits[k].size) for k in range(r.count)]
    return r.scope, r.text[:r.size], r.result[:r.result_size], places


cdef void up_encoding(Relay e, Client *c, const char *data, size_t n) noexcept nogil:
    # `data` is the value of client_encoding that the server reports
    with gil:
        try:
            c.codec_bits = e.hooks.on_encoding(data[:n])
        except Exception:
            e.log.exception("reading client_encoding")


# --- settings -----------------------------------------------------------------


cdef int up_sync_settings(Relay e, Server *s, Client *c) noexcept nogil:
    # brings the server from its settings to the client's; 1: the client must wait until it has them, 0: it
    # need not, -1: failed
    with gil:
        try:
            message, awaited = e.hooks.sync_message(s.settings_id, c.settings_id)
            ring_push(&s.ring, R_QUERY, ACT_SKIP | ACT_SYNC, NULL, 0)
            s.settings_id = c.settings_id
            # a simple query ends the unnamed statement
            s.unnamed_id = 0
            e.send(&s.link, PyBytes_AS_STRING(<bytes> message), PyBytes_GET_SIZE(<bytes> message))
            return 1 if awaited else 0
        except Exception:
            e.log.exception("composing settings")
            return -1


cdef void up_patience(Relay e, Pool *g) noexcept nogil:
    # `group_patience` is to be called soon
    with gil:
        try:
            e.hooks.on_patience(g.id)
        except Exception:
            e.log.exception("waiting for a server")


cdef void up_escalate(Relay e, Client *c) noexcept nogil:
    # `refusal` tells a client to try its transaction again: it will run on a server of its own
    with gil:
        e.refusal = e.hooks.on_escalation(c.pool.id)


cdef void up_unread(Relay e, Client *c) noexcept nogil:
    e.called_us = e.now_us
    # the client waits until its tenant's code has been read
    with gil:
        try:
            e.hooks.on_unread(c.link.id, c.pool.id)
        except Exception:
            e.hooks.on_bug(c.link.id)


cdef int up_quiesce(Relay e, Client *c) noexcept nogil:
    # 1: the client waits, and is read again when others may have finished; 0: it has waited too long, and
    # `refusal` says so
    with gil:
        try:
            refusal = e.hooks.on_quiesce(c.link.id, c.pool.id)
            if refusal is None:
                return 1
            e.refusal = refusal
            return 0
        except Exception:
            e.refusal = e.hooks.bug_message()
            return 0


cdef void up_switch_failed(Relay e, Client *c, const char *data, size_t n) noexcept nogil:
    with gil:
        try:
            e.hooks.on_switch_failed(session_of(e, c), data[5:n])
        except Exception:
            e.log.exception("reading why a switch failed")


cdef int up_ask_settings(Relay e, Server *s) noexcept nogil:
    with gil:
        try:
            message = e.hooks.ask_message(s.link.id, session_of(e, s.client))
            ring_push(&s.ring, R_QUERY, ACT_SKIP | ACT_ASK, NULL, 0)
            s.unnamed_id = 0
            e.send(&s.link, PyBytes_AS_STRING(<bytes> message), PyBytes_GET_SIZE(<bytes> message))
            return 0
        except Exception:
            e.log.exception("asking for settings")
            return -1


cdef void up_ask_row(Relay e, Server *s, const char *data, size_t n) noexcept nogil:
    with gil:
        try:
            e.hooks.on_ask_row(s.link.id, data[5:n])
        except Exception:
            s.failed = 1
            e.log.exception("reading settings")


cdef int up_ask_done(Relay e, Server *s, Client *c) noexcept nogil:
    with gil:
        try:
            session = session_of(e, c) if c != NULL else None
            if s.pool.is_group:
                s.settings_id, wanted = e.hooks.on_ask_shared_done(s.link.id, s.tenant.id, s.startup_id, session)
            else:
                s.settings_id, wanted = e.hooks.on_ask_done(s.link.id, session)
            if c != NULL:
                c.settings_id = wanted
            return 0
        except Exception:
            e.log.exception("reading settings")
            return -1


# --- references to Python objects in C structs ---------------------------------


cdef object get_object(void *o):
    return <object> <PyObject *> o if o != NULL else None


cdef object session_of(Relay e, Client *c):
    # of a client that came in by relay.entry it is made when somebody asks
    cdef object session
    if c.session == NULL and c.admitted != NULL:
        session = e.hooks.make_session(c.link.id, get_object((<Admitted *> c.admitted).admission),
                                       c.pool.id, c.minor, c.link.tls != NULL)
        Py_INCREF(session)
        c.session = <void *> session
    return get_object(c.session)


cdef object take_object(void **where):
    cdef object o = None
    if where[0] != NULL:
        o = <object> <PyObject *> where[0]
        where[0] = NULL
        Py_DECREF(o)
    return o


cdef void keep_refusal(Relay e, void **where) noexcept nogil:
    with gil:
        o = e.refusal
        Py_INCREF(o)
        where[0] = <void *> o


cdef void drop_object(void *o) noexcept nogil:
    with gil:
        if o != NULL:
            Py_DECREF(<object> <PyObject *> o)


cdef int send_object(Relay e, Link *l, void *o) noexcept nogil:
    with gil:
        return e.send(l, PyBytes_AS_STRING(<object> <PyObject *> o), PyBytes_GET_SIZE(<object> <PyObject *> o))


cdef int send_refusal(Relay e, Link *l) noexcept nogil:
    with gil:
        return e.send(l, PyBytes_AS_STRING(e.refusal), PyBytes_GET_SIZE(e.refusal))


cdef const char *refusal_data(Relay e) noexcept nogil:
    with gil:
        return PyBytes_AS_STRING(e.refusal)


cdef size_t refusal_size(Relay e) noexcept nogil:
    with gil:
        return PyBytes_GET_SIZE(e.refusal)
