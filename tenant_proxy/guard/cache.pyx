"""Verdicts kept by statement, so that a statement seen before costs a lookup (some 0.3 µs) and no parse.

Only ALLOW is kept.  A verdict that no literal decided is kept under the statement's shape (shape.pyx)
and holds for every text of it; one that a literal decided is kept under the exact text, and the shape
gets a MARK so that lookups know that exact texts of it exist.  Texts without a shape are kept under
the exact text alone.

Whether literals decide is the same for all texts of a shape (docs/guard.md has the argument): the
judge either never looks at a literal, and then runs the same way for each of them, or marks its
verdict exact before it looks.  So SHAPE and MARK can't both be right for one shape; should `store` ever
be told both, the judge is broken, and the shape is taken out, never to be allowed by shape again
(`conflicts` counts it).

No answer hangs on a hash alone: keys are compared byte by byte.  The hash is SipHash-1-3 with a
key of its own per process, so that nobody can prepare texts that fall into one chain.  Entries and
bytes are bounded; CLOCK decides who goes.
"""

import os

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from tenant_proxy.guard.edits cimport (
    Edit, Edits, Rewrite, edits_pack, edits_to_shape, rewrite_new, rewrite_unref,
)
from tenant_proxy.guard.shape cimport NO_SHAPE, SHAPE_SLACK, shape_of

__all__ = ["HIT_BIT", "MAX_TEXT", "VerdictCache"]

#: see cache.pxd
HIT_BIT = <uint32_t> HIT
MAX_TEXT = MAX_TEXT_BYTES


cdef inline uint64_t _rotated(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


cdef struct Sip:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3


cdef inline void _round(Sip *s) noexcept nogil:
    s.v0 += s.v1
    s.v1 = _rotated(s.v1, 13) ^ s.v0
    s.v0 = _rotated(s.v0, 32)
    s.v2 += s.v3
    s.v3 = _rotated(s.v3, 16) ^ s.v2
    s.v0 += s.v3
    s.v3 = _rotated(s.v3, 21) ^ s.v0
    s.v2 += s.v1
    s.v1 = _rotated(s.v1, 17) ^ s.v2
    s.v2 = _rotated(s.v2, 32)


cdef inline void _absorb(Sip *s, uint64_t word) noexcept nogil:
    s.v3 ^= word
    _round(s)
    s.v0 ^= word


cdef inline size_t _size_of(const Edits *edits) noexcept nogil:
    return sizeof(Edits) + edits.count * sizeof(Edit) + edits.bytes if edits != NULL else 0


cdef class VerdictCache:
    """At most `max_entries` verdicts whose keys and entries take at most `max_bytes`, of all scopes together."""

    def __cinit__(self, int max_entries, size_t max_bytes=64 * 1024 * 1024):
        cdef uint64_t size = 16
        if max_entries < 1:
            raise ValueError("max_entries must be positive")
        while size < <uint64_t> max_entries * 2:
            size *= 2
        self.mask = size - 1
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        seed = os.urandom(16)
        self.seed0 = int.from_bytes(seed[:8], "little")
        self.seed1 = int.from_bytes(seed[8:], "little")
        # pages are touched as entries are used
        self.entries = <Entry *> calloc(max_entries, sizeof(Entry))
        self.buckets = <int32_t *> malloc(size * sizeof(int32_t))
        self.scratch = <uint8_t *> malloc(MAX_TEXT_BYTES + SHAPE_SLACK)
        if self.entries == NULL or self.buckets == NULL or self.scratch == NULL:
            raise MemoryError
        self._reset()

    def __dealloc__(self):
        if self.entries != NULL:
            self._forget_all()
        free(self.entries)
        free(self.buckets)
        free(self.scratch)

    # --- the hot path ------------------------------------------------------------

    cdef uint32_t lookup(self, uint32_t scope_id, const char *sql, size_t size) noexcept nogil:
        cdef int32_t index = self._probe(scope_id, sql, size)
        if index < 0:
            self.misses += 1
            return 0
        self.hits += 1
        self.entries[index].used = 1
        return <uint32_t> HIT | self.entries[index].effects

    cdef Rewrite *rewrite(
        self, uint32_t scope_id, const char *sql, size_t size, const char *tail, size_t tail_size
    ) noexcept nogil:
        cdef:
            int32_t index = self._probe(scope_id, sql, size)
            Entry *e
        if index < 0 or self.entries[index].edits == NULL:
            return NULL
        e = &self.entries[index]
        if e.kind == SHAPE:
            return rewrite_new(e.edits, scope_id, sql, size, e.key, e.size, tail, tail_size)
        return rewrite_new(e.edits, scope_id, sql, size, NULL, 0, tail, tail_size)

    cdef int32_t _probe(self, uint32_t scope_id, const char *sql, size_t size) noexcept nogil:
        """The entry that allows the text, or -1."""
        cdef:
            Py_ssize_t n
            int32_t index
        if size > MAX_TEXT_BYTES:
            return -1
        n = shape_of(<const uint8_t *> sql, size, self.scratch, NULL, NULL)
        if n != NO_SHAPE:
            index = self._find(
                self._hash(False, scope_id, self.scratch, n), False, scope_id, self.scratch, n
            )
            if index < 0 or self.entries[index].kind == SHAPE:
                return index
            self.entries[index].used = 1
        return self._find(
            self._hash(True, scope_id, <const unsigned char *> sql, size),
            True,
            scope_id,
            <const unsigned char *> sql,
            size,
        )

    cdef uint64_t _hash(
        self, bint text, uint32_t scope_id, const unsigned char *key, size_t size
    ) noexcept nogil:
        """SipHash-1-3 of the key space, the scope and the key."""
        cdef:
            Sip s
            uint64_t word
            size_t whole = size & ~(<size_t> 7)
            size_t i
        s.v0 = self.seed0 ^ <uint64_t> 0x736F6D6570736575
        s.v1 = self.seed1 ^ <uint64_t> 0x646F72616E646F6D
        s.v2 = self.seed0 ^ <uint64_t> 0x6C7967656E657261
        s.v3 = self.seed1 ^ <uint64_t> 0x7465646279746573
        _absorb(&s, (<uint64_t> scope_id << 1) | text)
        for i in range(0, whole, 8):
            memcpy(&word, key + i, 8)
            _absorb(&s, word)
        word = 0
        if size > whole:
            memcpy(&word, key + whole, size - whole)
        _absorb(&s, word | (<uint64_t> (size & 0xFF) << 56))
        s.v2 ^= 0xFF
        _round(&s)
        _round(&s)
        _round(&s)
        return s.v0 ^ s.v1 ^ s.v2 ^ s.v3

    cdef int32_t _find(
        self, uint64_t hashed, bint text, uint32_t scope_id, const unsigned char *key, size_t size
    ) noexcept nogil:
        cdef:
            int32_t index = self.buckets[hashed & self.mask]
            Entry *e
        while index >= 0:
            e = &self.entries[index]
            if (
                e.hash == hashed
                and e.scope == scope_id
                and e.size == size
                and (e.kind == TEXT) == text
                and memcmp(e.key, key, size) == 0
            ):
                return index
            index = e.next
        return -1

    # --- filled and emptied with the GIL -------------------------------------------

    def store(self, uint32_t scope_id, bytes sql, uint32_t effects, bint exact, object verdict=None, edits=()):
        """Keeps an ALLOW for `sql`; `exact` if a literal decided.  `verdict` is what `verdict()` will return,
        `edits` are (start, end, bytes) in offsets of `sql`.

        False if it was not kept: the text is too long, or the judge contradicts itself.
        """
        cdef Edits *packed = edits_pack(edits) if edits else NULL
        return self._store(scope_id, sql, effects, exact, verdict, packed)

    cdef bint _store(
        self, uint32_t scope_id, bytes sql, uint32_t effects, bint exact, object verdict, Edits *edits
    ) except -1:
        # takes over `edits`
        cdef:
            const unsigned char *text = sql
            size_t size = len(sql)
            Py_ssize_t n
            int32_t index
            Edits *by_text = edits
        if size > MAX_TEXT_BYTES:
            free(edits)
            return False
        n = shape_of(text, size, self.scratch, NULL, NULL)
        if n == NO_SHAPE:
            self._put(TEXT, scope_id, text, size, effects, verdict, edits)
            return True
        index = self._find(self._hash(False, scope_id, self.scratch, n), False, scope_id, self.scratch, n)
        if index >= 0 and (self.entries[index].kind == MARK) != exact:
            # a mark stays, and so does what it does: nothing is allowed by this shape
            self.conflicts += 1
            free(edits)
            if exact:
                self._drop(index)
                self._put(MARK, scope_id, self.scratch, n, 0, None, NULL)
            return False
        if not exact:
            if edits != NULL:
                edits = edits_to_shape(by_text, sql, size, self.scratch, n)
                free(by_text)
                if edits == NULL:
                    # one is in a literal or a comment, which the judge must not do
                    self.conflicts += 1
                    return False
            self._put(SHAPE, scope_id, self.scratch, n, effects, verdict, edits)
            return True
        self._put(MARK, scope_id, self.scratch, n, 0, None, NULL)
        self._put(TEXT, scope_id, text, size, effects, verdict, edits)
        return True

    def rewritten(self, uint32_t scope_id, bytes sql):
        """What the relay would send in place of this text, or None where it is kept without edits or not at
        all."""
        cdef Rewrite *r = self.rewrite(scope_id, sql, len(sql), NULL, 0)
        if r == NULL:
            return None
        try:
            return r.result[:r.result_size]
        finally:
            rewrite_unref(r)

    def find(self, uint32_t scope_id, bytes sql):
        """`lookup` for Python: HIT | effects, or 0."""
        return self.lookup(scope_id, sql, len(sql))

    def verdict(self, uint32_t scope_id, bytes sql):
        """What `store` was given as `verdict` for this text, or None; not counted as a lookup."""
        cdef int32_t index = self._probe(scope_id, sql, len(sql))
        if index < 0 or self.entries[index].verdict == NULL:
            return None
        return <object> <PyObject *> self.entries[index].verdict

    def forget_scope(self, uint32_t scope_id):
        """Drops what is kept for a scope; returns how many entries that were."""
        cdef:
            int32_t i
            int dropped = 0
        for i in range(self.max_entries):
            if self.entries[i].kind != FREE and self.entries[i].scope == scope_id:
                self._drop(i)
                dropped += 1
        return dropped

    def clear(self):
        self._forget_all()
        self._reset()

    def stats(self):
        """Counters since the start, and what is held now."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "entries": self.count,
            "bytes": self.bytes,
            "evictions": self.evictions,
            "conflicts": self.conflicts,
        }

    def _reset(self):
        cdef:
            int32_t i
            uint64_t b
        for b in range(self.mask + 1):
            self.buckets[b] = -1
        for i in range(self.max_entries):
            self.entries[i].kind = FREE
            self.entries[i].next = i + 1 if i + 1 < self.max_entries else -1
        self.first_free = 0
        self.hand = 0
        self.count = 0
        self.bytes = 0

    def _forget_all(self):
        cdef int32_t i
        for i in range(self.max_entries):
            if self.entries[i].kind != FREE:
                self._drop(i)

    cdef int _put(
        self, Kind kind, uint32_t scope_id, const unsigned char *key, size_t size, uint32_t effects, object verdict, Edits *edits
    ) except -1:
        """Adds an entry, or renews the one with this key; takes over `edits`."""
        cdef:
            bint text = kind == TEXT
            uint64_t hashed = self._hash(text, scope_id, key, size)
            size_t cost = sizeof(Entry) + size + _size_of(edits)
            int32_t index = self._find(hashed, text, scope_id, key, size)
            Entry *e
        if index >= 0:
            self._drop(index)
        if cost > self.max_bytes:
            free(edits)
            return 0
        while self.count > 0 and (self.first_free < 0 or self.bytes + cost > self.max_bytes):
            self._evict_one()
        index = self.first_free
        e = &self.entries[index]
        e.key = <unsigned char *> malloc(size if size else 1)
        if e.key == NULL:
            free(edits)
            raise MemoryError
        memcpy(e.key, key, size)
        self.first_free = e.next
        e.hash = hashed
        e.size = <uint32_t> size
        e.scope = scope_id
        e.effects = effects & ~(<uint32_t> HIT)
        e.kind = kind
        e.used = 0
        e.verdict = NULL
        e.edits = edits
        if verdict is not None:
            Py_INCREF(verdict)
            e.verdict = <void *> <PyObject *> verdict
        e.next = self.buckets[hashed & self.mask]
        self.buckets[hashed & self.mask] = index
        self.count += 1
        self.bytes += cost
        return 0

    cdef void _drop(self, int32_t index):
        cdef:
            Entry *e = &self.entries[index]
            int32_t *link = &self.buckets[e.hash & self.mask]
            void *verdict = e.verdict
        while link[0] != index:
            link = &self.entries[link[0]].next
        link[0] = e.next
        self.count -= 1
        self.bytes -= sizeof(Entry) + e.size + _size_of(e.edits)
        free(e.key)
        free(e.edits)
        e.edits = NULL
        e.key = NULL
        e.verdict = NULL
        e.kind = FREE
        e.next = self.first_free
        self.first_free = index
        if verdict != NULL:
            Py_DECREF(<object> <PyObject *> verdict)

    cdef void _evict_one(self):
        """CLOCK: the first entry at the hand that was not looked up since the hand last passed."""
        cdef:
            Entry *e
            int32_t index
        while True:
            index = self.hand
            e = &self.entries[index]
            self.hand = index + 1 if index + 1 < self.max_entries else 0
            if e.kind == FREE:
                continue
            if e.used:
                e.used = 0
                continue
            self._drop(index)
            self.evictions += 1
            return
