"""Sockets and their event loop, without the GIL where bytes only pass.

One `Reactor` serves one worker.  Its epoll descriptor is registered with the asyncio loop, which
calls `run` when any socket is ready; `run` then takes rounds of its own until it is quiet.
Without epoll (not Linux, or TP_NO_EPOLL=1) each socket is registered with the loop instead.
"""

import os

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport (
    EAGAIN, ECONNABORTED, ECONNRESET, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPIPE, errno,
)
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from tenant_proxy.net.layered cimport tls_readable, tls_say_goodbye, tls_send
from tenant_proxy.net.sockets cimport (
    EPOLLERR, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CLOEXEC, EPOLL_CTL_ADD,
    EPOLL_CTL_DEL, EPOLL_CTL_MOD, MSG_NOSIGNAL, SHUT_WR, TP_HAS_EPOLL, TP_INHERITS, c_close, c_send,
    c_shutdown, epoll_create1, epoll_ctl, epoll_event, epoll_wait, recv, tp_accept, tp_address, tp_bits,
    tp_connect_error, tp_nodelay, tp_now_us,
)
from tenant_proxy.wire.buf cimport buf_append, buf_consume, buf_free, buf_len, buf_reserve
from tenant_proxy.wire.ptrmap cimport PtrSlot, map_add, map_find, map_free, map_get, map_remove

cdef enum:
    EVENTS = 128                 # events taken from epoll at once
    QUIET_MS = 2                 # how long to wait for more before going back to the loop …
    LONG_QUIET_MS = 20           # … while no client or server waits for its callbacks
    WAITS_FIT = 3                # … while so many of the last eight waits have brought something
    STAY_US = 3000               # after this the loop's other callbacks get their turn …
    LONG_STAY_US = 40000         # … likewise
    CALLED_US = 100000           # one may wait for this long after Python has been told of it
    ACCEPTS = 64                 # connections accepted at once
    UNSENT_BYTES = 8192          # of a link, kept for the end of a round
    READ_BYTES = 16384           # room made for a read into `inb`
    URGENT = 0                   # Reactor.unsent
    SERVERS = 1
    CLIENTS = 2


cdef class Reactor:

    def __cinit__(self):
        self.epfd = -1
        self.scratch = <char *> malloc(SCRATCH_BYTES)
        if self.scratch == NULL:
            raise MemoryError
        self.now_us = tp_now_us()
        self.send_limit = 256 * 1024
        self.accepting = True

    def __dealloc__(self):
        if self.scratch != NULL:
            free(self.scratch)
        map_free(&self.links)
        if self.epfd >= 0:
            c_close(self.epfd)

    # --- start and stop ---------------------------------------------------

    def start(self, loop, log):
        """Registers with the event loop.  Raises OSError when the descriptor can't be made."""
        self.loop = loop
        self.log = log
        self.use_epoll = TP_HAS_EPOLL and os.environ.get("TP_NO_EPOLL") != "1"
        if self.use_epoll:
            self.epfd = epoll_create1(EPOLL_CLOEXEC)
            if self.epfd < 0:
                raise OSError(errno, os.strerror(errno))
            loop.add_reader(self.epfd, self.run)
        self.started = True

    def stop(self):
        """Takes the reactor off the loop and closes every link."""
        cdef Link *l
        cdef size_t i
        if not self.started:
            return
        self.started = False
        if self.epfd >= 0:
            self.loop.remove_reader(self.epfd)
        cdef list ids = [self.links.slots[i].key for i in range(self.links.mask + 1) if self.links.slots[i].value != NULL] \
            if self.links.slots != NULL else []
        for id in ids:
            l = self.get(id)
            if l != NULL:
                self.close(l)
        self.settle()

    def run(self):
        """One call of the event loop: rounds until it has been quiet for a moment, or STAY_US are over.

        Going back to the loop after each round would cost as much as the round; the loop's other callbacks wait
        for so long.  A moment is waited only while that has paid lately: else each event wakes the process twice.
        """
        with nogil:
            self.run_rounds()

    cdef void run_rounds(self) noexcept nogil:
        cdef uint64_t start = tp_now_us()
        cdef bint called = start - self.called_us < CALLED_US
        cdef int patience_ms = QUIET_MS if called else LONG_QUIET_MS
        cdef uint64_t stay = STAY_US if called else LONG_STAY_US
        cdef int timeout_ms = 0
        cdef int n
        if self.left_us:
            self.waits = <uint8_t> (self.waits << 1) | (start - self.left_us < <uint64_t> patience_ms * 1000)
            self.left_us = 0
        while True:
            n = self.run_round(timeout_ms)
            if timeout_ms:
                self.waits = <uint8_t> (self.waits << 1) | (n > 0)
            elif n == 0:
                self.left_us = self.now_us
            if n <= 0 or self.woken or self.now_us - start >= stay:
                self.woken = False
                return
            if self.called_us >= start:
                # what Python has begun goes on in the loop
                patience_ms = QUIET_MS
                stay = STAY_US
            timeout_ms = patience_ms if tp_bits(self.waits) >= WAITS_FIT else 0

    cdef int run_round(self, int timeout_ms) noexcept nogil:
        cdef epoll_event events[EVENTS]
        cdef Link *l
        cdef int i
        cdef bint urgent = False
        cdef int n = epoll_wait(self.epfd, events, EVENTS, timeout_ms)
        if n <= 0:
            return n
        self.tick()
        self.busy = True
        # Servers first: those that died are then known before a client is given one, those that are done
        # are free for the next; and the client processes that replies wake are woken together.
        for i in range(n):
            l = <Link *> events[i].data.ptr
            if l.kind == KIND_SERVER:
                self.dispatch(l, events[i].events)
            elif l.urgent:
                urgent = True
        if urgent:
            # Single short statements wait neither for what else has come nor, by their writes, for the processes
            # that its replies wake.
            for i in range(n):
                l = <Link *> events[i].data.ptr
                if l.kind != KIND_SERVER and l.urgent:
                    self.dispatch(l, events[i].events)
                    events[i].events = 0
        self.send_list(URGENT)
        for i in range(n):
            l = <Link *> events[i].data.ptr
            if l.kind != KIND_SERVER and events[i].events:
                self.dispatch(l, events[i].events)
        self.busy = False
        self.settle()
        self.rounds += 1
        return n

    cdef void tick(self) noexcept nogil:
        self.now_us = tp_now_us()

    cdef void settle(self) noexcept nogil:
        # Links that got something to do from other links' events, what is to be sent, then the dead.  Not from
        # inside a round: its events and callers still hold links, and a burst is being composed.
        cdef Link *l
        if self.busy:
            return
        self.busy = True
        while self.first_ready != NULL:
            l = self.first_ready
            self.first_ready = l.next_ready
            l.ready = 0
            if not l.dead and not l.closing and not l.paused:
                self.process_inb(l)
                if not l.dead and not l.closing:
                    self.set_interest(l)
        # this makes nothing ready: an error is told by the read side
        self.send_list(URGENT)
        self.send_list(SERVERS)
        self.send_list(CLIENTS)
        while self.first_dead != NULL:
            l = self.first_dead
            self.first_dead = l.next_dead
            buf_free(&l.inb)
            buf_free(&l.out)
            if l.tls != NULL:
                release_object(l.tls)
                l.tls = NULL
            if self.roles[l.kind].on_free != NULL:
                self.roles[l.kind].on_free(self, l)
            else:
                free(l)
            self.frees += 1
        self.busy = False

    def poke(self):
        """Runs what Python code has made ready; inside a round that comes at its end anyway."""
        self.tick()
        self.called_us = self.now_us
        with nogil:
            self.settle()

    # --- life of a link ---------------------------------------------------

    cdef void attach(self, Link *l, int fd, uint8_t kind) noexcept nogil:
        cdef epoll_event ev
        self.next_id += 1
        l.id = self.next_id
        l.fd = fd
        l.kind = kind
        map_add(&self.links, l.id, l)
        if l.connecting:
            l.interest = EPOLLOUT
        elif kind == KIND_LISTENER:
            l.interest = EPOLLIN
        else:
            l.interest = EPOLLIN | EPOLLRDHUP
        if self.use_epoll:
            ev.events = l.interest | (EPOLLEXCLUSIVE if kind == KIND_LISTENER else 0)
            ev.data.ptr = l
            epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &ev)
        else:
            loop_watch(self, l.fd, l.id, l.interest)

    cdef void close(self, Link *l) noexcept nogil:
        cdef PtrSlot *slot
        cdef epoll_event ev
        if l.dead:
            return
        if l.unsent:
            c_send(l.fd, l.out.data + l.out.start, buf_len(&l.out), MSG_NOSIGNAL)
        l.dead = 1
        if not self.use_epoll:
            loop_watch(self, l.fd, l.id, 0)
        elif l.kind == KIND_LISTENER or l.shared:
            # close() is not enough where another process has the socket too
            epoll_ctl(self.epfd, EPOLL_CTL_DEL, l.fd, &ev)
        c_close(l.fd)
        l.fd = -1
        slot = map_find(&self.links, l.id, NULL)
        if slot != NULL:
            map_remove(&self.links, slot)
        l.next_dead = self.first_dead
        self.first_dead = l

    cdef void close_after_send(self, Link *l) noexcept nogil:
        # Bytes that a peer has sent and nobody reads make close() a reset, which can overtake the last
        # error: so the socket is half closed and read empty for a while.
        if l.dead or l.closing:
            return
        if l.tls != NULL:
            tls_say_goodbye(self, l)
        l.closing = 1
        l.closing_since_ms = self.now_us // 1000
        buf_free(&l.inb)
        if buf_len(&l.out) == 0:
            c_shutdown(l.fd, SHUT_WR)
        self.set_interest(l)

    cdef Link *get(self, uint64_t id) noexcept nogil:
        return <Link *> map_get(&self.links, id)

    # --- events -----------------------------------------------------------

    cdef void dispatch(self, Link *l, uint32_t events) noexcept nogil:
        if l.dead:
            return
        if l.kind == KIND_LISTENER:
            self.accept(l)
            return
        if l.kind == KIND_WAKER:
            self.woken = True
            return
        if l.connecting:
            l.connecting = 0
            self.roles[l.kind].on_drained(self, l)
            if not l.dead:
                self.set_interest(l)
            return
        if events & EPOLLOUT:
            self.flush(l)
            if l.dead:
                return
        if events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP):
            if l.paused and not l.closing:
                if not events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP):
                    self.set_interest(l)
                elif l.kind == KIND_SERVER:
                    # its last words are still to be read, when its client has read those before
                    self.detach(l)
                else:
                    self.roles[l.kind].on_eof(self, l)
                return
            self.readable(l)

    cdef void accept(self, Link *l) noexcept nogil:
        # One at a time, so that no call ends with EAGAIN; more at once while there are more.
        cdef int fd
        cdef int i
        cdef Link *new
        if not self.accepting:
            return
        l.accepts = l.accepts * 2 if l.accepted_in == self.rounds and l.accepts < ACCEPTS else 1
        l.accepted_in = self.rounds + 1
        for i in range(l.accepts):
            fd = tp_accept(l.fd)
            if fd < 0:
                if errno == EINTR or errno == ECONNABORTED:
                    continue
                if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                    self.rest(l)
                return
            # TCP_NODELAY and SO_KEEPALIVE are the listener's, where accepted sockets inherit them
            if not TP_INHERITS and not l.local:
                tp_nodelay(fd)
            new = self.on_accept(self, fd, l.local)
            if new == NULL:
                c_close(fd)
            elif TP_INHERITS and not l.local:
                # the kernel has kept it until it had something to say (listeners.DEFER_S)
                self.readable(new)

    cdef void rest(self, Link *l) noexcept nogil:
        # connections that can't be accepted would wake us without end
        cdef epoll_event ev
        if not self.use_epoll or l.paused:
            return
        l.paused = 1
        self.starved = True
        epoll_ctl(self.epfd, EPOLL_CTL_DEL, l.fd, &ev)

    cdef void wake_listeners(self) noexcept nogil:
        cdef epoll_event ev
        cdef Link *l
        cdef size_t i
        if not self.starved:
            return
        self.starved = False
        for i in range(self.links.mask + 1):
            l = <Link *> self.links.slots[i].value
            if l != NULL and l.kind == KIND_LISTENER and l.paused:
                l.paused = 0
                ev.events = l.interest | EPOLLEXCLUSIVE
                ev.data.ptr = l
                epoll_ctl(self.epfd, EPOLL_CTL_ADD, l.fd, &ev)

    cdef void readable(self, Link *l) noexcept nogil:
        cdef ssize_t n
        cdef size_t used = 0
        cdef size_t room
        cdef bint direct = buf_len(&l.inb) == 0 and l.tls == NULL
        if direct or l.tls != NULL or l.closing:
            n = recv(l.fd, self.scratch, SCRATCH_BYTES, 0)
        else:
            room = READ_BYTES
            if l.need > buf_len(&l.inb) and l.need - buf_len(&l.inb) > room:
                room = l.need - buf_len(&l.inb)
                if room > 1048576:
                    room = 1048576
            if buf_reserve(&l.inb, room) != 0:
                self.roles[l.kind].on_eof(self, l)
                return
            n = recv(l.fd, l.inb.data + l.inb.end, l.inb.cap - l.inb.end, 0)
        if n < 0:
            if errno == EAGAIN or errno == EINTR:
                return
        if l.closing:
            if n <= 0:
                self.close(l)
            return
        if n <= 0:
            self.roles[l.kind].on_eof(self, l)
            return
        l.bytes_in += n
        if l.tls != NULL:
            tls_readable(self, l, n)
            if not l.dead and not l.closing:
                self.process_inb(l)
        elif direct:
            if self.roles[l.kind].on_bytes(self, l, self.scratch, n, &used) == 0 and not l.dead and not l.closing:
                if used < <size_t> n and buf_append(&l.inb, self.scratch + used, n - used) != 0:
                    self.roles[l.kind].on_eof(self, l)
        else:
            l.inb.end += n
            self.process_inb(l)

    cdef void process_inb(self, Link *l) noexcept nogil:
        cdef size_t used = 0
        if buf_len(&l.inb) == 0 or (l.need > buf_len(&l.inb)):
            return
        if self.roles[l.kind].on_bytes(self, l, l.inb.data + l.inb.start, buf_len(&l.inb), &used) != 0:
            return
        if not l.dead and not l.closing:
            buf_consume(&l.inb, used)

    # --- writing ----------------------------------------------------------

    cdef int send(self, Link *l, const char *data, size_t n) noexcept nogil:
        # 0: sent or kept for later; 1: kept, and the writer should hold back; -1: the link is dead
        if l.dead:
            return -1
        l.bytes_out += n
        if l.tls != NULL:
            return tls_send(self, l, data, n)
        return self.send_raw(l, data, n)

    cdef int send_raw(self, Link *l, const char *data, size_t n) noexcept nogil:
        # Within a round what is short waits for its end (`settle`).  Each send wakes a process, often in this
        # one's place; servers are woken before clients, which find more to do at once then.  Measured with 16
        # clients: a third fewer switches in our place, some 5 % more transactions.
        cdef ssize_t k = 0
        if self.busy and not l.connecting and (l.unsent or buf_len(&l.out) == 0):
            if buf_len(&l.out) + n <= UNSENT_BYTES:
                if buf_append(&l.out, data, n) != 0:
                    return -1
                self.keep_unsent(l)
                return 0
            if l.unsent:
                self.send_unsent(l)
        if buf_len(&l.out) == 0 and not l.connecting:
            k = c_send(l.fd, data, n, MSG_NOSIGNAL)
            if k == <ssize_t> n:
                return 0
            if k < 0:
                if errno != EAGAIN and errno != EINTR:
                    # the read side will report the end; until then the bytes are lost with the link
                    return -1
                k = 0
        if buf_append(&l.out, data + k, n - k) != 0:
            return -1
        if not (l.interest & EPOLLOUT):
            self.set_interest(l)
        return 1 if buf_len(&l.out) > self.send_limit else 0

    cdef void keep_unsent(self, Link *l) noexcept nogil:
        # it stays in the list until the round's end, even if it is sent before
        cdef int order = URGENT if l.urgent else SERVERS if l.kind == KIND_SERVER else CLIENTS
        l.unsent = 1
        if l.listed:
            return
        l.listed = 1
        l.next_unsent = self.unsent[order]
        self.unsent[order] = l

    cdef void send_list(self, int order) noexcept nogil:
        cdef Link *l
        while self.unsent[order] != NULL:
            l = self.unsent[order]
            self.unsent[order] = l.next_unsent
            l.listed = 0
            if not l.dead:
                self.send_unsent(l)

    cdef void send_unsent(self, Link *l) noexcept nogil:
        # Of an error the read side will tell, when it has read what came before.
        cdef ssize_t k
        if not l.unsent:
            return
        l.unsent = 0
        k = c_send(l.fd, l.out.data + l.out.start, buf_len(&l.out), MSG_NOSIGNAL)
        if k < 0 and errno != EAGAIN and errno != EINTR:
            k = buf_len(&l.out)
        if k > 0:
            buf_consume(&l.out, k)
        if l.closing and buf_len(&l.out) == 0:
            c_shutdown(l.fd, SHUT_WR)
        if l.closing or buf_len(&l.out) > 0:
            self.set_interest(l)

    cdef void flush(self, Link *l) noexcept nogil:
        cdef ssize_t k
        if buf_len(&l.out) > 0:
            k = c_send(l.fd, l.out.data + l.out.start, buf_len(&l.out), MSG_NOSIGNAL)
            if k < 0:
                if errno == EAGAIN or errno == EINTR:
                    return
                if l.closing:
                    self.close(l)
                    return
                if errno != EPIPE and errno != ECONNRESET:
                    self.roles[l.kind].on_eof(self, l)
                    return
                # The peer takes no more; what it has said before is still to be read, and then its end.
                k = buf_len(&l.out)
            buf_consume(&l.out, k)
        if l.closing:
            if buf_len(&l.out) == 0:
                c_shutdown(l.fd, SHUT_WR)
                self.set_interest(l)
            return
        if buf_len(&l.out) == 0:
            self.set_interest(l)
        if buf_len(&l.out) <= self.send_limit // 2:
            self.roles[l.kind].on_drained(self, l)

    cdef void set_interest(self, Link *l) noexcept nogil:
        cdef epoll_event ev
        cdef uint32_t wanted = 0
        if l.dead:
            return
        if l.connecting:
            wanted = EPOLLOUT
        else:
            if not l.paused or l.closing:
                wanted = EPOLLIN | EPOLLRDHUP
            if buf_len(&l.out) > 0 and not l.unsent:
                wanted |= EPOLLOUT
        if wanted != l.interest and not (l.detached and not wanted & EPOLLIN):
            l.interest = wanted
            if self.use_epoll:
                ev.events = wanted
                ev.data.ptr = l
                epoll_ctl(self.epfd, EPOLL_CTL_ADD if l.detached else EPOLL_CTL_MOD, l.fd, &ev)
                l.detached = 0
            else:
                loop_watch(self, l.fd, l.id, wanted)

    cdef void detach(self, Link *l) noexcept nogil:
        # a hang-up is reported whatever is asked for: leave epoll until the link is to be read again
        cdef epoll_event ev
        if self.use_epoll:
            epoll_ctl(self.epfd, EPOLL_CTL_DEL, l.fd, &ev)
            l.detached = 1
            l.interest = 0

    cdef void pause(self, Link *l) noexcept nogil:
        l.paused = 1

    cdef void unpause(self, Link *l) noexcept nogil:
        if l.paused:
            l.paused = 0
            if not l.dead:
                self.set_interest(l)
                self.make_ready(l)

    cdef void make_ready(self, Link *l) noexcept nogil:
        if not l.ready and not l.dead:
            l.ready = 1
            l.next_ready = self.first_ready
            self.first_ready = l

    # --- for Python -------------------------------------------------------

    def go_back_for(self, int fd):
        """The loop reads this descriptor: `run` returns to it as soon as there is something to read."""
        cdef epoll_event ev
        if self.use_epoll:
            self.waker.kind = KIND_WAKER
            ev.events = EPOLLIN
            ev.data.ptr = &self.waker
            epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &ev)

    def add_listener(self, int fd, bint local):
        """Accepts from this listening socket; returns the link's id."""
        cdef Link *l = <Link *> malloc(sizeof(Link))
        memset(l, 0, sizeof(Link))
        l.local = local
        l.accepts = 1
        if not local:
            tp_nodelay(fd)
        self.attach(l, fd, KIND_LISTENER)
        return l.id

    def stop_accepting(self):
        """Closes the listeners (of this process)."""
        cdef size_t i
        cdef list listeners = []
        self.accepting = False
        if self.links.slots != NULL:
            for i in range(self.links.mask + 1):
                if self.links.slots[i].value != NULL and (<Link *> self.links.slots[i].value).kind == KIND_LISTENER:
                    listeners.append(self.links.slots[i].key)
        for id in listeners:
            self.close(self.get(id))
        self.settle()

    def link_event(self, uint64_t id, uint32_t events):
        """The loop's own readiness of a socket, where there is no epoll."""
        cdef Link *l = self.get(id)
        self.tick()
        if l != NULL:
            with nogil:
                self.busy = True
                self.dispatch(l, events)
                self.busy = False
                self.settle()

    def connect_error(self, uint64_t id):
        """errno of a connect that has ended; 0 when it succeeded."""
        cdef Link *l = self.get(id)
        return tp_connect_error(l.fd) if l != NULL else -1

    def use_tls(self, uint64_t id, layer):
        """From here on the link's bytes pass through `layer` (net.tls.TlsLayer)."""
        cdef Link *l = self.get(id)
        if l != NULL:
            l.tls = keep_object(layer)

    def tls_of(self, uint64_t id):
        """The layer that the link's bytes pass through, or None."""
        cdef Link *l = self.get(id)
        return <object> <PyObject *> l.tls if l != NULL and l.tls != NULL else None

    def write_raw(self, uint64_t id, bytes data):
        """Sends bytes beneath TLS: the handshake's own records."""
        cdef Link *l = self.get(id)
        if l != NULL and data:
            self.send_raw(l, data, len(data))

    def address(self, uint64_t id, bint peer):
        """(host, port) of the link's peer or of its own end; ("", 0) for a unix socket or an ended link."""
        cdef Link *l = self.get(id)
        cdef char host[64]
        cdef int port = 0
        if l == NULL or tp_address(l.fd, peer, host, sizeof(host), &port) != 0:
            return "", 0
        return (<bytes> host).decode("ascii"), port

    def is_local(self, uint64_t id):
        """Whether the link is a unix socket."""
        cdef Link *l = self.get(id)
        return l != NULL and l.local

    def fileno(self, uint64_t id):
        """The link's descriptor, or -1; it may be passed to another process."""
        cdef Link *l = self.get(id)
        if l != NULL:
            self.send_unsent(l)
            l.shared = 1
        return l.fd if l != NULL else -1


cdef void *keep_object(object o) noexcept:
    Py_INCREF(o)
    return <void *> o


cdef void release_object(void *p) noexcept with gil:
    Py_DECREF(<object> <PyObject *> p)


cdef void loop_watch(Reactor r, int fd, uint64_t id, uint32_t interest) noexcept with gil:
    """Keeps the loop's readers and writers as `interest` says (only where there is no epoll)."""
    if r.loop is None or fd < 0:
        return
    try:
        if interest & EPOLLIN:
            r.loop.add_reader(fd, r.link_event, id, <uint32_t> EPOLLIN)
        else:
            r.loop.remove_reader(fd)
        if interest & EPOLLOUT:
            r.loop.add_writer(fd, r.link_event, id, <uint32_t> EPOLLOUT)
        else:
            r.loop.remove_writer(fd)
    except Exception as error:
        r.log.error("the loop can't watch a socket", error=str(error))
