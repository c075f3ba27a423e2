# The sockets: an epoll of its own, itself one fd in the event loop, and a Link per socket.
#
# A Link is a C struct (docs/decisions/0001): pairing two links is a pointer assignment, which a
# Python object would not allow without the GIL.  Roles embed a Link as their first member.
# Bytes arrive by `on_bytes`, which says how many it used; what it leaves is kept in `inb`.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tenant_proxy.wire.buf cimport Buf
from tenant_proxy.wire.ptrmap cimport PtrMap

cdef enum LinkKind:
    KIND_LISTENER = 0
    KIND_CLIENT = 1
    KIND_SERVER = 2
    KIND_WAKER = 3                # what the loop reads itself

cdef enum:
    SCRATCH_BYTES = 131072        # one read, at most
    KEEP_SOCKET_MS = 2000         # how long a closing link waits for its peer to read the last error

cdef struct Link:
    int fd
    uint8_t kind                  # LinkKind
    uint8_t dead                  # closed; freed at the end of the round
    uint8_t closing               # nothing more is processed; closes when `out` is sent and the peer is gone
    uint8_t paused                # reads nothing for now; EPOLLIN goes when the next byte arrives
    uint8_t ready                 # in the reactor's list of links to resume
    uint8_t detached              # the peer hung up while the link was paused: out of epoll until it is read
    uint8_t connecting            # waits for connect() to end
    uint8_t local                 # a unix socket
    uint8_t unsent                # `out` has not been tried to be sent: it waits for the end of the round
    uint8_t listed                # in the reactor's list of those
    uint8_t urgent                # goes before the others of a round
    uint8_t shared                # another process may have the descriptor too
    uint8_t accepts               # of a listener: how many connections are accepted at once
    uint32_t interest             # what epoll is registered for
    uint64_t id                   # never used twice; the handle that Python has
    uint64_t closing_since_ms
    uint64_t accepted_in          # of a listener: the round behind the last that accepted
    uint64_t bytes_in
    uint64_t bytes_out
    size_t need                   # bytes that the message at the head of `inb` will have, 0 if unknown
    void *tls                     # a TlsLayer (owned reference) or NULL
    Buf inb                       # received, not used yet
    Buf out                       # to be sent
    Link *next_ready
    Link *next_unsent
    Link *next_dead

# What the roles implement.  `used` tells how many bytes were consumed.
ctypedef int (*bytes_fn)(Reactor r, Link *l, char *data, size_t n, size_t *used) noexcept nogil
ctypedef void (*event_fn)(Reactor r, Link *l) noexcept nogil
ctypedef Link *(*accept_fn)(Reactor r, int fd, int local) noexcept nogil

cdef struct Role:
    bytes_fn on_bytes
    event_fn on_eof               # the peer is gone, or reading failed
    event_fn on_drained           # `out` is empty again, or the connect ended
    event_fn on_free              # gives back what the role's struct owns

cdef class Reactor:
    cdef int epfd
    cdef bint use_epoll
    cdef object loop
    cdef object log
    cdef char *scratch
    cdef uint64_t now_us          # wall time of this round, microseconds since the epoch
    cdef uint64_t next_id
    cdef PtrMap links             # id -> Link*
    cdef Link *first_ready
    cdef Link *first_dead
    cdef Link *unsent[3]          # by the order in which they are sent: urgent ones, servers, clients
    cdef Role roles[3]
    cdef accept_fn on_accept
    cdef size_t send_limit        # bytes waiting in `out` above which the writer is held back
    cdef bint accepting
    cdef bint busy                # in a round or settling: what Python calls from there does not begin another
    cdef bint starved             # no descriptor or memory for another connection: listeners rest
    cdef bint started
    cdef bint draining_scheduled
    cdef uint8_t waits            # of the last eight waits between rounds, which have brought something
    cdef uint64_t left_us         # when it went back to the loop without waiting; 0: it has waited
    cdef Link waker
    cdef bint woken               # the loop has something to read
    cdef uint64_t called_us       # when Python was last given something that it may answer later
    cdef uint64_t rounds
    cdef uint64_t frees

    # life of a link
    cdef void attach(self, Link *l, int fd, uint8_t kind) noexcept nogil
    cdef void close(self, Link *l) noexcept nogil
    cdef void close_after_send(self, Link *l) noexcept nogil
    cdef Link *get(self, uint64_t id) noexcept nogil
    # bytes
    cdef int send(self, Link *l, const char *data, size_t n) noexcept nogil
    cdef void detach(self, Link *l) noexcept nogil
    cdef void pause(self, Link *l) noexcept nogil
    cdef void unpause(self, Link *l) noexcept nogil
    cdef void make_ready(self, Link *l) noexcept nogil
    # internals
    cdef int send_raw(self, Link *l, const char *data, size_t n) noexcept nogil
    cdef void keep_unsent(self, Link *l) noexcept nogil
    cdef void send_list(self, int order) noexcept nogil
    cdef void send_unsent(self, Link *l) noexcept nogil
    cdef void flush(self, Link *l) noexcept nogil
    cdef void set_interest(self, Link *l) noexcept nogil
    cdef void readable(self, Link *l) noexcept nogil
    cdef void process_inb(self, Link *l) noexcept nogil
    cdef void accept(self, Link *l) noexcept nogil
    cdef void rest(self, Link *l) noexcept nogil
    cdef void wake_listeners(self) noexcept nogil
    cdef void dispatch(self, Link *l, uint32_t events) noexcept nogil
    cdef void settle(self) noexcept nogil
    cdef void tick(self) noexcept nogil
    cdef void run_rounds(self) noexcept nogil
    cdef int run_round(self, int timeout_ms) noexcept nogil
