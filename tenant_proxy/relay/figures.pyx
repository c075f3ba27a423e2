"""What the engine counts, as plain Python data: for the metrics, SHOW, and draining."""

from libc.stdint cimport uint32_t, uint64_t

from tenant_proxy.net.reactor cimport KIND_CLIENT, KIND_SERVER, Link
from tenant_proxy.pool.pool cimport (
    BUCKETS, ESCALATIONS, CL_ACTIVE, CL_ADMIN, CL_CLOSING, CL_IDLE, CL_LOGIN, CL_LOGIN_WAITING, CL_PARTING, CL_SKIP_TO_SYNC,
    CL_STARTUP, CL_WAITING, SV_ACTIVE, SV_CANCELING, SV_CLEANING, SV_CLOSING, SV_CONNECT, SV_IDLE, SV_LISTENING,
    SV_LOGIN,
    Client, Pool, Server,
)
from tenant_proxy.relay.core cimport REASONS, get_object, session_of
from tenant_proxy.relay.entry cimport Entry
from tenant_proxy.wire.consts cimport XACT_IDLE

from tenant_proxy.relay.core import Reason

CLIENT_STATES = {
    CL_STARTUP: "login", CL_LOGIN: "login", CL_LOGIN_WAITING: "waiting_login", CL_IDLE: "idle",
    CL_WAITING: "waiting", CL_ACTIVE: "active", CL_SKIP_TO_SYNC: "idle", CL_ADMIN: "admin", CL_CLOSING: "closing",
    CL_PARTING: "active",
}
SERVER_STATES = {
    SV_CONNECT: "login", SV_LOGIN: "login", SV_IDLE: "idle", SV_ACTIVE: "active", SV_CLEANING: "tested",
    SV_CANCELING: "being_canceled", SV_CLOSING: "closing", SV_LISTENING: "listening",
}


cdef class Figures(Entry):
    """The part of the engine that only looks."""

    def open_counts(self):
        """(clients, logins in progress, servers)"""
        return self.clients_open, self.logins_open, self.servers_open

    def busy_clients(self):
        """Clients with a statement or transaction under way."""
        cdef size_t i
        cdef Link *l
        cdef Client *c
        cdef int n = 0
        if self.links.slots != NULL:
            for i in range(self.links.mask + 1):
                l = <Link *> self.links.slots[i].value
                if l != NULL and l.kind == KIND_CLIENT and is_busy(<Client *> l):
                    n += 1
        return n

    def client_ids(self, uint32_t pool_id):
        """Ids of a pool's clients."""
        cdef size_t i
        cdef Link *l
        cdef list ids = []
        if self.links.slots != NULL:
            for i in range(self.links.mask + 1):
                l = <Link *> self.links.slots[i].value
                if l != NULL and l.kind == KIND_CLIENT and (<Client *> l).pool != NULL and (<Client *> l).pool.id == pool_id:
                    ids.append(l.id)
        return ids

    def settings_in_use(self):
        """Numbers of the sets of settings that clients, servers and pools have."""
        cdef size_t i
        cdef Link *l
        cdef set numbers = set()
        if self.links.slots != NULL:
            for i in range(self.links.mask + 1):
                l = <Link *> self.links.slots[i].value
                if l == NULL:
                    continue
                if l.kind == KIND_CLIENT:
                    numbers.add((<Client *> l).startup_id)
                    numbers.add((<Client *> l).settings_id)
                    numbers.add((<Client *> l).reset_id)
                elif l.kind == KIND_SERVER:
                    numbers.add((<Server *> l).startup_id)
                    numbers.add((<Server *> l).settings_id)
        if self.pools.slots != NULL:
            for i in range(self.pools.mask + 1):
                if self.pools.slots[i].value != NULL:
                    numbers.add((<Pool *> self.pools.slots[i].value).last_startup)
        return numbers

    def counters(self):
        cdef size_t i
        return {
            "clients_accepted": self.clients_accepted,
            "clients_open": self.clients_open,
            "servers_open": self.servers_open,
            "client_ends": {Reason(i).name.lower(): self.client_ends[i] for i in range(<size_t> REASONS) if self.client_ends[i]},
            "server_ends": {Reason(i).name.lower(): self.server_ends[i] for i in range(<size_t> REASONS) if self.server_ends[i]},
        }

    def pool_figures(self):
        """One dict a pool: its counters, and how many clients and servers are in which state."""
        cdef size_t i
        cdef Link *l
        cdef Pool *p
        cdef Client *c
        cdef dict figures = {}
        if self.pools.slots == NULL:
            return []
        for i in range(self.pools.mask + 1):
            p = <Pool *> self.pools.slots[i].value
            if p != NULL:
                figures[p.id] = {
                    "id": p.id, "clients": p.clients, "waiting": p.waiting, "total": p.total, "idle": p.idle_count,
                    "opening": p.opening, "max": p.max, "pinned": p.pinned, "xacts": p.xacts, "queries": p.queries,
                    "bytes_in": p.bytes_in, "bytes_out": p.bytes_out, "xact_us": p.xact_us, "query_us": p.query_us,
                    "wait_us": p.wait_us, "assignments": p.assignments, "client_parses": p.client_parses,
                    "server_parses": p.server_parses, "binds": p.binds, "rejected": p.rejected,
                    "prepared_hits": p.prepared_hits, "prepared_misses": p.prepared_misses,
                    "prepared_evictions": p.prepared_evictions, "session_mode": bool(p.session_mode),
                    "shared_active": p.share.active, "shared_waiting": p.share.waiting,
                    "width": p.group.width.limit if p.group != NULL and p.group.width.limit > 0 else 0,
                    "switches": p.switches, "kept": p.kept, "begins_own": bool(p.begins_own),
                    "escalated": [p.escalated[k] for k in range(<int> ESCALATIONS)],
                    "wait_hist": [p.wait_hist[k] for k in range(BUCKETS)],
                    "query_hist": [p.query_hist[k] for k in range(BUCKETS)],
                    "cl_active": 0, "cl_waiting": 0, "sv_active": 0, "sv_idle": 0, "sv_login": 0, "sv_tested": 0,
                    "sv_being_canceled": 0, "sv_listening": 0, "maxwait_us": 0,
                }
        if self.links.slots == NULL:
            return list(figures.values())
        for i in range(self.links.mask + 1):
            l = <Link *> self.links.slots[i].value
            if l == NULL:
                continue
            if l.kind == KIND_CLIENT and (<Client *> l).pool != NULL and (<Client *> l).phase != CL_CLOSING:
                # what one that is closing has moved is in the pool's own counters already
                c = <Client *> l
                one = figures[c.pool.id]
                one["bytes_in"] += l.bytes_in
                one["bytes_out"] += l.bytes_out
                if c.queued:
                    one["cl_waiting"] += 1
                    if self.now_us > c.request_us:
                        one["maxwait_us"] = max(one["maxwait_us"], self.now_us - c.request_us)
                else:
                    one["cl_active"] += 1
            elif l.kind == KIND_SERVER and (<Server *> l).phase != SV_CLOSING:
                one = figures[(<Server *> l).pool.id]
                one["sv_" + SERVER_STATES[(<Server *> l).phase]] += 1
        return list(figures.values())

    def client_rows(self):
        """(id, session, state, connect_us, request_us, wait_us, server's id, tx status, pinned, statements, fd)"""
        cdef size_t i
        cdef Link *l
        cdef Client *c
        cdef list rows = []
        if self.links.slots != NULL:
            for i in range(self.links.mask + 1):
                l = <Link *> self.links.slots[i].value
                if l != NULL and l.kind == KIND_CLIENT and (<Client *> l).phase != CL_CLOSING:
                    c = <Client *> l
                    rows.append((l.id, session_of(self, c), CLIENT_STATES[c.phase], c.connect_us, c.request_us,
                                 c.wait_us, c.server.link.id if c.server != NULL else 0, chr(c.xact_status),
                                 bool(c.pinned), c.stmts.count, l.fd, l.tls != NULL, c.pid))
        return rows

    def server_rows(self):
        """(id, pool id, info, state, connect_us, request_us, client's id, tx status, close needed, statements, fd)"""
        cdef size_t i
        cdef Link *l
        cdef Server *s
        cdef list rows = []
        if self.links.slots != NULL:
            for i in range(self.links.mask + 1):
                l = <Link *> self.links.slots[i].value
                if l != NULL and l.kind == KIND_SERVER and (<Server *> l).phase != SV_CLOSING:
                    s = <Server *> l
                    rows.append((l.id, s.pool.id, get_object(s.info), SERVER_STATES[s.phase], s.connect_us,
                                 s.assigned_us, s.client.link.id if s.client != NULL else 0, chr(s.xact_status),
                                 bool(s.close_needed), s.stmts.count, l.fd, l.tls != NULL, s.pid))
        return rows


cdef bint is_busy(Client *c) noexcept nogil:
    if c.phase == CL_WAITING or c.phase == CL_LOGIN_WAITING or c.phase == CL_LOGIN or c.phase == CL_STARTUP:
        return c.phase == CL_WAITING
    return c.judging or c.server != NULL and (c.server.ring.count > 0 or c.server.batch_open or c.server.xact_status != XACT_IDLE)
