"""Clients as sessions: what they were told of themselves, and their process ids (guard.own_session, relay.signals)."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from tenant_proxy.auth.digest cimport same_bytes
from tenant_proxy.pool.pool cimport (
    ACT_SKIP, CL_CLOSING, R_COPY_END, R_QUERY, SV_ACTIVE, Client, ClientStmt, Pool, Server, ring_at,
)
from tenant_proxy.relay.core cimport JUDGING, get_object
from tenant_proxy.relay.entry cimport cancel_key
from tenant_proxy.relay.statements cimport NAME_BYTES, server_name
from tenant_proxy.wire.ptrmap cimport PtrSlot, map_find, map_get


cdef class Sessions(Listening):
    """What of the engine is about sessions and those of others."""

    def client_pid(self, uint64_t id):
        """The process id that the client was greeted with; 0: it has gone."""
        cdef Client *c = self.listener(id)
        return c.pid if c != NULL else 0

    def client_prepared(self, uint64_t id):
        """The client's named statements: what servers know them by, its own names, texts, and their age in us."""
        cdef Client *c = self.listener(id)
        cdef ClientStmt *cs
        cdef char name[NAME_BYTES]
        cdef size_t i, k
        cdef list found = []
        if c == NULL or c.stmts.slots == NULL:
            return found
        for i in range(c.stmts.mask + 1):
            cs = <ClientStmt *> c.stmts.slots[i].value
            if cs == NULL:
                continue
            k = server_name(cs.stmt, name)
            text = (cs.stmt.body[:strlen(cs.stmt.body)] if cs.rewrite == NULL
                    else cs.rewrite.text[:cs.rewrite.size])
            found.append((name[:k], cs.name[:cs.name_len], text, self.now_us - cs.made_us))
        return found

    def clients_of(self, uint64_t pool_id, pids):
        """process id -> client, of those of a pool's clients that were greeted with one of these, or have the
        backend of such a number."""
        cdef Pool *p = <Pool *> map_get(&self.pools, pool_id)
        cdef Client *c
        cdef size_t i
        cdef dict found = {}
        if p == NULL or p.clients == 0 or self.keys.slots == NULL:
            return found
        for i in range(self.keys.mask + 1):
            c = <Client *> self.keys.slots[i].value
            if c == NULL or c.pool != p or c.phase == CL_CLOSING:
                continue
            if c.pid in pids:
                found[c.pid] = c.link.id
            elif c.server != NULL and c.server.pid in pids:
                found[c.server.pid] = c.link.id
        return found

    def client_cancel(self, uint64_t id):
        """(server id, its info) of the statement that the client runs, or None.  The server then waits for
        `cancel_done`."""
        cdef Client *c = self.listener(id)
        return self.cancel(c) if c != NULL else None

    def find_cancel(self, int32_t pid, bytes key):
        """As `client_cancel`, of the client that has this cancel key; False when no client here has it."""
        cdef PtrSlot *slot
        cdef Client *c
        cdef char first[4]
        if len(key) < 4:
            return False
        memcpy(first, <const char *> key, 4)
        slot = map_find(&self.keys, cancel_key(pid, <uint8_t *> first), NULL)
        while slot != NULL:
            c = <Client *> slot.value
            if c.pid == pid and c.key_size == <size_t> len(key) and same_bytes(c.key, <const uint8_t *> <const char *> key,
                                                                                c.key_size):
                return self.cancel(c)
            slot = map_find(&self.keys, cancel_key(pid, <uint8_t *> first), slot)
        return False

    cdef cancel(self, Client *c):
        cdef Server *s = c.server
        if c.judging == JUDGING and (s == NULL or not runs(s)):
            self.hooks.on_cancel_judging(c.link.id)
            return None
        if s == NULL or s.phase != SV_ACTIVE or not runs(s) or s.cancels == 255:
            return None
        s.cancels += 1
        return s.link.id, get_object(s.info)


cdef bint runs(Server *s) noexcept nogil:
    # Something of its client's, and nothing of the proxy's own that a cancel would hit in its place.
    cdef uint32_t i
    if s.ring.count and ring_at(&s.ring, 0).action & ACT_SKIP and ring_at(&s.ring, 0).request == R_QUERY:
        return False
    for i in range(s.ring.count):
        if not ring_at(&s.ring, i).action & ACT_SKIP and ring_at(&s.ring, i).request != R_COPY_END:
            return True
    return False
