"""The usual login without Python: SCRAM-SHA-256, a packet that has led somewhere before.

Python (relay.login) is where the rules are.  Whatever is not expected here goes there with all that was
said so far, is said again to it, and gets its answer: a wrong password, an odd message, a limit.  So the
bytes of an error are those of one place, and nothing is refused here.

Until the proof, what is done here must not depend on whether the login exists (docs/decisions/0005): a
packet comes here or not by its form and the configuration alone, and an unknown name has a challenge made
and a proof checked as another.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset

from tenant_proxy.auth.digest cimport (
    DIGEST_BYTES, DIGEST_TEXT, HmacKey, Sha256, base64_digest, base64_encode, hmac_begin, hmac_end, hmac_key,
    same_bytes, sha256_add, sha256_begin, sha256_end, wipe,
)
from tenant_proxy.pool.pool cimport CL_CLOSING, CL_IDLE, CL_LOGIN, Client, Pool, usage_enter
from tenant_proxy.relay.admitted cimport admit, admitted_unref, find_admitted, forget_admitted, forget_packet
from tenant_proxy.relay.core cimport (
    ENTROPY_BYTES, MAX_BINDING, Admitted, Entries, Relay, up_entered, up_entry,
)
from tenant_proxy.relay.origins cimport asked_for_scram, set_origins
from tenant_proxy.relay.readings cimport note_readings
from tenant_proxy.relay.statements cimport hash_bytes
from tenant_proxy.wire.ptrmap cimport PtrMap, PtrSlot, map_add, map_find, map_free, map_get, map_remove

cdef extern from *:
    """
    #include <unistd.h>
    #include <sys/random.h>
    static int tp_entropy(void *data, size_t n) { return getentropy(data, n); }
    """
    int tp_entropy(void *data, size_t n) nogil

cdef enum:
    PROTOCOL_3_0 = 0x30000
    PROTOCOL_3_2 = 0x30002
    SHORT_KEY = 4
    LONG_KEY = 32


# --- names ------------------------------------------------------------------------


cdef Known *find_known(Relay e, PtrMap *names, const char *name, size_t n) noexcept nogil:
    cdef uint64_t h = hash_bytes(e.seed, name, n)
    cdef PtrSlot *slot = map_find(names, h, NULL)
    cdef Known *k
    while slot != NULL:
        k = <Known *> slot.value
        if k.name_size == n and memcmp(k.name, name, n) == 0:
            return k
        slot = map_find(names, h, slot)
    return NULL


cdef void known_unref(Known *k) noexcept nogil:
    k.refs -= 1
    if k.refs == 0:
        wipe(k, sizeof(Known))
        free(k)


cdef void forget_names(PtrMap *names) noexcept nogil:
    cdef size_t i
    if names.slots != NULL:
        for i in range(names.mask + 1):
            if names.slots[i].value != NULL:
                known_unref(<Known *> names.slots[i].value)
    map_free(names)


cdef void forget_name(Relay e, PtrMap *names, bytes name):
    cdef uint64_t h = hash_bytes(e.seed, name, len(name))
    cdef PtrSlot *slot = map_find(names, h, NULL)
    cdef Known *k
    while slot != NULL:
        k = <Known *> slot.value
        if k.name_size == <size_t> len(name) and memcmp(k.name, <const char *> name, k.name_size) == 0:
            map_remove(names, slot)
            known_unref(k)
            return
        slot = map_find(names, h, slot)


cdef Known *find_login(Relay e, const char *user, size_t n, size_t *used, bint *known) noexcept nogil:
    # The login that a user name stands for, as Registry.login_name has it; `used` of its bytes are the
    # login's name, `known` says whether a login has that name.
    cdef Entries *t = &e.entries
    cdef Known *k = find_known(e, &t.logins, user, n)
    cdef Known *short
    cdef size_t dot = n
    used[0] = n
    known[0] = k != NULL
    if k != NULL or not t.suffixes:
        return k
    while dot > 0 and user[dot - 1] != 46:
        dot -= 1
    if dot <= 1 or dot == n:
        return NULL
    short = find_known(e, &t.logins, user, dot - 1)
    if short != NULL or find_known(e, &t.tenants, user + dot, n - dot) != NULL:
        used[0] = dot - 1
        known[0] = short != NULL
    return short


# --- the startup packet ---------------------------------------------------------------


cdef int read_packet(const char *p, size_t n, const char **user, size_t *user_size) noexcept nogil:
    # The minor version, or -1: Python reads it.  Whether that is so must not depend on who the user is.
    cdef size_t at = 8
    cdef size_t i
    cdef const char *name
    cdef const char *value
    cdef size_t name_size, value_size
    cdef uint32_t code = (<uint32_t> <uint8_t> p[4] << 24) | (<uint32_t> <uint8_t> p[5] << 16) \
        | (<uint32_t> <uint8_t> p[6] << 8) | <uint8_t> p[7]
    if n > MAX_PACKET or n < 16 or (code != PROTOCOL_3_0 and code != PROTOCOL_3_2) or p[n - 1] != 0:
        return -1
    user[0] = NULL
    user_size[0] = 0
    while at < n - 1:
        name = p + at
        name_size = text_size(name, n - 1 - at)
        if name_size == 0:
            return -1
        at += name_size + 1
        if at >= n - 1:
            return -1
        value = p + at
        value_size = text_size(value, n - 1 - at)
        if value[value_size] != 0:
            return -1
        at += value_size + 1
        for i in range(name_size):
            if not 0x20 <= <uint8_t> name[i] <= 0x7e:
                return -1
        for i in range(value_size):
            if not 0x20 <= <uint8_t> value[i] <= 0x7e:
                return -1
        if is_text(name, name_size, b"user", 4):
            if user[0] != NULL or value_size == 0:
                return -1
            user[0] = value
            user_size[0] = value_size
        elif is_text(name, name_size, b"database", 8):
            if is_text(value, value_size, b"tenant_proxy", 12) or is_text(value, value_size, b"pgbouncer", 9):
                return -1
        elif is_text(name, name_size, b"options", 7) or is_text(name, name_size, b"replication", 11):
            return -1
        elif name_size >= 5 and memcmp(name, b"_pq_.", 5) == 0:
            return -1
    if at != n - 1 or user[0] == NULL:
        return -1
    if is_text(user[0], user_size[0], b"tenant_proxy", 12) or is_text(user[0], user_size[0], b"pgbouncer", 9):
        # the database may be named as the user
        return -1
    return <int> (code & 0xffff)


cdef size_t text_size(const char *p, size_t room) noexcept nogil:
    cdef const char *end = <const char *> memchr(p, 0, room)
    return end - p if end != NULL else room


cdef bint is_text(const char *p, size_t n, const char *text, size_t size) noexcept nogil:
    return n == size and memcmp(p, text, size) == 0


cdef bint enter_startup(Relay e, Client *c, const char *p, size_t n) noexcept nogil:
    cdef Entries *t = &e.entries
    cdef const char *user
    cdef size_t size, used
    cdef bint is_known
    cdef int minor
    cdef Known *k
    cdef Admitted *a
    cdef Exchange *x
    cdef bint tls = c.link.tls != NULL
    if not t.open or c.exchange != NULL or e.logins_open > e.max_logins or not asked_for_scram(t, c):
        return False
    minor = read_packet(p, n, &user, &size)
    if minor < 0:
        return False
    k = find_login(e, user, size, &used, &is_known)
    if not is_known and t.asks:
        return False
    if t.rows > 1 and not tls:
        # perhaps another worker's
        a = find_admitted(e, p, n, False)
        if a != NULL:
            if a.elsewhere:
                return False
        elif k != NULL and k.home >= 0 and k.home != t.slot:
            return False
    x = <Exchange *> malloc(sizeof(Exchange))
    if x == NULL:
        return False
    x.challenged = x.bound = 0
    x.minor = minor
    x.known = k if k != NULL else <Known *> t.nobody
    x.known.refs += 1
    x.started_us = e.now_us
    x.first_size = x.nonce_size = x.signed_size = 0
    x.packet_size = n
    memcpy(x.packet, p, n)
    make_mock_salt(e, user, used, x.mock_salt)
    c.exchange = x
    c.phase = CL_LOGIN
    if tls and t.binding_size:
        e.send(&c.link, b"R\0\0\0\x2a\0\0\0\nSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", 43)
    else:
        e.send(&c.link, b"R\0\0\0\x17\0\0\0\nSCRAM-SHA-256\0\0", 24)
    return True


cdef void make_mock_salt(Relay e, const char *name, size_t n, char *text) noexcept nogil:
    # scram.mock_salt; also for those who have another, so that it takes the same time
    cdef Sha256 s
    cdef uint8_t digest[DIGEST_BYTES]
    hmac_begin(&e.entries.mock, &s)
    sha256_add(&s, name, n)
    hmac_end(&e.entries.mock, &s, digest)
    base64_encode(digest, 16, text)


# --- SCRAM ------------------------------------------------------------------------------


cdef void enter_message(Relay e, Client *c, const char *body, size_t n) noexcept nogil:
    cdef Exchange *x = <Exchange *> c.exchange
    if x.challenged:
        if not on_final(e, c, x, body, n):
            to_python(e, c, body, n)
    elif not on_first(e, c, x, body, n):
        to_python(e, c, body, n)


cdef bint on_first(Relay e, Client *c, Exchange *x, const char *body, size_t n) noexcept nogil:
    # SASLInitialResponse with "n,,n=<name>,r=<nonce>", or that is bound -> server-first-message
    cdef Known *k = x.known
    cdef const char *bare
    cdef const char *end = body + n
    cdef const char *nonce
    cdef uint8_t random[NONCE_BYTES]
    cdef char *out
    cdef size_t at, size, client_nonce
    cdef char head[9]
    if n < MIN_FIRST or n > MAX_FIRST:
        return False
    if memcmp(body, b"SCRAM-SHA-256\0\0\0", 16) == 0:
        at = 16
        bare = body + 21
        if memcmp(body + 18, b"n,,n=", 5) != 0:
            return False
    elif n >= MIN_BOUND and c.link.tls != NULL and e.entries.binding_size \
            and memcmp(body, b"SCRAM-SHA-256-PLUS\0\0\0", 21) == 0:
        at = 21
        bare = body + 47
        if memcmp(body + 23, b"p=tls-server-end-point,,n=", 26) != 0:
            return False
        x.bound = 1
    else:
        return False
    if <size_t> ((<uint8_t> body[at] << 8) | <uint8_t> body[at + 1]) != n - at - 2:
        return False
    nonce = bare + 2
    while nonce < end and nonce[0] != 44:
        if nonce[0] == 0:
            return False
        nonce += 1
    if end - nonce <= 3 or nonce[1] != 114 or nonce[2] != 61:
        return False
    nonce += 3
    client_nonce = end - nonce
    for at in range(client_nonce):
        if not 0x21 <= <uint8_t> nonce[at] <= 0x7e or nonce[at] == 44:
            return False
    if take_entropy(e, random, NONCE_BYTES) != 0:
        return False
    memcpy(x.first, body, n)
    x.first_size = n
    memcpy(x.nonce, nonce, client_nonce)
    base64_encode(random, NONCE_BYTES, x.nonce + client_nonce)
    x.nonce_size = client_nonce + NONCE_TEXT
    # what will be signed: client-first-message-bare "," server-first-message ","
    out = x.signed_part
    size = end - bare
    memcpy(out, bare, size)
    out[size] = 44
    at = size + 1
    memcpy(out + at, b"r=", 2)
    memcpy(out + at + 2, x.nonce, x.nonce_size)
    at += 2 + x.nonce_size
    memcpy(out + at, k.challenge, k.challenge_size)
    if k.mock:
        memcpy(out + at + 3, x.mock_salt, NONCE_TEXT)
    at += k.challenge_size
    out[at] = 44
    x.signed_size = at + 1
    x.challenged = 1
    size += 1
    put_head(head, at - size, 11)
    e.batch_add(head, 9)
    e.batch_add(out + size, at - size)
    send_batch(e, c)
    return True


cdef bint on_final(Relay e, Client *c, Exchange *x, const char *body, size_t n) noexcept nogil:
    # "c=<binding>,r=<nonce>,p=<proof>"; True: the client is in
    cdef Known *k = x.known
    cdef const char *begins = b"c=biws,r="
    cdef size_t size = 9
    cdef size_t without_proof
    cdef uint8_t proof[DIGEST_BYTES]
    cdef uint8_t digest[DIGEST_BYTES]
    cdef Sha256 s
    cdef Sha256 server
    cdef int i
    cdef bint proved
    if x.bound:
        begins = e.entries.binding
        size = e.entries.binding_size
    without_proof = size + x.nonce_size
    if size == 0 or n != without_proof + 3 + DIGEST_TEXT or memcmp(body, begins, size) != 0:
        return False
    if not same_bytes(<const uint8_t *> body + size, <const uint8_t *> x.nonce, x.nonce_size):
        return False
    if memcmp(body + without_proof, b",p=", 3) != 0 or not base64_digest(body + without_proof + 3, proof):
        return False
    hmac_begin(&k.stored, &s)
    sha256_add(&s, x.signed_part, x.signed_size)
    sha256_add(&s, body, without_proof)
    hmac_end(&k.stored, &s, digest)
    for i in range(DIGEST_BYTES):
        proof[i] ^= digest[i]
    # now the client's key, if the proof is one
    sha256_begin(&s)
    sha256_add(&s, proof, DIGEST_BYTES)
    sha256_end(&s, digest)
    wipe(proof, DIGEST_BYTES)
    proved = same_bytes(digest, k.stored_key, DIGEST_BYTES)
    hmac_begin(&k.server, &server)
    sha256_add(&server, x.signed_part, x.signed_size)
    sha256_add(&server, body, without_proof)
    hmac_end(&k.server, &server, digest)
    if not proved or k.mock:
        return False
    return enter(e, c, x, digest)


cdef void put_head(char *p, size_t n, int code) noexcept nogil:
    # of an AuthenticationXxx with `n` bytes of data
    p[0] = 82
    put_u32(p + 1, <uint32_t> n + 8)
    put_u32(p + 5, code)


cdef void put_u32(char *p, uint32_t v) noexcept nogil:
    p[0] = <char> (v >> 24)
    p[1] = <char> (v >> 16)
    p[2] = <char> (v >> 8)
    p[3] = <char> v


cdef void send_batch(Relay e, Client *c) noexcept nogil:
    e.send(&c.link, e.batch, e.batch_size)
    e.batch_size = 0


cdef int take_entropy(Relay e, uint8_t *data, size_t n) noexcept nogil:
    # from the kernel, some in advance; nothing is handed out twice
    cdef Entries *t = &e.entries
    if t.entropy_left < n:
        if tp_entropy(t.entropy, ENTROPY_BYTES) != 0:
            return -1
        t.entropy_left = ENTROPY_BYTES
    t.entropy_left -= n
    memcpy(data, t.entropy + t.entropy_left, n)
    wipe(t.entropy + t.entropy_left, n)
    return 0


cdef void to_python(Relay e, Client *c, const char *body, size_t n) noexcept nogil:
    # Python is told all that was said, and answers
    cdef Exchange *x = <Exchange *> c.exchange
    with gil:
        packet = x.packet[:x.packet_size]
        first = x.first[:x.first_size]
        nonce = x.nonce[x.nonce_size - NONCE_TEXT:x.nonce_size] if x.challenged else b""
        message = body[:n]
        drop_exchange(c)
        up_entry(e, c, packet, first, nonce, message)


cdef void drop_exchange(Client *c) noexcept nogil:
    cdef Exchange *x = <Exchange *> c.exchange
    if x == NULL:
        return
    c.exchange = NULL
    known_unref(x.known)
    wipe(x.nonce, sizeof(x.nonce))
    wipe(x.signed_part, sizeof(x.signed_part))
    free(x)


# --- in ---------------------------------------------------------------------------------


cdef bint enter(Relay e, Client *c, Exchange *x, const uint8_t *signature) noexcept nogil:
    cdef Entries *t = &e.entries
    cdef Admitted *a = find_admitted(e, x.packet, x.packet_size, c.link.tls != NULL)
    cdef Pool *p
    cdef uint8_t key[LONG_KEY]
    cdef size_t key_size = LONG_KEY if x.minor >= 2 else SHORT_KEY
    cdef char head[DIGEST_TEXT + 11]
    cdef uint32_t pid
    if a == NULL or a.elsewhere:
        return False
    p = <Pool *> map_get(&e.pools, a.pool)
    if p == NULL or p.retired or p.session_mode:
        return False
    if take_entropy(e, key, key_size) != 0 or not take_places(t, a):
        return False
    a.refs += 1
    c.admitted = a
    c.pool = p
    c.startup_id = a.startup_id
    c.settings_id = c.reset_id = a.settings_id
    c.minor = x.minor
    c.tracks = 1
    p.clients += 1
    usage_enter(p, e.now_us)
    p.last_startup = a.startup_id
    pid = made_up_pid(t)
    t.entered += 1
    t.entered_us += e.now_us - x.started_us
    put_head(head, 2 + DIGEST_TEXT, 12)
    memcpy(head + 9, b"v=", 2)
    base64_encode(signature, DIGEST_BYTES, head + 11)
    e.batch_add(head, 11 + DIGEST_TEXT)
    e.batch_add(b"R\0\0\0\x08\0\0\0\0", 9)
    e.batch_add(a.greeting, a.greeting_size)
    note_readings(e, c, a.greeting, a.greeting_size)
    head[0] = 75
    put_u32(head + 1, <uint32_t> key_size + 8)
    put_u32(head + 5, pid)
    e.batch_add(head, 9)
    e.batch_add(<char *> key, key_size)
    e.batch_add(b"Z\0\0\0\x05I", 6)
    send_batch(e, c)
    drop_exchange(c)
    greeted(e, c, <int32_t> pid, key, key_size)
    wipe(key, sizeof(key))
    if t.log_starts:
        up_entered(e, c)
    return True


cdef uint32_t made_up_pid(Entries *t) noexcept nogil:
    # of no process that there is; by it a session can be named, so no other worker gives it out
    t.pid = (t.pid + 1) & 0xffffff
    return 0x40000000 | (<uint32_t> t.slot & 0x3f) << 24 | t.pid


cdef uint64_t cancel_key(int32_t pid, const uint8_t *key) noexcept nogil:
    cdef uint64_t first = (<uint64_t> key[0] << 24) | (<uint64_t> key[1] << 16) | (<uint64_t> key[2] << 8) | key[3]
    return (<uint64_t> <uint32_t> pid << 32) | first


cdef void proved(Relay e, Client *c) noexcept nogil:
    # It may still wait for a server: as many of a tenant as like, who keep no one else from logging in.
    if not c.proved:
        c.proved = 1
        e.logins_open -= 1


cdef void greeted(Relay e, Client *c, int32_t pid, const uint8_t *key, size_t n) noexcept nogil:
    c.pid = pid
    c.key_size = n if n <= 32 else 32
    memcpy(c.key, key, c.key_size)
    map_add(&e.keys, cancel_key(pid, c.key), c)
    c.greeted = 1
    proved(e, c)
    c.active_us = c.xact_start_us = e.now_us
    if c.phase < CL_IDLE:
        c.phase = CL_IDLE


cdef bint take_places(Entries *t, Admitted *a) noexcept nogil:
    # as pool.budget.Budget: adds first and looks then, so that two workers never both get the last one
    cdef int i, j, row
    cdef int64_t sum
    cdef int32_t *own = t.counters + <size_t> t.slot * t.row
    for i in range(a.places):
        own[a.place[i]] += 1
        if not a.limit[i]:
            continue
        sum = 0
        for row in range(t.rows):
            sum += t.counters[<size_t> row * t.row + a.place[i]]
        if sum > a.limit[i]:
            for j in range(i + 1):
                own[a.place[j]] -= 1
            return False
    return True


cdef bint entry_gone(Relay e, Client *c) noexcept nogil:
    cdef Entries *t = &e.entries
    cdef Admitted *a = <Admitted *> c.admitted
    cdef int i
    if a == NULL:
        return False
    for i in range(a.places):
        t.counters[<size_t> t.slot * t.row + a.place[i]] -= 1
    return c.session == NULL and not t.log_ends


cdef void entry_free(Relay e, Client *c) noexcept nogil:
    drop_exchange(c)
    if c.admitted != NULL:
        admitted_unref(<Admitted *> c.admitted)
        c.admitted = NULL


# --- what Python sets -----------------------------------------------------------------------


cdef Known *new_known(Relay e, bytes name) except NULL:
    cdef size_t n = len(name)
    cdef Known *k = <Known *> calloc(1, sizeof(Known) + n)
    if k == NULL:
        raise MemoryError
    k.refs = 1
    k.home = -1
    k.name_size = n
    memcpy(k.name, <const char *> name, n)
    k.hash = hash_bytes(e.seed, name, n)
    return k


cdef void set_keys(Known *k, bytes stored_key, bytes server_key, bytes challenge):
    assert len(stored_key) == DIGEST_BYTES and len(server_key) == DIGEST_BYTES
    memcpy(k.stored_key, <const char *> stored_key, DIGEST_BYTES)
    hmac_key(&k.stored, k.stored_key, DIGEST_BYTES)
    hmac_key(&k.server, <const uint8_t *> <const char *> server_key, DIGEST_BYTES)
    k.challenge_size = min(<size_t> len(challenge), <size_t> MAX_CHALLENGE)
    memcpy(k.challenge, <const char *> challenge, k.challenge_size)


cdef class Entry(Relay):
    """What Python says to the compiled login."""

    def __dealloc__(self):
        forget_admitted(self)
        forget_names(&self.entries.logins)
        forget_names(&self.entries.tenants)
        if self.entries.nobody != NULL:
            known_unref(<Known *> self.entries.nobody)
        wipe(&self.entries, sizeof(Entries))

    def entry_share(self, counters, size_t row, int slot, int rows):
        """Where the workers' shared counters are: a writable buffer that stays as long as the process."""
        cdef int[::1] view = memoryview(counters).cast("i")
        self.entries.counters = <int32_t *> &view[0]
        self.entries.row = row
        self.entries.slot = slot
        self.entries.rows = rows

    def entry_configure(self, *, origins, bytes binding, bint suffixes, bint asks, bint log_starts, bint log_ends,
                        bytes mock_key, bytes mock_challenge, tenants):
        """A configuration: all that was known is forgotten.  `origins` are (connections, network, mask, whether
        asked for SCRAM) as auth.rules.Origin; `mock_challenge` is that of an unknown login, with a salt of any 16
        bytes in it; `binding` how final messages begin that are bound to the certificate, b"" where that is not
        offered."""
        cdef Entries *t = &self.entries
        cdef Known *k
        self.entry_stop()
        forget_admitted(self)
        forget_names(&t.logins)
        forget_names(&t.tenants)
        hmac_key(&t.mock, <const uint8_t *> <const char *> mock_key, len(mock_key))
        if t.nobody != NULL:
            known_unref(<Known *> t.nobody)
            t.nobody = NULL
        k = new_known(self, b"")
        set_keys(k, bytes(DIGEST_BYTES), bytes(DIGEST_BYTES), mock_challenge)
        k.mock = 1
        t.nobody = k
        for name in tenants:
            k = new_known(self, name)
            map_add(&t.tenants, k.hash, k)
        t.suffixes = suffixes
        t.asks = asks
        t.log_starts = log_starts
        t.log_ends = log_ends
        assert len(binding) <= MAX_BINDING
        t.binding_size = len(binding)
        memcpy(t.binding, <const char *> binding, t.binding_size)
        set_origins(t, origins)
        t.open = t.counters != NULL

    def entry_stop(self):
        """From here on all logins begin in Python; those begun go on."""
        self.entries.open = 0

    def entry_login(self, bytes name, int home, bytes stored_key, bytes server_key, bytes challenge):
        """A login of the configuration; `home` is the worker of its one tenant, or -1."""
        cdef Known *k = new_known(self, name)
        k.home = home
        set_keys(k, stored_key, server_key, challenge)
        forget_name(self, &self.entries.logins, name)
        map_add(&self.entries.logins, k.hash, k)

    def entry_login_gone(self, bytes name):
        """There is no such login any more."""
        forget_name(self, &self.entries.logins, name)

    def entry_tenant(self, bytes name, bint there):
        """There is such a tenant now, or no more."""
        cdef Known *k
        forget_name(self, &self.entries.tenants, name)
        if there:
            k = new_known(self, name)
            map_add(&self.entries.tenants, k.hash, k)

    def entry_admit(self, bytes packet, admission, uint32_t pool_id, uint32_t startup_id, uint32_t settings_id,
                    bytes greeting, places, bint tls):
        """Where a connection with this packet leads, with TLS or without, once its client has proved who it is: to
        a pool in transaction mode.  `places` are (index of a shared counter, limit).  Without `pool_id` to another
        worker."""
        if len(packet) <= MAX_PACKET:
            admit(self, packet, admission, pool_id, startup_id, settings_id, greeting, places, tls)

    def entry_forget(self):
        """Packets that were admitted are admitted anew."""
        forget_admitted(self)

    def entry_forget_packet(self, bytes packet):
        """… this one, if it was, with TLS and without."""
        forget_packet(self, packet, False)
        forget_packet(self, packet, True)

    def entry_figures(self):
        """(logins completed, microseconds that they took)"""
        return self.entries.entered, self.entries.entered_us

    def next_pid(self):
        """A process id for BackendKeyData that stands for no process."""
        return made_up_pid(&self.entries)
