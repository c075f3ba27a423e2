"""Statements whose text is changed on its way to the server (docs/decisions/0010-rewriting.md), in both directions.

The guard's verdict says which places of a text are changed.  The text goes to the server changed, and with the
request the ring keeps a `Rewrite`, the text before and after: a position in an error is one of the changed
text and is turned into one of the client's own.  In transaction mode a prepared statement's Rewrite is with
the client's name for it; in session mode, where names are the server's, in a table of the changed ones alone.
All of this is for positions; what is missing there costs nothing but a caret in the wrong place.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp

from tenant_proxy.guard.edits cimport Rewrite, rewrite_unref
from tenant_proxy.relay.core cimport BIND_AS_IS, BIND_CHANGED, BIND_REFUSED, up_bind, up_refuse_size, up_rewrite
from tenant_proxy.relay.requests cimport burst_write
from tenant_proxy.relay.statements cimport hash_bytes, statement_bytes
from tenant_proxy.wire.consts cimport put_u32
from tenant_proxy.wire.ptrmap cimport PtrSlot, map_add, map_find, map_free, map_remove

cdef enum:
    NOTED_LIMIT = 1000              # statements of a client in session mode whose texts are kept
    NAME_LIMIT = 63                 # bytes of a statement's name that the server looks at
    CHANNEL_AT = 9                  # of a NotificationResponse: type, length, process id

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <string.h>
    static int tp_holds(const char *text, size_t n, const char *word, size_t size) {
        const char *end = text + n;
        while ((size_t)(end - text) >= size) {
            text = memchr(text, word[0], end - text - size + 1);
            if (text == NULL)
                return 0;
            if (memcmp(text, word, size) == 0)
                return 1;
            text++;
        }
        return 0;
    }
    """
    bint tp_holds(const char *text, size_t n, const char *word, size_t size) nogil


# --- to the server ------------------------------------------------------------------


cdef Rewrite *rewritten(
    Relay e, Client *c, const char *sql, size_t n, const char *tail, size_t tail_size
) noexcept nogil:
    cdef Rewrite *r = e.verdicts.rewrite(c.pool.scope | c.codec_bits, sql, n, tail, tail_size)
    if r == NULL:
        # longer than what is kept
        r = up_rewrite(e, c, sql, n, tail, tail_size)
    if r != NULL and r.result_size > e.max_statement:
        up_refuse_size(e, c, r.result_size)
        rewrite_unref(r)
        return NULL
    return r


cdef void write_query(Relay e, Burst *b, Rewrite *r) noexcept nogil:
    # its tail is the NUL
    cdef char m[5]
    m[0] = b'Q'
    put_u32(&m[1], 4 + r.result_size + 1)
    burst_write(e, b, m, 5)
    burst_write(e, b, r.result, r.result_size + 1)


cdef inline uint64_t hash_name(Relay e, const char *name, size_t n) noexcept nogil:
    # names that are longer go to the server as they are, for which they are the same if they begin the same
    return hash_bytes(e.seed, name, n if n < NAME_LIMIT else NAME_LIMIT)


cdef int note_statement(Relay e, Client *c, const char *name, size_t n, Rewrite *r, bint replaces) noexcept nogil:
    # Of a Parse, or with NULL of a Close.  `replaces`: the server is sure to take it, and has no other by this name
    # then.  Otherwise a statement whose values are judged stays known, as the server may still have it.
    # -1: too many, or too large together.
    cdef uint64_t hash
    cdef PtrSlot *slot
    cdef Rewrite *known
    if r == NULL and c.rewrites.count == 0:
        return 0
    hash = hash_name(e, name, n)
    slot = map_find(&c.rewrites, hash, NULL)
    while slot != NULL:
        known = <Rewrite *> slot.value
        if replaces or not known.bound:
            map_remove(&c.rewrites, slot)
            c.noted_bytes -= known.size + known.result_size
            c.pool.owner.stmt_bytes -= known.size + known.result_size
            rewrite_unref(known)
            slot = map_find(&c.rewrites, hash, NULL)
        elif r != NULL and r.size == known.size and memcmp(r.text, known.text, r.size) == 0:
            return 0
        else:
            slot = map_find(&c.rewrites, hash, slot)
    if r == NULL:
        return 0
    if (c.rewrites.count >= NOTED_LIMIT or c.noted_bytes + r.size + r.result_size > 2 * statement_bytes(e)
            or c.pool.owner.stmt_bytes + r.size + r.result_size > c.pool.owner.max_stmt_bytes):
        if r.bound:
            return -1
        # a position that is not turned back is no great loss
        return 0
    if map_add(&c.rewrites, hash, r) != 0:
        return -1
    r.refs += 1
    c.noted_bytes += r.size + r.result_size
    c.pool.owner.stmt_bytes += r.size + r.result_size
    return 0


cdef Rewrite *noted_statement(Relay e, Client *c, const char *name, size_t n) noexcept nogil:
    cdef PtrSlot *slot
    if c.rewrites.count == 0:
        return NULL
    slot = map_find(&c.rewrites, hash_name(e, name, n), NULL)
    return <Rewrite *> slot.value if slot != NULL else NULL


cdef bint is_noted_bound(Relay e, Client *c, const char *name, size_t n) noexcept nogil:
    # whether the server may have a statement by this name whose values are judged
    cdef uint64_t hash
    cdef PtrSlot *slot
    if c.rewrites.count == 0:
        return False
    hash = hash_name(e, name, n)
    slot = map_find(&c.rewrites, hash, NULL)
    while slot != NULL:
        if (<Rewrite *> slot.value).bound:
            return True
        slot = map_find(&c.rewrites, hash, slot)
    return False


cdef int judge_noted(
    Relay e, Client *c, const char *name, size_t n, const char *values, size_t size
) noexcept nogil:
    # Results as up_bind's: by every statement that the server may have under this name.
    cdef uint64_t hash = hash_name(e, name, n)
    cdef PtrSlot *slot = map_find(&c.rewrites, hash, NULL)
    cdef Rewrite *known
    cdef int result = BIND_AS_IS
    cdef int one
    while slot != NULL:
        known = <Rewrite *> slot.value
        if known.bound:
            one = up_bind(e, c, known.text, known.size, values, size)
            if one == BIND_REFUSED:
                return one
            if one == BIND_CHANGED:
                result = one
        slot = map_find(&c.rewrites, hash, slot)
    return result


cdef void note_portal(Relay e, Client *c, const char *name, size_t n, Rewrite *r) noexcept nogil:
    # `name` may be that of an older portal that was changed too
    cdef uint64_t hash
    if r == NULL and c.portal_rewrite == NULL:
        return
    hash = hash_bytes(e.seed, name, n)
    if r == NULL and hash != c.portal_hash:
        return
    if c.portal_rewrite != NULL:
        rewrite_unref(c.portal_rewrite)
    c.portal_rewrite = r
    c.portal_hash = hash
    if r != NULL:
        r.refs += 1


cdef Rewrite *noted_portal(Relay e, Client *c, const char *name, size_t n) noexcept nogil:
    if c.portal_rewrite == NULL or c.portal_hash != hash_bytes(e.seed, name, n):
        return NULL
    return c.portal_rewrite


cdef void forget_rewrites(Client *c) noexcept nogil:
    cdef size_t i
    if c.rewrites.slots != NULL:
        for i in range(c.rewrites.mask + 1):
            if c.rewrites.slots[i].value != NULL:
                rewrite_unref(<Rewrite *> c.rewrites.slots[i].value)
    map_free(&c.rewrites)
    c.pool.owner.stmt_bytes -= c.noted_bytes
    c.noted_bytes = 0
    if c.portal_rewrite != NULL:
        rewrite_unref(c.portal_rewrite)
        c.portal_rewrite = NULL


# --- to the client ------------------------------------------------------------------


cdef bint names_own(Pool *p, const char *data, size_t n) noexcept nogil:
    # whether a message may hold a name that clients know as another; a guess, but never a wrong no
    return (tp_holds(data, n, b"tp_", 3)
            or (p.prefix_size and tp_holds(data, n, p.prefix, p.prefix_size))
            or (p.own_size and tp_holds(data, n, p.own, p.own_size)))


cdef size_t prefix_of_channel(Pool *p, const char *data, size_t total) noexcept nogil:
    # bytes of a NotificationResponse's channel that clients don't know of
    if (p.prefix_size and total > <size_t> CHANNEL_AT + p.prefix_size
            and memcmp(data + CHANNEL_AT, p.prefix, p.prefix_size) == 0):
        return p.prefix_size
    return 0
