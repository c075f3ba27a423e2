# Pools: who is waiting, which servers are idle, and the counters of both.
#
# A Pool belongs to one login of one tenant.  A Client waits in at most one pool's queue; a Server is
# in its pool's idle list exactly while its phase is SV_IDLE.  Everything here is lists and numbers:
# sockets belong to net.reactor, messages to relay.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tenant_proxy.guard.edits cimport Rewrite
from tenant_proxy.net.reactor cimport Link
from tenant_proxy.wire.buf cimport Buf
from tenant_proxy.wire.ptrmap cimport PtrMap

cdef enum:
    BUCKETS = 16                # of the histograms: upper bounds in pool.pyx
    HOMES = 2                   # servers that are a tenant's home
    PREFIX_BYTES = 16           # room for what the tenant's channels begin with on the server

cpdef enum ClientPhase:
    CL_STARTUP = 0              # reads SSLRequest, startup packet …
    CL_LOGIN = 1                # authentication exchange, in Python
    CL_LOGIN_WAITING = 2        # authenticated, waits for a server to take its greeting from
    CL_IDLE = 3                 # no server, nothing outstanding
    CL_WAITING = 4              # has sent a request and waits for a server, or for its server to take its settings
    CL_ACTIVE = 5               # paired with a server
    CL_SKIP_TO_SYNC = 6         # refused in the extended protocol without a server: all is dropped up to Sync
    CL_ADMIN = 7                # the admin console
    CL_CLOSING = 8
    CL_PARTING = 9              # as CL_ACTIVE, and its server is taken back when the statement in hand is answered

cpdef enum ServerPhase:
    SV_CONNECT = 0              # connect() under way
    SV_LOGIN = 1                # TLS, authentication and greeting, in Python
    SV_IDLE = 2                 # in the idle list
    SV_ACTIVE = 3               # paired with a client
    SV_CLEANING = 4             # runs the reset query
    SV_CANCELING = 5            # clean, but a cancel request for it is still on its way
    SV_CLOSING = 6
    SV_LISTENING = 7            # an ear: what it says is for Python (relay.ears)

cdef enum Lane:
    LANE_OWN = 0                # servers logged in as the tenant's own role
    LANE_SHARED = 1             # a group's

cdef enum Known:
    # of the code of a pool's tenant
    CODE_DOUBTED = 0
    CODE_PROVEN = 1
    CODE_UNREAD = 2

cdef enum Ahead:
    # of a switch behind which the client's bytes go unacknowledged (relay.ahead)
    AHEAD_NONE = 0
    AHEAD_DUE = 1               # it goes out with the client's first bytes
    AHEAD_SENT = 2
    AHEAD_MADE = 3              # it is acknowledged, the server not yet disarmed

cdef enum Escalation:
    # why a transaction of a member of a group ran on a server of its own
    ESC_STATEMENT = 0           # its first statement may not run on a shared one
    ESC_TRANSACTION = 1         # an earlier transaction of the tenant had such a statement in its middle
    ESC_CODE = 2                # the tenant's code is not proven, or not read yet
    ESC_REFUSED = 3             # refused in the middle of a transaction, to be retried
    ESCALATIONS = 4

cdef enum:
    SWALLOWED = 2               # Server.copied: by a COPY that may have taken a Sync

cdef enum:
    TOLD_TO_END = 2             # Server.told_fatal: the error was the proxy's, and its client's session ends by it

cdef enum BatchRuns:
    RUNS = 1                    # any
    RUNS_UNNAMED = 2            # one to the unnamed portal

cdef enum Paced:
    PACE_WAITS = 1              # its statement has a turn, which is not come
    PACE_GOES = 2               # … has come
    PACE_COUNTED = 3            # its extended batch has had one, up to Sync

# A prepared statement's text.  Shared by reference count between the intern table, clients and rings.
cdef struct Stmt:
    Pool *pool                  # whose table it is in
    uint64_t id                 # never used twice; names it on servers
    uint64_t hash
    uint32_t refs
    uint32_t effects            # the verdict's bits
    uint32_t size
    uint8_t interned            # findable in its pool's table
    uint32_t generation         # of its pool, when it was made
    uint64_t reading            # how its client has literals read: see relay.readings
    uint32_t scope              # of an unnamed one: what it was judged in
    uint32_t told               # of an unnamed one: what its client was told its rows are (relay.told); 0: nothing
    uint8_t doubt               # of an unnamed one: Doubt
    Rewrite *rewrite            # of an unnamed one: the client's own text, if it was changed
    char *body                  # the Parse message from the query on: query, NUL, parameter types

# A client's own name for a statement.
cdef struct ClientStmt:
    uint64_t hash
    Stmt *stmt
    uint8_t confirmed           # ParseComplete was sent for it
    uint32_t told               # hash of what its client was told its rows are (relay.told); 0: nothing
    uint32_t generation         # of definitions by which that holds
    uint64_t made_us            # when it was prepared
    uint32_t scope              # what it was judged in
    Rewrite *rewrite            # the client's own text, if it was changed
    uint32_t name_len
    char name[1]

# A statement that a server knows, in the server's list from most to least recently used.
cdef struct ServerStmt:
    Stmt *stmt
    ServerStmt *newer
    ServerStmt *older
    uint32_t generation         # of the definitions that it was parsed or described by
    uint32_t rows               # hash of what its rows are there, if the server was asked; 0: not known
    uint8_t doubt               # Doubt

cdef enum Doubt:
    # of a statement that its client knows from before definitions changed
    DOUBT_NONE = 0
    DOUBT_ASKED = 1             # the server is asked what its rows are now
    DOUBT_TRUE = 2              # … and they are others

cdef enum Request:
    R_QUERY = 1
    R_PARSE = 2
    R_BIND = 3
    R_DESCRIBE = 4
    R_EXECUTE = 5
    R_CLOSE = 6
    R_SYNC = 7
    R_FUNCTION = 8
    R_COPY_END = 9              # the client ended its COPY here; no reply of its own

cdef enum:
    # what becomes of the replies to a request
    ACT_SKIP = 1                # the proxy's own request: swallowed
    ACT_FAKE = 2                # never sent to the server: the proxy answers in its place
    ACT_REFUSED = 4             # sent in place of a refused request: its error is replaced by `arg`
    ACT_SYNC = 8                # with ACT_SKIP: brings the client's settings; its failure closes the server
    ACT_ASK = 16                # with ACT_SKIP: asks the server for its settings; its rows go to Python
    ACT_DISCARD = 32            # taken to discard all statements; if it fails, it is not known which are left
    ACT_REWRITTEN = 64          # the text was changed on its way: `rewrite` leads back
    ACT_AHEAD = 128             # with ACT_SKIP: a switch, and the client's bytes are behind it already
    ACT_BEGIN = 256             # with ACT_SKIP: opens a transaction that the client believes open; its error is told
    ACT_ALIKE = 512             # with others in place of a Query: what that has no answer for is left out

# A request whose replies are outstanding.
cdef struct Outstanding:
    uint8_t request             # Request
    uint16_t action             # ACT_…
    void *arg                   # R_PARSE: Stmt* (reference); ACT_REFUSED, or R_QUERY with ACT_FAKE: bytes (reference);
                                # R_CLOSE with ACT_FAKE: ClientStmt*, which is in no table meanwhile;
                                # R_DESCRIBE: Stmt* (reference) of which it is to be known what is answered, or NULL
    uint64_t name_hash          # R_PARSE, R_DESCRIBE: of the client's name for it; R_BIND: the same, if its client
                                # has not been told yet what its rows are
    Rewrite *rewrite            # with ACT_REWRITTEN (reference)

cdef struct Ring:
    Outstanding *items
    uint32_t cap
    uint32_t head
    uint32_t count

# What a client had asked of a server that refused to become its tenant's: to be asked of another, by the bytes
# that were on their way.
cdef struct Replay:
    Ring ring
    PtrMap stmts                # what the server will know then: see Server
    ServerStmt *newest
    ServerStmt *oldest
    uint64_t unnamed_id
    uint8_t batch_open
    uint8_t copy_in
    uint8_t settings_changed
    uint8_t touched
    uint8_t arming
    char *bytes
    size_t start                # the client's begin here
    size_t size

# What is had of a group's servers, and by whom (pool.fair).  There are three levels: the group's own share has those of
# its tenants below it, and a tenant's those of its logins.
cdef struct Share:
    Share *above                # a login's: its tenant's; a tenant's: its group's
    Pool *pool                  # a login's: whose it is
    Client *first               # … waits longest
    Client *last
    int32_t waiting
    int32_t active              # shared servers that run for it
    int32_t max
    int32_t reserved
    uint32_t weight             # of a tenant's here: less than `given` where other workers run turns for it too
    uint32_t given              # … as configured
    int32_t members             # … logins of it that have a pool
    int32_t at                  # place in the heap it is in, from 1; 0: in none
    uint8_t urgent              # which heap
    uint8_t wants               # has a server or waits for one
    uint64_t tag                # virtual time up to which it has been served
    uint64_t hold_us            # how long it keeps a server, a moving mean
    uint64_t begun_us           # when a turn of it last began
    uint64_t gap_ns             # from one turn's beginning to the next's, a moving mean
    int32_t *turns              # a tenant's: of it in all workers, one counter each, this far apart; NULL: not counted
    size_t turns_apart
    int32_t turns_rows
    int32_t turns_row           # … this worker's
    Share **heap[2]             # those below it that are in need; those below their reserve apart
    int32_t heap_size[2]
    int32_t heap_cap[2]
    int32_t wanting             # … that have a server or wait for one
    uint32_t weights            # … of these the sum
    int32_t unfilled            # … places that are reserved and not taken
    uint64_t time               # … the virtual time of those who are being served

# How many turns run at once on a group's servers (pool.width).
cdef struct Width:
    int32_t limit               # 0: none yet; -1: none, as configured
    int32_t smaller             # what it is compared with
    int32_t running             # turns that are young
    int32_t light               # … of these, of tenants that ask now and then
    int32_t peak                # in this while: the least width that would have been enough
    Server *first               # of the young turns' servers, in the order in which they began
    Server *last
    Share *newest               # whose turn began last; only compared, never followed
    uint64_t mixed_us           # when a turn last began that was not of the same tenant as the one before
    uint64_t hold_us            # how long turns take, a moving mean
    uint64_t since_us           # when this while began
    uint64_t ended              # turns that have ended in it
    uint64_t flooded            # … of those that have more waiting than the width
    uint8_t bound               # … and somebody had to wait for the width alone
    uint8_t trying              # it is the smaller width's
    uint8_t falling             # the width is still on its way down from where it began
    uint8_t growing             # the last decision was to grow
    int32_t rest                # milliseconds until the next comparison
    int32_t rested              # … as many as there were before this one
    int32_t whiles              # of this comparison
    int32_t tried               # … of the smaller width
    int32_t lost                # … in which clearly less ended than in the one before
    double rate                 # turns a microsecond in the last while of the width
    uint64_t[2] sum_ends        # … what has ended under the width, and under the smaller one
    uint64_t[2] sum_flooded     # … of those that have more waiting
    uint64_t[2] sum_us          # … in how long
    Share *leader               # who begins most of all turns, if `lead` says so; only compared, never followed
    int32_t lead                # … how many more than all others together, of late
    uint8_t keeps               # who floods does not yield, as configured
    uint8_t yielded             # … has yielded in this while
    uint64_t light_us           # when a turn of one who asks now and then last began
    uint64_t found_us           # what `hold_us` was when none yielded
    uint64_t learns_us          # until when none yields, for the width to be found anew

# What a tenant has used since its place was given, in one worker's row of tenant_proxy.usage_shm, which
# has the same layout.  Only that worker writes it.
cdef struct Usage:
    uint64_t xacts
    uint64_t queries
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t held_us            # servers were its clients'
    uint64_t clients
    uint64_t peak               # most clients in the hour
    uint64_t peak_hour          # … since 1970

# What the clients of one tenant hold together in this worker, whichever login's they are.
cdef struct Tenant:
    uint32_t id                 # Python's number of it
    size_t gathered             # of large messages that are not whole yet
    size_t stmt_bytes           # texts of named statements
    size_t max_stmt_bytes

cdef struct Pool:
    uint32_t id
    Tenant *owner               # whose it is
    uint32_t scope              # the guard's scope; 0: not known before a server is open
    uint8_t asks_last           # a client has asked for what it has last had of a sequence (relay.sequences)
    uint8_t guard_mode          # 0 enforce, 1 observe, 2 off
    uint8_t session_mode
    uint8_t down                # the last connect failed
    uint8_t fail_when_down
    uint8_t retired             # a reload took it away: it goes when its last client has
    uint8_t translates          # what servers say may name objects that clients know under other names
    uint8_t prefix_size         # 0: channels are as they are
    uint8_t own_size            # 0: the schema goes by its name
    char prefix[PREFIX_BYTES]   # of the tenant's channels on the server
    char own[64]                # the schema that clients call public
    uint8_t is_group            # its servers are shared by the pools whose `group` it is
    uint8_t full                # its tenant has more than it may: statements that grow are refused
    uint8_t stopped             # its clients begin nothing: they wait where they would need a server
    uint8_t gated               # stopped, or has a pace
    Usage *usage
    int64_t *pace               # when its tenant's next statement is due, by the clock in us; NULL: no limit
    int64_t pace_us             # between two statements
    int64_t pace_burst_us       # so far ahead of the clock it may be
    uint8_t defers              # BEGIN takes no server
    uint8_t begins_own          # explicit transactions begin on a server of its own
    uint64_t own_until_us       # … and for a while after one of them could run nowhere else
    uint8_t known               # Known, as of `known_mark`
    int32_t known_mark
    int32_t mark_index          # shared counters: times that the tenant's code may have changed
    int32_t active_index        # … shared servers that run for the tenant
    int32_t coded_index         # … servers of its own on which its code may be changing
    uint8_t doubted             # the last switch for it failed: the next is awaited
    uint64_t home_key           # of the tenant: by which it has its home servers
    int16_t homes[HOMES]        # their slots, as of `homes_of`
    uint32_t homes_of
    char *ahead                 # the switch that goes ahead of clients' bytes, for these settings
    uint32_t ahead_size
    uint32_t ahead_startup
    uint32_t ahead_settings
    uint8_t turn_number         # settings that it sets, 0: no turns; names the statement that a turn begins with
    char *turn                  # the messages that a turn begins with, for the same settings
    uint32_t turn_size
    char *turn_parse            # … and that makes the statement known
    uint32_t turn_parse_size
    Server **slots              # of a group: its servers by their numbers, with gaps
    int32_t slots_size
    uint32_t slots_changed      # counts changes of `slots`
    PtrMap shares               # … Tenant.id -> Share*
    uint8_t patient             # … somebody waits for a home though others are idle, and is looked after soon
    int32_t yielding            # … servers that other workers are to have when they are at rest
    int32_t tenants_limit       # … a server that has served more tenants than this is closed; 0: none is
    uint64_t outgrown_us        # … when one last was
    uint8_t crowded             # … tenants that come often enough for a place each have taken one another's
    uint64_t crowded_us         # … when one more was last asked for
    Width width                 # … how many turns run at once
    int32_t last_place          # of a member: 1 + the number of the server that it had last; 0: none
    Pool *group                 # where shared servers come from; NULL: it has only its own
    Share share                 # what it has in its tenant's share of that; of a group: all that there is
    uint8_t joined              # … and is counted there
    int32_t max
    int32_t min
    int32_t total               # servers of every phase
    int32_t opening             # … of SV_CONNECT and SV_LOGIN
    int32_t idle_count
    int32_t clients
    int32_t waiting
    int32_t queue_limit
    int32_t waits_index         # shared counter: waiting clients of the tenant
    int32_t pinned
    int32_t max_pins            # 0: none
    int32_t pins_index          # shared counter: pinned clients of the tenant
    uint32_t generation         # grows as definitions change: statements prepared before are not found again
    int32_t defined_index       # shared counter of the same, by all workers; -1: none
    uint32_t max_prepared
    uint32_t last_startup       # startup_id of the client that came last; 0: none yet
    Server *idle_first          # most recently used
    Server *idle_last
    Client *wait_first          # waits longest
    Client *wait_last
    PtrMap stmts                # hash -> Stmt*, interned
    char *reset_query           # complete Query message
    uint32_t reset_size
    # microseconds; 0: none
    uint64_t queue_timeout_us
    uint64_t query_timeout_us
    uint64_t idle_xact_timeout_us
    uint64_t client_idle_us
    uint64_t server_idle_us
    uint64_t connect_timeout_us
    uint64_t retry_us           # while down: when the next connect may be tried
    # counters
    uint64_t xacts
    uint64_t queries
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t xact_us
    uint64_t query_us
    uint64_t wait_us
    uint64_t assignments
    uint64_t client_parses
    uint64_t server_parses
    uint64_t binds
    uint64_t rejected
    uint64_t prepared_hits
    uint64_t prepared_misses
    uint64_t prepared_evictions
    uint64_t switches           # times that a shared server was made the tenant's
    uint64_t kept               # times that it already was
    uint64_t escalated[ESCALATIONS]
    uint64_t wait_hist[BUCKETS]
    uint64_t query_hist[BUCKETS]

cdef struct Client:
    Link link
    Pool *pool
    Server *server              # while CL_ACTIVE
    Client *wait_prev
    Client *wait_next
    uint8_t phase               # ClientPhase
    uint8_t xact_status         # as last told
    uint8_t pinned              # keeps its server between transactions (session mode, or session state)
    uint8_t skip_stream         # the rest of the message in hand is dropped, not forwarded
    uint8_t minor               # protocol 3.minor
    uint8_t greeted             # has had its ReadyForQuery
    uint8_t proved              # has proved who it is: no login in progress any more
    uint8_t queued              # in its pool's queue
    uint8_t tracks              # prepared statements are the pool's, known under other names on servers
    uint8_t held                # waits for something outside (a look-up, the admin console): messages stay
    uint8_t judging             # its next message 1: waits for a verdict; 2: may be offered again
    uint8_t refitting           # a server has failed to take its settings; another is tried, once
    Replay *replay              # what was on its way to that server, or NULL
    uint8_t paced               # Paced: its next statement waits for its turn, or has
    uint8_t stopped             # its next message waits until its pool is no longer stopped
    uint8_t lane                # Lane of the server that it has or waits for
    uint8_t checked             # waits until nothing of its tenant's runs on shared servers
    uint8_t key_size            # 0: no cancel key yet
    uint8_t key[32]             # secret of its BackendKeyData
    uint32_t startup_id         # interned set of settings that its server must have been opened with
    uint32_t settings_id        # interned set of settings that it changed since
    uint32_t reset_id           # … and what RESET ALL leads back to
    uint8_t begun_failed        # a statement was refused since
    uint8_t answered            # the message that comes next has had its answer, an error
    uint32_t begun_size
    char *begun                 # Query message of a BEGIN that no server has had yet, or NULL
    uint8_t listens             # … in transaction mode, by an ear
    Buf notes                   # NotificationResponses that it is told when its transaction has ended
    uint32_t began_size
    char *began                 # … that a shared server has had, with what was set and marked since, while nothing but
                                # reading has followed, or NULL
    uint32_t bound_size         # of what is behind it: bound, and not executed yet
    uint8_t repeats_sets        # it sets what may outlast the transaction
    uint8_t has_read            # since it began
    uint8_t batch_keeps         # KEEPS_…: what the batch has bound
    uint64_t touched            # server on which it may have used sequences last, by its link's id
    uint8_t tells               # it is told what its next server's settings are: they are not those it has seen
    uint64_t stream_left        # bytes of the message in hand that are still to come
    PtrMap stmts                # name hash -> ClientStmt*
    Stmt *unnamed
    PtrMap rewrites             # session mode: hash of a statement's name -> Rewrite*, of those that were changed
    Rewrite *portal_rewrite     # of the last portal whose statement was changed
    uint64_t portal_hash        # … and its name
    uint32_t codec_bits         # of the guard's scope: in which encoding its texts are
    uint64_t reading            # of settings that decide what literals mean: see relay.readings
    uint8_t reads_alone         # … it has set some that nobody tells: its statements are no one else's
    uint8_t unasked             # it has sent what a server answers behind a Flush or Sync alone, and none since
    uint64_t left_us            # since when the connection takes nothing of what it is answered
    uint64_t left_out           # … and what it had taken
    uint64_t heard              # of a message that is not whole yet: what had come of it when that was looked at
    uint64_t read_by[4]         # … of each
    int32_t pid                 # of its BackendKeyData
    size_t stmt_bytes           # texts that its named statements hold
    size_t noted_bytes          # … and those that are noted in session mode
    size_t gathered             # of a large message that is not whole yet, or waits
    void *session               # what Python knows of it (owned reference), or NULL
    void *exchange              # its login, while relay.entry does it, or NULL
    void *admitted              # core.Admitted (reference) of one that came in so, or NULL
    uint64_t told_in            # of its link's bytes, already in its tenant's usage
    uint64_t told_out
    uint64_t connect_us
    uint64_t request_us         # start of the statement in hand, or of the wait
    uint64_t wait_us
    uint64_t active_us          # last sign of life
    uint64_t xact_start_us

cdef struct Server:
    Link link
    Pool *pool
    Client *client
    Server *newer
    Server *older
    uint8_t phase               # ServerPhase
    uint8_t xact_status
    uint8_t connected           # connect() has ended
    uint8_t copy_in             # the server takes CopyData: it swallows Sync and Flush
    uint8_t copied              # … or has, in the statement in hand: 1, or SWALLOWED
    uint8_t completed           # the request in hand has had an answer that a simple query can end with
    uint8_t skipping            # after an error in the extended protocol, up to Sync
    uint8_t close_needed        # not to be used again
    uint8_t moving              # was asked whether its client's transaction may begin anew on another
    uint8_t dirty               # state beyond settings that only a reset takes away
    uint8_t settings_changed    # a statement may have changed settings: ask
    uint8_t cancels             # cancel requests on their way
    uint8_t relaying            # of the stream in hand: 1 forward, 0 drop
    uint8_t batch_open          # extended-protocol messages sent since the last Sync
    uint8_t batch_runs          # … a Bind among them: BatchRuns
    uint8_t unsettled           # what is outstanding may change how its client's literals are read (relay.readings)
    uint8_t query_failed        # in its transaction, which has failed, a simple Query did so (relay.portals)
    uint8_t told_fatal          # a FATAL error went to the client: nothing more need be said at the end; TOLD_TO_END
    uint8_t failed              # a request of the proxy's own got an error
    uint8_t coded               # counted under its pool's coded_index …
    int32_t counted_at          # … or active_index, as that was then: it moves with the tenant
    uint8_t defines             # definitions are being changed in its transaction
    uint8_t touched             # of a group: something was written, sequences may have been used
    Pool *tenant                # of a group: whose it is now, NULL while nobody's
    Pool *last                  # … whose it was last, also while nobody's
    uint8_t ahead               # Ahead
    uint8_t refused             # it ended instead of becoming its client's tenant's: nothing of the client's has run
    uint8_t arming              # it becomes nobody's behind the statement in hand
    uint8_t notified            # relay.hearing
    uint8_t awaits              # its client listens: what it has been told of goes before ReadyForQuery
    uint8_t hearing             # its client's ear is asked whether it has heard all
    uint8_t heard               # … and has: the ReadyForQuery that waits may go
    uint8_t may_rest            # nothing asked for since the last switch leaves a transaction open
    uint8_t may_turn            # … or does more than read
    uint8_t turn                # it is its client's tenant's for one transaction (relay.turns)
    uint32_t turns              # bits: statements for so many settings that it knows
    uint8_t changes             # how often its tenant changes, a moving mean: 255 always, 0 never
    int32_t slot                # its number in its group, -1: none
    PtrMap served               # home_key of tenants -> whatever
    char *kept                  # with `ahead`: what is on its way to it, the switch and what is behind it
    size_t kept_start           # … the client's begins here
    size_t kept_size
    size_t kept_cap
    char *asked                 # a batch that may meet an outdated plan, as it was sent, or NULL
    uint32_t asked_size         # 0: nothing is remembered (relay.stale)
    uint32_t asked_cap
    uint64_t asked_stmt         # … of which statement it is
    uint64_t guessed_us         # what share_begin took this turn to last
    uint64_t guessed            # … as virtual time of its tenant's share
    Share *share                # … which has it
    Server *before              # of a group's young turns (pool.width): began before it
    Server *behind
    uint8_t young               # it is in that list: pool.width's YOUNG or LIGHT
    uint32_t startup_id
    uint32_t settings_id
    int32_t pid
    int32_t notifier            # the client whose statement may have notified last, by the process id that it knows
    uint32_t notifier_pool      # … and of which pool it is
    void *info                  # what Python knows of it (owned reference), or NULL
    uint64_t stream_left
    Ring ring
    PtrMap stmts                # Stmt id -> ServerStmt*
    ServerStmt *newest
    ServerStmt *oldest
    uint64_t unnamed_id         # Stmt id of the unnamed statement, 0: none or unknown
    uint64_t connect_us
    uint64_t touched_by         # client that may have used sequences there last, by its link's id; 0: none
    uint64_t idle_since_us
    uint64_t request_us
    uint64_t expires_us
    uint64_t assigned_us
    uint64_t billed_us          # up to then its time is in its client's tenant's usage

# idle servers
cdef void idle_push(Pool *p, Server *s) noexcept nogil
cdef void idle_remove(Pool *p, Server *s) noexcept nogil
cdef Server *idle_pick(Pool *p, uint32_t startup_id, uint32_t settings_id) noexcept nogil
# waiting clients
cdef void wait_push(Pool *p, Client *c) noexcept nogil
cdef void wait_remove(Pool *p, Client *c) noexcept nogil
cdef Client *wait_pick(Pool *p, uint32_t startup_id, uint64_t now_us, uint64_t patience_us) noexcept nogil
# outstanding requests
cdef int ring_push(Ring *r, uint8_t request, uint16_t action, void *arg, uint64_t name_hash) noexcept nogil
cdef void ring_mark(Ring *r, Rewrite *rewrite) noexcept nogil
cdef int ring_push_front(Ring *r, uint8_t request, uint16_t action) noexcept nogil
cdef Outstanding *ring_head(Ring *r) noexcept nogil
cdef Outstanding *ring_at(Ring *r, uint32_t i) noexcept nogil
cdef void ring_pop(Ring *r) noexcept nogil
cdef void ring_remove_at(Ring *r, uint32_t i) noexcept nogil
# what tenants use
cdef void usage_enter(Pool *p, uint64_t now_us) noexcept nogil
cdef void usage_leave(Client *c) noexcept nogil
cdef void usage_tell(Client *c) noexcept nogil
cdef void usage_bill(Server *s, Pool *p, uint64_t now_us) noexcept nogil
# figures
cdef void count_wait(Pool *p, uint64_t us) noexcept nogil
cdef void count_query(Pool *p, uint64_t us) noexcept nogil
