"""Clients in transaction mode that listen: LISTEN and UNLISTEN to the proxy, notifications back to them.

A connection of the proxy's own, an ear, listens for all of them (relay.ears; docs/decisions/0016-ears.md).  LISTEN
goes to the client's server as a NOTIFY to the ear, so it takes effect when the client's transaction commits, in the
order in which transactions do.  It waits until the ear listens, and the answer to its transaction until the ear has
heard what came before: then nothing is lost, and what a session notifies itself it has before ReadyForQuery.

Like a server, the proxy tells notifications only between transactions.
"""

from libc.string cimport memcmp, memcpy

from tenant_proxy.pool.pool cimport ACT_SKIP, R_FUNCTION, R_QUERY, R_SYNC, ring_at, ring_head
from tenant_proxy.relay.core cimport (
    DEAF, EFF_ALLOWED, EFF_ESCALATES, EFF_LISTENS, EFF_PINS, EFF_RESETS, EFF_SELF, EFF_XACT_CONTROL, NO_NEWS, TOLD_HERE, up_hear, up_listen, up_own_edits,
)
from tenant_proxy.relay.pairing cimport client_end
from tenant_proxy.relay.requests cimport in_peace
from tenant_proxy.wire.buf cimport buf_append, buf_free, buf_len
from tenant_proxy.wire.consts cimport XACT_IDLE, put_u32

cdef enum:
    NOTES_LIMIT = 1048576           # of a client that does not read its notifications, or is long in a transaction


# --- LISTEN, UNLISTEN, pg_listening_channels() ------------------------------------------


cdef int listen_check(Relay e, Client *c, const char *sql, size_t n, uint32_t *effects, bint stays) noexcept nogil:
    # Of a text with some of TOLD_HERE, which are gone from `effects` where it is the server's as it is.
    # `stays`: it may run later, when the client may listen.
    cdef int how
    if c.tracks and effects[0] & EFF_LISTENS:
        how = up_listen(e, c, sql, n)
        if how == LISTEN_HELD:
            e.pause(&c.link)
        if how <= LISTEN_REFUSED:
            return how
    elif c.tracks and (c.listens or stays or effects[0] & EFF_SELF):
        return LISTEN_GOES
    if effects[0] & EFF_LISTENS:
        effects[0] |= EFF_PINS | EFF_ESCALATES
    effects[0] &= ~<uint32_t> TOLD_HERE
    return LISTEN_GOES


cdef int listens_still(Relay e, Client *c, Rewrite *r) noexcept nogil:
    # of a prepared LISTEN, `r` being the client's text
    cdef int how
    if r == NULL or r.tags_size == 0:
        return LISTEN_GOES
    how = up_listen(e, c, r.text, r.size)
    if how == LISTEN_HELD:
        e.pause(&c.link)
    return how if how <= LISTEN_REFUSED else LISTEN_REFUSED


cdef Rewrite *for_ear(
    Relay e, Client *c, Server *s, uint32_t effects, const char *sql, size_t n, const char *tail, size_t tail_size
) noexcept nogil:
    # The text as it goes to the server, for its client's ear and with what its session is; a reference for the
    # caller, or NULL: refused.
    return up_own_edits(e, c, sql, n, tail, tail_size, not (effects & EFF_RESETS and s.pool.is_group))


cdef bint tell_tag(Relay e, Server *s, Rewrite *r, char *data, size_t pos, size_t total, size_t *sent) noexcept nogil:
    # CommandComplete of a NOTIFY that the client knows as something else; False: it may go as it is.
    cdef char tag
    if r.tag_at >= r.tags_size or total != 12 or memcmp(data + pos + 5, b"NOTIFY", 7) != 0:
        return False
    tag = r.tags[r.tag_at]
    if r.tags_size > 1:
        r.tag_at += 1
    if tag == b"N" or s.client == NULL:
        return False
    e.send(&s.client.link, data + sent[0], pos - sent[0])
    sent[0] = pos
    if tag == b"L":
        e.send(&s.client.link, b"C\0\0\0\x0bLISTEN\0", 12)
    else:
        e.send(&s.client.link, b"C\0\0\0\x0dUNLISTEN\0", 14)
    return True


# --- order ------------------------------------------------------------------------------


cdef bint heard_before(Relay e, Client *c, Server *s, uint32_t effects) noexcept nogil:
    # Before something of a client that listens goes to a server that may notify for it: False while the ear is
    # still to hear what others' transactions there have notified.  From then on what comes from there is its own.
    # What cannot notify goes, and the ear is asked meanwhile for what others have notified before it.
    if not effects & ~<uint32_t> (NO_NEWS | EFF_ALLOWED):
        s.awaits = 1
        if not s.hearing and not s.batch_open and s.ring.count == 0 and s.xact_status == XACT_IDLE \
                and not effects & EFF_XACT_CONTROL:
            s.hearing = 1
            up_hear(e, c, s)
        return True
    if s.notified != NOTIFIED:
        if s.hearing or (s.notified and is_due(s)):
            # of each transaction it is told before the next, and of its own by an answer that comes behind it
            e.pause(&c.link)
            return False
        s.notified = NOTIFIED_OWN
        s.awaits = 1
        s.heard = 0
        return True
    if not s.hearing:
        s.hearing = 1
        up_hear(e, c, s)
        if not s.hearing:
            # there is no ear
            return True
    e.pause(&c.link)
    return False


cdef bint is_due(Server *s) noexcept nogil:
    # whether a ReadyForQuery is outstanding
    cdef uint32_t i
    for i in range(s.ring.count):
        if ring_at(&s.ring, i).request in (R_QUERY, R_SYNC, R_FUNCTION):
            return True
    return False


cdef bint hears_first(Relay e, Server *s, char status) noexcept nogil:
    # At ReadyForQuery of a server whose client listens: whether that waits for the ear.
    cdef Client *c = s.client
    if c == NULL or status != XACT_IDLE or s.ring.count == 0 or ring_head(&s.ring).action & ACT_SKIP:
        return False
    if s.heard:
        # by then it may have ceased to listen
        s.heard = 0
        if s.ring.count == 1:
            s.notified = s.awaits = 0
        return False
    if not c.listens:
        return False
    if not s.hearing:
        s.hearing = 1
        up_hear(e, c, s)
        if not s.hearing:
            return False
    e.pause(&s.link)
    return True


cdef void heard(Relay e, Server *s) noexcept nogil:
    # the ear has told all that was notified before `hearing` was set
    s.hearing = 0
    if s.notified != NOTIFIED or (s.awaits and s.ring.count):
        s.heard = 1
    if s.notified == NOTIFIED:
        s.notified = 0
    e.unpause(&s.link)
    if s.client != NULL:
        e.unpause(&s.client.link)
        e.make_ready(&s.client.link)


# --- notifications ------------------------------------------------------------------------


cdef void notify_client(
    Relay e, Client *c, const char *message, size_t n, int32_t pid, int32_t notifier
) noexcept nogil:
    # A NotificationResponse of a server process, told now or when the client's transaction has ended.  `notifier`: whose
    # statement that process ran last which may have notified, 0: not known.
    cdef char head[9]
    cdef Server *s = c.server
    cdef int32_t known = pid
    if s != NULL and s.notified == NOTIFIED_OWN and s.pid == pid:
        # its own, by the process id that it knows as its own
        known = c.pid
    elif notifier and notifier != c.pid:
        # of what is not its own it must not be told that it is
        known = notifier
    if buf_len(&c.notes) + buf_len(&c.link.out) > NOTES_LIMIT + e.send_limit:
        client_end(e, c, DEAF)
        return
    memcpy(head, message, 9)
    put_u32(&head[5], <uint32_t> known)
    if buf_append(&c.notes, head, 9) != 0 or buf_append(&c.notes, message + 9, n - 9) != 0:
        client_end(e, c, DEAF)
        return
    if c.begun == NULL and (in_peace(c) or (s != NULL and s.arming and s.ring.count == 1 and not s.stream_left)):
        tell_notes(e, c)


cdef void tell_renamed(Relay e, Server *s, char *message, size_t total) noexcept nogil:
    # A NotificationResponse, to the server's client, without what its tenant's channels begin with.
    cdef char head[9]
    cdef size_t k = s.client.pool.prefix_size
    memcpy(head, message, 9)
    put_u32(&head[1], <uint32_t> (total - 1 - k))
    e.send(&s.client.link, head, 9)
    if e.send(&s.client.link, message + 9 + k, total - 9 - k) == 1:
        e.pause(&s.link)


cdef void tell_notes(Relay e, Client *c) noexcept nogil:
    # between two messages of the client's server, when no transaction is open
    if buf_len(&c.notes):
        e.send(&c.link, c.notes.data + c.notes.start, buf_len(&c.notes))
        buf_free(&c.notes)
