"""The engine as Python sees it: links by their ids, pools by theirs, sweeps and snapshots.

An id that no longer exists is not an error: the link ended meanwhile, and the call does nothing.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from tenant_proxy.auth.digest cimport same_bytes
from tenant_proxy.guard.cache cimport VerdictCache
from tenant_proxy.net.reactor cimport KEEP_SOCKET_MS, KIND_CLIENT, KIND_SERVER, Link, Reactor
from tenant_proxy.pool.fair cimport slot_take
from tenant_proxy.pool.pool cimport (
    ACT_SKIP, CL_ACTIVE, CL_ADMIN, CL_CLOSING, CL_IDLE, CL_LOGIN, CL_LOGIN_WAITING, CL_STARTUP, CL_WAITING,
    LANE_OWN, LANE_SHARED, PACE_GOES, PACE_WAITS, PREFIX_BYTES, R_COPY_END, R_QUERY, SV_ACTIVE, SV_CANCELING, SV_CLEANING, SV_CLOSING,
    SV_CONNECT, SV_IDLE, SV_LOGIN, Client,
    ClientStmt, Pool, Server, Tenant, ring_at, usage_bill, usage_enter, usage_tell,
)
from tenant_proxy.relay.client cimport client_bytes, client_drained, client_eof, client_free
from tenant_proxy.relay.core cimport (
    CONNECT_FAILED, EVICTED, GONE, IDLE, IDLE_IN_TRANSACTION, JUDGED, JUDGING, LIFETIME, LOGIN_TIMEOUT,
    QUERY_TIMEOUT, QUEUE_TIMEOUT, RESET_FAILED, RETIRED, SERVER_UNAVAILABLE, SETTINGS_FAILED, Relay, get_object,
    session_of,
)
from tenant_proxy.relay.entry cimport cancel_key, entry_free, greeted, proved
from tenant_proxy.relay.figures cimport is_busy
from tenant_proxy.relay.overdue cimport client_overdue, server_overdue
from tenant_proxy.relay.groups cimport fail_members
from tenant_proxy.relay.pairing cimport (
    client_end, client_fail, demand, make_available, maybe_release, obtain, server_end, settled, wants_more,
)
from tenant_proxy.relay.server cimport server_bytes, server_drained, server_eof, server_free
from tenant_proxy.relay.readings cimport note_readings
from tenant_proxy.relay.sessions cimport Sessions
from tenant_proxy.relay.statements cimport (
    NAME_BYTES, client_drop_unnamed, client_find, client_forget, client_forget_all, hash_bytes, server_name,
)
from tenant_proxy.wire.buf cimport buf_append
from tenant_proxy.wire.consts cimport XACT_IDLE
from tenant_proxy.wire.ptrmap cimport PtrSlot, map_add, map_find, map_get, map_remove

cdef Link *on_accept(Reactor r, int fd, int local) noexcept nogil:
    return accept_client(<Relay> r, fd, local)


cdef Link *accept_client(Relay e, int fd, int local) noexcept nogil:
    cdef Client *c
    if e.clients_open >= e.max_clients + e.max_logins:
        # too many to even be told; those between the two limits are
        return NULL
    c = <Client *> calloc(1, sizeof(Client))
    if c == NULL:
        return NULL
    c.link.local = local
    c.phase = CL_STARTUP
    c.xact_status = XACT_IDLE
    c.connect_us = c.active_us = e.now_us
    e.clients_accepted += 1
    e.clients_open += 1
    e.logins_open += 1
    e.attach(&c.link, fd, KIND_CLIENT)
    return &c.link


cdef class Engine(Sessions):
    """The data plane of one worker.  Not thread-safe: everything happens in the loop's thread."""

    def __init__(self, hooks, VerdictCache verdicts, *, max_statement_bytes, max_gathered_bytes, send_buffer_bytes, max_clients,
                 max_logins, offers_tls):
        self.hooks = hooks
        self.verdicts = verdicts
        self.roles[<int> KIND_CLIENT].on_bytes = client_bytes
        self.roles[<int> KIND_CLIENT].on_eof = client_eof
        self.roles[<int> KIND_CLIENT].on_drained = client_drained
        self.roles[<int> KIND_CLIENT].on_free = forget_client
        self.roles[<int> KIND_SERVER].on_bytes = server_bytes
        self.roles[<int> KIND_SERVER].on_eof = server_eof
        self.roles[<int> KIND_SERVER].on_drained = server_drained
        self.roles[<int> KIND_SERVER].on_free = server_free
        self.on_accept = on_accept
        self.set_limits(max_statement_bytes=max_statement_bytes, max_gathered_bytes=max_gathered_bytes, send_buffer_bytes=send_buffer_bytes,
                        max_clients=max_clients, max_logins=max_logins, offers_tls=offers_tls)

    def set_limits(self, *, max_statement_bytes, max_gathered_bytes, send_buffer_bytes, max_clients, max_logins, offers_tls):
        """Takes the limits of a configuration; those in force before hold for what is under way."""
        self.max_statement = max_statement_bytes
        self.max_gathered = max_gathered_bytes
        self.send_limit = send_buffer_bytes
        self.max_clients = max_clients if max_clients else 0x7fffffff
        self.max_logins = max_logins
        self.offers_tls = offers_tls

    # --- clients ----------------------------------------------------------------

    cdef Client *client(self, uint64_t id) noexcept:
        cdef Link *l = self.get(id)
        return <Client *> l if l != NULL and l.kind == KIND_CLIENT and (<Client *> l).phase != CL_CLOSING else NULL

    def adopt_client(self, int fd, bytes data, bint local):
        """Takes over a connection whose first bytes another worker has read; returns its id, 0 if refused."""
        cdef Link *l
        self.tick()
        l = accept_client(self, fd, local)
        if l == NULL:
            return 0
        buf_append(&l.inb, data, len(data))
        self.make_ready(l)
        id = l.id
        # may end and free it
        self.poke()
        return id

    def client_send(self, uint64_t id, bytes data):
        cdef Client *c = self.client(id)
        if c != NULL:
            self.send(&c.link, data, len(data))

    def client_end(self, uint64_t id, int reason, bytes last=b""):
        """Ends a client, after `last` is sent to it."""
        cdef Client *c = self.client(id)
        if c != NULL:
            if last and not (c.server != NULL and c.server.stream_left and c.server.relaying):
                self.send(&c.link, last, len(last))
            client_end(self, c, reason)

    def client_login(self, uint64_t id):
        """The startup packet is read: from here on messages have a type."""
        cdef Client *c = self.client(id)
        if c != NULL:
            c.phase = CL_LOGIN

    def client_hold(self, uint64_t id, bint held):
        """Leaves the client's messages unread while something outside is awaited."""
        cdef Client *c = self.client(id)
        if c != NULL:
            c.held = held
            if not held:
                self.unpause(&c.link)
                self.make_ready(&c.link)

    def client_paced(self, uint64_t id):
        """The turn of the statement that the client waits with has come."""
        cdef Client *c = self.client(id)
        if c != NULL and c.paced == PACE_WAITS:
            c.paced = PACE_GOES
            self.unpause(&c.link)
            self.make_ready(&c.link)

    def client_judged(self, uint64_t id):
        """The statement that the client waits with is judged, or may be offered again."""
        cdef Client *c = self.client(id)
        if c != NULL and c.judging:
            c.judging = JUDGED
            self.unpause(&c.link)
            self.make_ready(&c.link)

    def client_admin(self, uint64_t id, session, bytes greeting):
        """Greets a client of the admin console."""
        cdef Client *c = self.client(id)
        if c == NULL:
            return
        self.own_session(c, session)
        self.send(&c.link, greeting, len(greeting))
        c.phase = CL_ADMIN
        c.greeted = 1
        proved(self, c)

    def client_enter(self, uint64_t id, uint32_t pool_id, uint32_t startup_id, uint32_t settings_id, session, int minor):
        """An authenticated client joins its pool; it is greeted by `client_greet`."""
        cdef Client *c = self.client(id)
        cdef Pool *p = self.pool(pool_id)
        if c == NULL or p == NULL:
            return
        self.own_session(c, session)
        proved(self, c)
        c.pool = p
        c.startup_id = startup_id
        c.settings_id = c.reset_id = settings_id
        c.minor = minor
        c.tracks = not p.session_mode
        c.pinned = p.session_mode
        p.clients += 1
        usage_enter(p, self.now_us)
        p.last_startup = startup_id

    def client_want_server(self, uint64_t id):
        """The greeting needs a server: `hooks.on_greet` is called when there is one."""
        cdef Client *c = self.client(id)
        cdef Server *s
        if c == NULL:
            return
        c.phase = CL_LOGIN_WAITING
        c.lane = LANE_SHARED if c.pool.group != NULL and c.pool.known else LANE_OWN
        s = obtain(self, c)
        if s == NULL:
            return
        if s.pool.is_group:
            settled(self, s)
            return
        # as a server that has just become free: greets, and in transaction mode goes on to the next
        c.server = NULL
        s.client = NULL
        self.greet_with(c, s)

    cdef void greet_with(self, Client *c, Server *s):
        from_id = c.link.id
        c.server = s
        s.client = c
        c.phase = CL_ACTIVE
        self.hooks.on_greet(from_id, session_of(self, c), s.link.id, get_object(s.info))
        c = self.client(from_id)
        if c == NULL or c.server == NULL:
            return
        self.unpause(&c.link)
        self.make_ready(&c.link)
        if not c.pinned:
            s = c.server
            c.server = NULL
            c.phase = CL_IDLE
            s.client = NULL
            make_available(self, s)

    def client_greet(self, uint64_t id, bytes greeting, int32_t pid, bytes key):
        """Sends the end of the login; the client may now send statements, and is cancelled by this key."""
        cdef Client *c = self.client(id)
        if c == NULL:
            return
        note_readings(self, c, greeting, len(greeting))
        self.send(&c.link, greeting, len(greeting))
        greeted(self, c, pid, <const uint8_t *> <const char *> key, len(key))

    def client_retry(self, uint64_t id):
        """Reads again what the client has sent and what was held."""
        cdef Client *c = self.client(id)
        if c != NULL:
            self.unpause(&c.link)
            self.make_ready(&c.link)

    cdef void own_session(self, Client *c, session):
        Py_INCREF(session)
        c.session = <void *> session

    def session(self, uint64_t id):
        """What `client_enter` was given, or None."""
        cdef Client *c = self.client(id)
        return session_of(self, c) if c != NULL else None

    def client_forget_statements(self, uint64_t id, names):
        """Forgets the client's prepared statements of these names (None: all); True if all were known."""
        cdef Client *c = self.client(id)
        return c != NULL and forget_statements(self, c, names)

    def client_statements(self, uint64_t id, names):
        """Of these names those that the client has made by Parse, and what servers know them by."""
        cdef Client *c = self.client(id)
        cdef ClientStmt *cs
        cdef char text[NAME_BYTES]
        cdef bytes name
        cdef size_t k
        cdef dict found = {}
        for name in names if c != NULL else ():
            cs = client_find(c, hash_bytes(self.seed, name, len(name)), name, len(name))
            if cs != NULL:
                k = server_name(cs.stmt, text)
                found[name] = text[:k]
        return found

    def cancel_done(self, uint64_t server_id):
        """The server has closed the connection that carried a cancel request for it."""
        cdef Server *s = self.server(server_id)
        if s == NULL:
            return
        s.cancels -= 1
        if s.cancels:
            return
        if s.phase == SV_CANCELING:
            make_available(self, s)
            self.poke()
        elif s.phase == SV_ACTIVE and s.settings_changed:
            maybe_release(self, s)
            self.poke()

    # --- servers ----------------------------------------------------------------

    cdef Server *server(self, uint64_t id) noexcept:
        cdef Link *l = self.get(id)
        return <Server *> l if l != NULL and l.kind == KIND_SERVER and (<Server *> l).phase != SV_CLOSING else NULL

    def server_open(self, uint32_t pool_id, int fd, uint32_t startup_id, info, bint local):
        """A socket whose connect() is under way becomes a server of the pool; returns its id."""
        cdef Pool *p = self.pool(pool_id)
        cdef Server *s = <Server *> calloc(1, sizeof(Server))
        if s == NULL or p == NULL:
            free(s)
            raise MemoryError
        s.pool = p
        s.phase = SV_CONNECT
        s.slot = -1
        s.xact_status = XACT_IDLE
        s.startup_id = startup_id
        s.connect_us = self.now_us
        s.link.connecting = 1
        s.link.local = local
        Py_INCREF(info)
        s.info = <void *> info
        p.total += 1
        p.opening += 1
        self.servers_open += 1
        self.attach(&s.link, fd, KIND_SERVER)
        return s.link.id

    def server_send(self, uint64_t id, bytes data):
        cdef Server *s = self.server(id)
        if s != NULL:
            self.send(&s.link, data, len(data))

    def server_login(self, uint64_t id):
        """The startup packet is sent: from here on the server's messages have a type."""
        cdef Server *s = self.server(id)
        if s != NULL:
            s.phase = SV_LOGIN

    def server_ready(self, uint64_t id, int32_t pid, uint64_t expires_us):
        """The server's login is complete."""
        cdef Server *s = self.server(id)
        if s == NULL:
            return
        s.pid = pid
        s.expires_us = expires_us
        s.pool.opening -= 1
        s.pool.down = 0
        s.phase = SV_ACTIVE
        if s.pool.is_group:
            slot_take(s.pool, s)
        make_available(self, s)

    def server_end(self, uint64_t id, int reason):
        cdef Server *s = self.server(id)
        if s != NULL:
            server_end(self, s, reason)

    # --- pools ------------------------------------------------------------------

    cdef Pool *pool(self, uint32_t id) noexcept:
        return <Pool *> map_get(&self.pools, id)

    def pool_open(self, uint32_t tenant, **settings):
        """Makes a pool; `tenant` is Python's number of whose it is, `settings` as in `pool_update`; returns its id."""
        cdef Pool *p = <Pool *> calloc(1, sizeof(Pool))
        if p == NULL:
            raise MemoryError
        p.owner = <Tenant *> map_get(&self.owners, tenant)
        if p.owner == NULL:
            p.owner = <Tenant *> calloc(1, sizeof(Tenant))
            if p.owner == NULL:
                free(p)
                raise MemoryError
            p.owner.id = tenant
            map_add(&self.owners, tenant, p.owner)
        self.next_pool += 1
        p.id = self.next_pool
        p.usage = &self.usage_of_none
        map_add(&self.pools, p.id, p)
        self.pool_update(p.id, **settings)
        return p.id

    def pool_update(self, uint32_t id, *, uint32_t scope, int guard_mode, bint session_mode, int max, int min,
                    int queue_limit, bint fail_when_down, uint32_t max_prepared, bytes reset_query,
                    queue_timeout_s, query_timeout_s, idle_in_transaction_timeout_s, client_idle_timeout_s,
                    server_idle_timeout_s, connect_timeout_s, size_t max_prepared_bytes, int max_pins=0, int pins_index=-1,
                    int waits_index=-1, int defined_index=-1, bint defers=False, bint translates=False, bytes prefix=b"", bytes own=b""):
        """Sets a pool's limits.  `reset_query` is a complete Query message or empty; `guard_mode` 0 enforce,
        1 observe, 2 off.  The pool mode of clients that are already in does not change.  `pins_index` is the
        shared counter of the tenant's pinned clients, of whom there may be `max_pins`, `waits_index` that of those that
        wait, and its clients' named statements hold `max_prepared_bytes` at most.  `defers`: BEGIN takes no server.
        `defined_index` is that of changes of its schema's definitions.

        `translates`: servers' messages may need names turned back.  `prefix` is what channels begin with on the
        server, `own` the schema that clients call public; empty for none.
        """
        cdef Pool *p = self.pool(id)
        p.guard_mode = guard_mode
        p.session_mode = session_mode
        p.max = max
        p.min = min
        p.queue_limit = queue_limit
        p.fail_when_down = fail_when_down
        p.max_prepared = max_prepared
        p.max_pins = max_pins
        p.defers = defers
        p.pins_index = pins_index
        p.waits_index = waits_index
        p.owner.max_stmt_bytes = max_prepared_bytes
        p.defined_index = defined_index
        self.pool_names(id, scope, translates, prefix, own)
        p.retired = 0
        free(p.reset_query)
        p.reset_size = len(reset_query)
        p.reset_query = <char *> malloc(p.reset_size + 1)
        memcpy(p.reset_query, <const char *> reset_query, p.reset_size)
        p.queue_timeout_us = <uint64_t> (queue_timeout_s * 1e6)
        p.query_timeout_us = <uint64_t> (query_timeout_s * 1e6)
        p.idle_xact_timeout_us = <uint64_t> (idle_in_transaction_timeout_s * 1e6)
        p.client_idle_us = <uint64_t> (client_idle_timeout_s * 1e6)
        p.server_idle_us = <uint64_t> (server_idle_timeout_s * 1e6)
        p.connect_timeout_us = <uint64_t> (connect_timeout_s * 1e6)

    def pool_names(self, uint32_t id, uint32_t scope, bint translates, bytes prefix, bytes own):
        """The part of `pool_update` that changes when it is learnt what a server has installed."""
        cdef Pool *p = self.pool(id)
        if len(prefix) > PREFIX_BYTES or len(own) > 63:
            raise ValueError("too long")
        p.scope = scope
        p.translates = translates
        p.prefix_size = <uint8_t> len(prefix)
        memcpy(p.prefix, <const char *> prefix, len(prefix))
        p.own_size = <uint8_t> len(own)
        memcpy(p.own, <const char *> own, len(own))

    def pool_retire(self, uint32_t id):
        """Closes the pool's servers as they come free."""
        cdef Pool *p = self.pool(id)
        p.retired = 1
        while p.idle_last != NULL:
            server_end(self, p.idle_last, RETIRED)
        self.expire_servers(id)

    def expire_servers(self, uint32_t id):
        """Servers opened until now are not used again once they are free.  Those that are being opened end at once:
        nobody may answer there any more, and clients would wait for them."""
        cdef size_t i
        cdef Link *l
        cdef list unused = []
        if self.links.slots == NULL:
            return
        for i in range(self.links.mask + 1):
            l = <Link *> self.links.slots[i].value
            if l != NULL and l.kind == KIND_SERVER and (<Server *> l).pool.id == id:
                (<Server *> l).close_needed = 1
                if (<Server *> l).phase in (SV_IDLE, SV_CONNECT, SV_LOGIN):
                    unused.append(l.id)
        for one in unused:
            self.server_end(one, RETIRED)

    def pool_wanted(self, uint32_t id):
        """startup_id of a server that the pool wants opened now, None if none."""
        cdef Pool *p = self.pool(id)
        cdef Client *c = p.wait_first
        if p.retired or p.total >= p.max:
            return None
        if p.is_group:
            return p.last_startup if wants_more(p) or p.total < p.min else None
        if p.waiting <= p.opening:
            # nobody needs one, but so many are kept ready
            return p.last_startup if p.total < p.min and p.last_startup and not p.stopped else None
        if p.opening and waits_for_several(p):
            c = uncovered(p, opening_for(self, p))
        return c.startup_id

    def pool_state(self, uint32_t id):
        """(servers of every phase, of these being opened, idle, waiting clients, clients, pool's maximum)"""
        cdef Pool *p = self.pool(id)
        return p.total, p.opening, p.idle_count, p.waiting, p.clients, p.max

    def pool_down(self, uint32_t id, uint32_t startup_id, retry_s):
        """A server with these settings could not be opened, and is not tried again for `retry_s`: with
        `fail_when_down`, clients that wait for one are told, unless there is another that will come free."""
        cdef Pool *p = self.pool(id)
        cdef Client *c = p.wait_first
        cdef Client *following
        cdef Link *l
        cdef size_t i
        p.down = 1
        p.retry_us = self.now_us + <uint64_t> (retry_s * 1e6)
        if p.is_group:
            if p.fail_when_down and p.total == p.opening:
                fail_members(self, p)
            return
        if not p.fail_when_down or c == NULL:
            return
        for i in range(self.links.mask + 1):
            l = <Link *> self.links.slots[i].value
            if (l != NULL and l.kind == KIND_SERVER and (<Server *> l).pool == p
                    and (<Server *> l).startup_id == startup_id and (<Server *> l).phase > SV_LOGIN
                    and (<Server *> l).phase != SV_CLOSING):
                return
        while c != NULL:
            following = c.wait_next
            if c.startup_id == startup_id:
                client_fail(self, c, SERVER_UNAVAILABLE, 0)
            c = following

    def fail_waiting(self, uint32_t id, uint32_t startup_id, bytes message):
        """Ends the waiting clients that want a server opened with these settings."""
        cdef Pool *p = self.pool(id)
        cdef Client *c = p.wait_first
        cdef Client *following
        while c != NULL:
            following = c.wait_next
            if c.startup_id == startup_id:
                self.send(&c.link, message, len(message))
                client_end(self, c, SERVER_UNAVAILABLE)
            c = following

    def pool_demand(self, uint32_t id):
        demand(self, self.pool(id))

    def evict_idle(self, pool_ids):
        """Closes the least recently used idle server of these pools; True if there was one."""
        cdef Pool *p
        cdef Server *oldest = NULL
        for id in pool_ids:
            p = self.pool(id)
            if p != NULL and p.idle_last != NULL and p.idle_count > p.min:
                if oldest == NULL or p.idle_last.idle_since_us < oldest.idle_since_us:
                    oldest = p.idle_last
        if oldest == NULL:
            return False
        server_end(self, oldest, EVICTED)
        return True

    # --- time -------------------------------------------------------------------

    def sweep(self, uint64_t login_timeout_us):
        """Ends what has been waiting, idle or running for too long; called a few times a second."""
        cdef size_t i
        cdef Link *l
        cdef uint64_t now
        cdef int reason
        cdef list due = []
        self.tick()
        self.wake_listeners()
        now = self.now_us
        if self.links.slots == NULL:
            return
        for i in range(self.links.mask + 1):
            l = <Link *> self.links.slots[i].value
            if l == NULL:
                continue
            if l.closing:
                if now // 1000 - l.closing_since_ms > KEEP_SOCKET_MS:
                    due.append((l.id, -1))
            elif l.kind == KIND_CLIENT:
                if (<Client *> l).pool != NULL:
                    usage_tell(<Client *> l)
                reason = client_overdue(<Client *> l, now, login_timeout_us)
                if reason:
                    due.append((l.id, reason))
            elif l.kind == KIND_SERVER:
                if (<Server *> l).client != NULL:
                    usage_bill(<Server *> l, (<Server *> l).client.pool, now)
                reason = server_overdue(<Server *> l, now)
                if reason:
                    due.append((l.id, reason))
        for id, why in due:
            l = self.get(id)
            if l == NULL:
                continue
            if why < 0:
                self.close(l)
            elif l.kind == KIND_SERVER:
                if why == IDLE and (<Server *> l).pool.total <= (<Server *> l).pool.min:
                    # others have gone before it
                    continue
                server_end(self, <Server *> l, why)
            else:
                self.fail_overdue(<Client *> l, why, now)
        self.poke()

    cdef void fail_overdue(self, Client *c, int reason, uint64_t now):
        cdef uint64_t detail = 0
        if reason == QUEUE_TIMEOUT:
            detail = (now - c.request_us) // 1000
        elif reason == QUERY_TIMEOUT and c.server != NULL:
            # closing the connection does not stop the statement
            self.hooks.on_query_timeout(get_object(c.server.info))
        if reason == GONE:
            client_end(self, c, GONE)
        else:
            client_fail(self, c, reason, detail)

    def end_slow_logins(self, uint64_t older_than_us):
        """Makes room for others' logins: ends those not authenticated after this time; True if there was one."""
        cdef size_t i
        cdef Link *l
        cdef Client *c
        cdef list slow = []
        for i in range(self.links.mask + 1):
            l = <Link *> self.links.slots[i].value
            if l != NULL and l.kind == KIND_CLIENT and not l.closing:
                c = <Client *> l
                if (c.phase == CL_STARTUP or c.phase == CL_LOGIN) and self.now_us > c.connect_us + older_than_us:
                    slow.append(l.id)
        for id in slow:
            client_fail(self, <Client *> self.get(id), LOGIN_TIMEOUT, 0)
        return len(slow) > 0

    # --- ends ---------------------------------------------------------------------

    def end_idle_clients(self, int reason, bytes last):
        """Ends the clients that have nothing under way; returns how many are left."""
        cdef size_t i
        cdef Link *l
        cdef list idle = []
        if self.links.slots != NULL:
            for i in range(self.links.mask + 1):
                l = <Link *> self.links.slots[i].value
                if l != NULL and l.kind == KIND_CLIENT and not l.closing and not is_busy(<Client *> l):
                    idle.append(l.id)
        for id in idle:
            self.client_end(id, reason, last)
        self.poke()
        return self.clients_open

    def end_all_clients(self, int reason, bytes last):
        cdef size_t i
        cdef list ids = []
        if self.links.slots != NULL:
            ids = [self.links.slots[i].key for i in range(self.links.mask + 1)
                   if self.links.slots[i].value != NULL and (<Link *> self.links.slots[i].value).kind == KIND_CLIENT]
        for id in ids:
            self.client_end(id, reason, last)
        self.poke()


cdef list opening_for(Relay e, Pool *p):
    # startup_ids of the servers that are being opened
    cdef size_t i
    cdef Link *l
    cdef list found = []
    for i in range(e.links.mask + 1):
        l = <Link *> e.links.slots[i].value
        if l != NULL and l.kind == KIND_SERVER and not l.closing and (<Server *> l).pool == p \
                and ((<Server *> l).phase == SV_CONNECT or (<Server *> l).phase == SV_LOGIN):
            found.append((<Server *> l).startup_id)
    return found


cdef bint waits_for_several(Pool *p) noexcept nogil:
    cdef Client *c = p.wait_first
    while c != NULL and c.startup_id == p.wait_first.startup_id:
        c = c.wait_next
    return c != NULL


cdef Client *uncovered(Pool *p, list opening):
    # The first that waits for none of the servers that are being opened.  Whose turn it is must be among those, or
    # others' are closed for it as they come, without an end.
    cdef Client *c = p.wait_first
    cdef Client *first = c
    while c != NULL:
        if c.startup_id not in opening:
            return c
        opening.remove(c.startup_id)
        c = c.wait_next
    return first


cdef bint forget_statements(Relay e, Client *c, names):
    cdef ClientStmt *cs
    cdef bytes name
    if names is None:
        client_forget_all(c)
        client_drop_unnamed(c)
        return True
    found = [name for name in names
             if client_find(c, hash_bytes(e.seed, name, len(name)), name, len(name)) != NULL]
    if len(found) != len(names):
        return False
    for name in found:
        cs = client_find(c, hash_bytes(e.seed, name, len(name)), name, len(name))
        if cs != NULL:
            client_forget(c, cs)
    return True


cdef void forget_client(Reactor r, Link *l) noexcept nogil:
    forget_key(<Relay> r, <Client *> l)
    entry_free(<Relay> r, <Client *> l)
    client_free(r, l)


cdef void forget_key(Relay e, Client *c) noexcept nogil:
    cdef PtrSlot *slot
    if not c.key_size:
        return
    slot = map_find(&e.keys, cancel_key(c.pid, c.key), NULL)
    while slot != NULL:
        if slot.value == c:
            map_remove(&e.keys, slot)
            return
        slot = map_find(&e.keys, cancel_key(c.pid, c.key), slot)
