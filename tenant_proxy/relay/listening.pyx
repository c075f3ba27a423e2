"""Ears, as Python sets them up and hears of them (relay.ears, relay.hearing)."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from tenant_proxy.net.reactor cimport KIND_CLIENT, KIND_SERVER, Link
from tenant_proxy.pool.pool cimport CL_CLOSING, SV_CLOSING, SV_LISTENING, Client, Pool, Server
from tenant_proxy.relay.hearing cimport heard, notify_client
from tenant_proxy.wire.ptrmap cimport map_get


cdef class Listening(Groups):
    """What of the engine is about clients that listen."""

    def pool_ear(self, uint32_t id, uint32_t startup_id, bint wanted):
        """Makes a pool that of an ear, opened with these settings while it is wanted."""
        cdef Pool *p = <Pool *> map_get(&self.pools, id)
        p.last_startup = startup_id
        p.min = p.max = wanted

    def server_listens(self, uint64_t id, int32_t pid):
        """A server's login is complete, and it is an ear: its messages go to `hooks.on_server_message`."""
        cdef Link *l = self.get(id)
        cdef Server *s = <Server *> l
        if l == NULL or l.kind != KIND_SERVER or s.phase == SV_CLOSING:
            return
        s.pid = pid
        s.pool.opening -= 1
        s.pool.down = 0
        s.phase = SV_LISTENING

    def server_heard(self, uint64_t id, uint64_t client):
        """The client's ear has told all that was notified before `hooks.hear` was called for this server."""
        cdef Link *l = self.get(id)
        cdef Server *s = <Server *> l
        if l != NULL and l.kind == KIND_SERVER and s.hearing and s.client != NULL and s.client.link.id == client:
            heard(self, s)

    def client_listens(self, uint64_t id, bint listens):
        """Whether an ear listens for the client."""
        cdef Client *c = self.listener(id)
        if c != NULL:
            c.listens = listens

    def server_notifier(self, uint64_t id):
        """The process id of the client whose statement there may have notified last, and its pool; 0: not known."""
        cdef Link *l = self.get(id)
        cdef Server *s = <Server *> l
        if l == NULL or l.kind != KIND_SERVER:
            return 0, 0
        return s.notifier, s.notifier_pool

    def notify(self, ids, int32_t pid, int32_t notifier, bytes message):
        """Tells clients of a notification by a server process; returns those that read another encoding."""
        cdef Client *c
        cdef list others = []
        for id in ids:
            c = self.listener(id)
            if c == NULL:
                continue
            if c.codec_bits:
                others.append((id, c.codec_bits))
            else:
                notify_client(self, c, message, len(message), pid, notifier)
        return others

    def notify_one(self, uint64_t id, int32_t pid, int32_t notifier, bytes message):
        """… one of them, in its encoding."""
        cdef Client *c = self.listener(id)
        if c != NULL:
            notify_client(self, c, message, len(message), pid, notifier)

    cdef Client *listener(self, uint64_t id) noexcept:
        cdef Link *l = self.get(id)
        return <Client *> l if l != NULL and l.kind == KIND_CLIENT and (<Client *> l).phase != CL_CLOSING else NULL
