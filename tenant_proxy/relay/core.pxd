# Relay: what clients, servers and their pairing share: the pools, the guard's cache, the burst being
# written, counters, and the upcalls into Python (`hooks`).  The functions are in pairing, statements,
# client and server; engine makes the whole usable from Python.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from tenant_proxy.auth.digest cimport HmacKey
from tenant_proxy.guard.cache cimport VerdictCache
from tenant_proxy.guard.edits cimport Rewrite
from tenant_proxy.net.reactor cimport Link, Reactor
from tenant_proxy.pool.pool cimport Client, Pool, Server, Usage
from tenant_proxy.wire.ptrmap cimport PtrMap

cdef enum:
    # bits of model.Effect (a test compares them)
    EFF_READS = 1
    EFF_WRITES = 2
    EFF_XACT_CONTROL = 4
    EFF_SETTINGS = 8
    EFF_PINS = 16
    EFF_DEALLOCATES = 32
    EFF_DISCARDS_ALL = 64
    EFF_OPAQUE = 128
    EFF_DDL = 256
    EFF_MULTI = 512
    EFF_REWRITES = 1024
    EFF_BOUND = 2048
    EFF_ESCALATES = 4096
    EFF_UNPROVEN = 8192
    EFF_COPIES = 16384
    EFF_GROWS = 65536
    EFF_EXECUTES = 131072
    EFF_RESETS = 262144
    EFF_BEGINS = 524288
    EFF_STARTS = 1048576
    EFF_COMMITS = 2097152
    EFF_ROLLS_BACK = 4194304
    EFF_LISTENS = 8388608
    EFF_CHANNELS = 16777216
    EFF_KEEPS = 33554432
    EFF_SELF = 67108864
    EFF_LAST = 134217728
    EFF_LITERALS = 268435456
    EFF_ALLOWED = 0x80000000        # the statement may run

cdef enum:
    #: of a statement that does no more than these say, which leaves nothing behind and notifies nobody
    NO_NEWS = (EFF_READS | EFF_XACT_CONTROL | EFF_REWRITES | EFF_BOUND | EFF_BEGINS | EFF_STARTS | EFF_COMMITS
               | EFF_ROLLS_BACK | EFF_SELF)
    #: of a text that is about what the proxy is for the client, not the server
    TOLD_HERE = EFF_LISTENS | EFF_CHANNELS | EFF_SELF

cdef enum:
    # Client.judging
    JUDGING = 1                     # a judge process has its next message: it is not read
    JUDGED = 2                      # the message may be offered again

cdef enum:
    # up_bind()
    BIND_REFUSED = 0                # `refusal` holds the ErrorResponse
    BIND_AS_IS = 1
    BIND_CHANGED = 2                # `refusal` holds what goes in place of the values

cpdef enum Reason:
    # why a link ended; names are labels of metrics
    UNKNOWN = 0
    TERMINATED = 1                  # the client said Terminate
    GONE = 2                        # the peer closed, or the network did
    PROTOCOL = 3                    # the peer broke the protocol
    LOGIN_FAILED = 4
    LOGIN_TIMEOUT = 5
    QUEUE_TIMEOUT = 6
    QUEUE_FULL = 7
    QUERY_TIMEOUT = 8
    IDLE_IN_TRANSACTION = 9
    IDLE = 10
    SERVER_LOST = 11
    SERVER_UNAVAILABLE = 12
    KILLED = 13
    SHUTDOWN = 14
    INTERNAL = 15
    HANDED_OVER = 16                # to another worker
    CANCEL = 17                     # a connection that brought a CancelRequest
    CONNECT_FAILED = 18
    LIFETIME = 19
    UNCLEAN = 20                    # its client left in the middle of something
    RESET_FAILED = 21
    SETTINGS_FAILED = 22
    EVICTED = 23                    # made room for another
    RETIRED = 24                    # a reload took its pool away
    TOO_MANY = 25
    OUTGROWN = 26                   # has served so many tenants that it has grown fat
    YIELDED = 27                    # another worker needs it more
    DEAF = 28                       # did not read its notifications
    REASONS = 29

cdef struct Burst:
    # What one burst of a client's bytes sends to its server: first Relay.batch (what was copied or
    # rewritten), then a run of the client's own buffer.
    char *run
    size_t run_size
    uint64_t knows                  # its first message to the server uses this statement, known from before; or 0
    uint8_t fresh                   # when it came, nothing was outstanding

cdef enum:
    MAX_PLACES = 4
    ENTROPY_BYTES = 256             # what getentropy gives at once
    MAX_BINDING = 128
    MAX_ORIGINS = 32

# Where a startup packet has led before: see relay.entry.
cdef struct Admitted:
    uint32_t refs                   # of the table and of clients
    uint8_t tls                     # of connections with TLS
    uint32_t size
    char *packet
    uint64_t hash
    uint8_t elsewhere               # its home is another worker
    uint32_t pool
    uint32_t startup_id
    uint32_t settings_id
    uint32_t greeting_size
    char *greeting                  # ParameterStatus messages
    int places                      # counted under these indexes of the shared counters; limit 0: none
    uint32_t place[MAX_PLACES]
    int32_t limit[MAX_PLACES]
    void *admission                 # what Python knows of it (owned reference)

# How clients come that are all asked for the same, whoever they are.
cdef struct Origin:
    uint8_t connections             # bits: 1 unix socket, 2 TLS, 4 TCP without
    uint8_t scram                   # they are asked for SCRAM; else Python sees to them
    uint8_t size                    # bytes of their addresses; 0: any
    uint8_t network[16]
    uint8_t mask[16]

# What the compiled login knows of the configuration.
cdef struct Entries:
    uint8_t open                    # logins may begin here
    int origin_count
    Origin origins[MAX_ORIGINS]     # the first that fits decides
    uint8_t suffixes                # user.tenant names a tenant
    uint8_t asks                    # logins that are not in the table may be looked up elsewhere
    uint8_t log_starts
    uint8_t log_ends
    int32_t slot
    PtrMap logins                   # hash of a name -> Known*
    PtrMap tenants                  # hash of a name -> Known*
    PtrMap admitted                 # hash of a packet -> Admitted*
    HmacKey mock                    # key of unknown names' salts
    void *nobody                    # Known*, whose keys no proof fits
    int32_t *counters               # the workers' shared counters, or NULL
    size_t row                      # counters of a worker
    int rows
    uint32_t pid                    # last given out
    uint64_t entered                # logins completed here
    uint64_t entered_us             # … and the time that they took
    uint32_t binding_size           # 0: no channel binding is offered
    char binding[MAX_BINDING]       # how a final message begins that is bound to the certificate: "c=…,r="
    uint32_t entropy_left
    uint8_t entropy[ENTROPY_BYTES]

cdef class Relay(Reactor):
    cdef PtrMap pools               # id -> Pool*
    cdef PtrMap owners              # id -> Tenant*, of pools
    cdef PtrMap keys                # cancel key's first bytes -> Client*
    cdef VerdictCache verdicts
    cdef object hooks
    cdef object refusal             # bytes: the ErrorResponse of the statement just refused, or what stands in
                                    # place of a server's message
    cdef uint64_t next_stmt
    cdef uint64_t seed
    cdef uint32_t next_pool
    cdef size_t max_statement
    cdef size_t max_gathered
    cdef uint32_t max_clients
    cdef uint32_t max_logins
    cdef char *batch
    cdef size_t batch_cap
    cdef size_t batch_size
    cdef bint draining
    cdef bint offers_tls            # to clients, not on unix sockets
    cdef Entries entries
    # counters
    cdef uint64_t clients_accepted
    cdef uint32_t clients_open
    cdef uint32_t logins_open
    cdef uint32_t servers_open
    cdef uint64_t client_ends[REASONS]
    cdef uint64_t server_ends[REASONS]

    # counters that all workers share, a row each (tenant_proxy.shm)
    cdef object counters_view
    cdef int32_t *counters
    cdef int32_t rows
    cdef int32_t row
    cdef size_t row_places

    # what tenants use, in memory that outlives this process (tenant_proxy.usage_shm)
    cdef object usage_view
    cdef Usage *usage               # this worker's row, or NULL
    cdef object pace_view
    cdef int64_t *pace              # all workers' row: by tenant's place, when its next statement is due
    cdef Usage usage_of_none        # of pools without a place

    cdef int batch_room(self, size_t n) noexcept nogil
    cdef void batch_add(self, const char *data, size_t n) noexcept nogil

# upcalls; they take the GIL, and never raise: what fails inside is logged and closes the link
cdef void up_startup(Relay e, Client *c, const char *data, size_t n) noexcept nogil
cdef void up_login_message(Relay e, Client *c, const char *data, size_t n) noexcept nogil
cdef void up_entry(Relay e, Client *c, bytes packet, bytes first, bytes nonce, bytes body) noexcept
cdef void up_entered(Relay e, Client *c) noexcept nogil
cdef void up_client_gone(Relay e, Client *c, int reason) noexcept nogil
cdef void up_admin_message(Relay e, Client *c, const char *data, size_t n) noexcept nogil
cdef uint32_t up_judge(Relay e, Client *c, const char *sql, size_t n) noexcept nogil
cdef void up_judged(Relay e, Client *c) noexcept nogil
cdef Rewrite *up_rewrite(
    Relay e, Client *c, const char *sql, size_t n, const char *tail, size_t tail_size
) noexcept nogil
cdef bint up_executed(
    Relay e, Client *c, uint32_t effects, const char *sql, size_t n, const char *name, size_t name_len
) noexcept nogil
cdef bint up_parameter_types(
    Relay e, Client *c, const char *sql, size_t n, const char *types, size_t size
) noexcept nogil
cdef int up_bind(
    Relay e, Client *c, const char *sql, size_t n, const char *values, size_t size
) noexcept nogil
cdef uint32_t up_judge_function(Relay e, Client *c, uint32_t oid) noexcept nogil
cdef void up_refuse_prepared(Relay e, Client *c) noexcept nogil
cdef void up_refuse_growth(Relay e, Client *c) noexcept nogil
cdef void up_pace(Relay e, Client *c, uint64_t wait_us) noexcept nogil
cdef void up_refuse_pace(Relay e, Client *c, uint64_t wait_us) noexcept nogil
cdef void up_too_many_pins(Relay e, Client *c) noexcept nogil
cdef void up_refuse_size(Relay e, Client *c, size_t n) noexcept nogil
cdef void up_refuse_gathered(Relay e, Client *c) noexcept nogil
cdef void up_missing_statement(Relay e, const char *name, size_t n) noexcept nogil
cdef void up_other_rows(Relay e) noexcept nogil
cdef void up_failed_transaction(Relay e) noexcept nogil
cdef void up_existing_statement(Relay e, const char *name, size_t n) noexcept nogil
cdef void up_demand(Relay e, Pool *p) noexcept nogil
cdef void up_crowded(Relay e, Pool *p) noexcept nogil
cdef void up_greet(Relay e, Client *c, Server *s) noexcept nogil
cdef void up_fail_client(Relay e, Client *c, int reason, uint64_t detail) noexcept nogil
cdef void up_violation(Relay e, Client *c, int what, uint32_t value) noexcept nogil
cdef void up_server_connected(Relay e, Server *s) noexcept nogil
cdef void up_server_message(Relay e, Server *s, const char *data, size_t n) noexcept nogil
cdef void up_server_gone(Relay e, Server *s, int reason) noexcept nogil
cdef void up_ask_row(Relay e, Server *s, const char *data, size_t n) noexcept nogil
cdef int up_ask_done(Relay e, Server *s, Client *c) noexcept nogil
cdef int up_sync_settings(Relay e, Server *s, Client *c) noexcept nogil
cdef void up_patience(Relay e, Pool *g) noexcept nogil
cdef void up_escalate(Relay e, Client *c) noexcept nogil
cdef void up_unread(Relay e, Client *c) noexcept nogil
cdef int up_quiesce(Relay e, Client *c) noexcept nogil
cdef void up_switch_failed(Relay e, Client *c, const char *data, size_t n) noexcept nogil
cdef int up_ask_settings(Relay e, Server *s) noexcept nogil
cdef int up_listen(Relay e, Client *c, const char *sql, size_t n) noexcept nogil
cdef Rewrite *up_own_edits(
    Relay e, Client *c, const char *sql, size_t n, const char *tail, size_t tail_size, bint resets
) noexcept nogil
cdef void up_hear(Relay e, Client *c, Server *s) noexcept nogil
cdef void up_unlisten(Relay e, Client *c) noexcept nogil
cdef object up_execute(Relay e, Client *c, const char *sql, size_t n)
cdef Rewrite *up_reset(Relay e, Client *c, const char *sql, size_t n) noexcept nogil
cdef Rewrite *rewrite_by(
    Client *c, places, const char *sql, size_t n, const char *tail, size_t tail_size
) except NULL
cdef int up_deallocate(Relay e, Client *c, const char *sql, size_t n, bint alone) noexcept nogil
cdef bint up_error(Relay e, Server *s, const char *data, size_t n, Rewrite *rewrite) noexcept nogil
cdef bint up_notice(Relay e, Server *s, const char *data, size_t n, Rewrite *rewrite) noexcept nogil
cdef void up_encoding(Relay e, Client *c, const char *data, size_t n) noexcept nogil
cdef void up_pinned(Relay e, Client *c, const char *sql, size_t n) noexcept nogil
cdef void keep_refusal(Relay e, void **where) noexcept nogil
cdef object get_object(void *o)
cdef object session_of(Relay e, Client *c)
cdef void drop_object(void *o) noexcept nogil
cdef int send_object(Relay e, Link *l, void *o) noexcept nogil
cdef const char *refusal_data(Relay e) noexcept nogil
cdef size_t refusal_size(Relay e) noexcept nogil
cdef int send_refusal(Relay e, Link *l) noexcept nogil

cdef enum Violation:
    V_TYPE = 0                      # invalid frontend message type %d
    V_LENGTH = 1                    # invalid message length
    V_FORMAT = 2                    # invalid message format
    V_MEMORY = 3
    V_STARTUP = 4
    V_NOT_PASSWORD = 5              # expected password response, got message type %d
    V_AFTER_SSL = 6
