# The compiled login: what it knows, and a login in progress.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from tenant_proxy.auth.digest cimport HmacKey
from tenant_proxy.pool.pool cimport Client
from tenant_proxy.relay.core cimport Admitted, Relay

cdef enum:
    MAX_PACKET = 512            # startup packets above this are read in Python
    MAX_FIRST = 256             # SASLInitialResponse
    MAX_CHALLENGE = 160         # ",s=…,i=…" of a verifier
    NONCE_BYTES = 18
    NONCE_TEXT = 24
    # mechanism, NUL, length, "n,,n=,r="
    MIN_FIRST = 14 + 4 + 8
    # … of one that is bound: mechanism, NUL, length, "p=tls-server-end-point,,n=,r="
    MIN_BOUND = 19 + 4 + 29
    MAX_SERVER_FIRST = MAX_FIRST + NONCE_TEXT + MAX_CHALLENGE + 2

# A name that the configuration knows: a login with its verifier, or a tenant (without).
cdef struct Known:
    uint64_t hash
    uint32_t refs
    uint8_t mock                # stands for all that are not known: its salt is the name's, no proof fits it
    int32_t home                # the worker of its one tenant; -1: it has several
    uint8_t stored_key[32]
    HmacKey stored
    HmacKey server
    uint32_t challenge_size
    uint32_t name_size
    char challenge[MAX_CHALLENGE]
    char name[1]

cdef struct Exchange:
    uint8_t challenged          # client-first-message has been answered
    uint8_t minor
    uint8_t bound               # to the certificate: the client took SCRAM-SHA-256-PLUS
    Known *known                # reference
    uint64_t started_us
    uint32_t packet_size
    uint32_t first_size
    uint32_t nonce_size         # the client's and ours
    uint32_t signed_size
    char packet[MAX_PACKET]
    char first[MAX_FIRST]       # SASLInitialResponse, as it came
    char mock_salt[NONCE_TEXT]  # of the name, in base64
    char nonce[MAX_FIRST + NONCE_TEXT]
    char signed_part[MAX_FIRST + MAX_SERVER_FIRST]      # client-first-message-bare "," server-first-message ","

cdef class Entry(Relay):
    pass

# 1: done here; 0: Python's
cdef bint enter_startup(Relay e, Client *c, const char *p, size_t n) noexcept nogil
# a 'p' message while `c.exchange` is there; `body` without its header
cdef void enter_message(Relay e, Client *c, const char *body, size_t n) noexcept nogil
# the client ends: what it counted under is given back; 1: Python need not be told
cdef bint entry_gone(Relay e, Client *c) noexcept nogil
# before a client's memory goes
cdef void entry_free(Relay e, Client *c) noexcept nogil
# a cancel key's place in `Relay.keys`
cdef uint64_t cancel_key(int32_t pid, const uint8_t *key) noexcept nogil
# the end of a login: the client may be cancelled by this key, and send statements
cdef void proved(Relay e, Client *c) noexcept nogil
cdef void greeted(Relay e, Client *c, int32_t pid, const uint8_t *key, size_t n) noexcept nogil
