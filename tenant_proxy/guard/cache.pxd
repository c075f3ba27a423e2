"""Verdicts by statement: the C interface that the relay uses for each Query and Parse (see cache.pyx)."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from tenant_proxy.guard.edits cimport Edits, Rewrite

cdef enum:
    # bit of lookup()'s answer that says that the statement is allowed; the rest are model.Effect bits
    HIT = 1 << 31

    # longer texts are judged each time: they repeat seldom, and their keys would fill the cache
    MAX_TEXT_BYTES = 16384

# What an entry is.  SHAPE and MARK share one key space (shapes), TEXT has the other (exact texts).
cdef enum Kind:
    FREE = 0
    SHAPE = 1  # every text of this shape is allowed
    MARK = 2  # verdicts of this shape hang on literals: look for the exact text
    TEXT = 3  # this text is allowed

cdef struct Entry:
    uint64_t hash
    unsigned char *key  # owned
    void *verdict  # owned reference to the Verdict, or NULL
    Edits *edits  # owned; of a SHAPE in the shape's offsets; NULL: the text goes as it is
    uint32_t size  # of the key
    uint32_t scope
    uint32_t effects
    int32_t next  # in the bucket's chain, or in the list of free entries; -1 ends
    uint8_t kind
    uint8_t used  # CLOCK: looked up since the hand last passed

cdef class VerdictCache:
    cdef:
        Entry *entries
        int32_t *buckets
        uint8_t *scratch  # for the shape of the text being looked up
        uint64_t seed0
        uint64_t seed1
        uint64_t mask  # number of buckets - 1
        int32_t max_entries
        int32_t first_free
        int32_t hand
        size_t bytes
        # counters, read by stats()
        readonly int32_t count
        readonly size_t max_bytes
        readonly uint64_t hits
        readonly uint64_t misses
        readonly uint64_t evictions
        readonly uint64_t conflicts

    # HIT | effects if the scope may run this text, else 0.  Called from the worker's loop thread alone,
    # as `store`: entries are not locked.
    cdef uint32_t lookup(self, uint32_t scope_id, const char *sql, size_t size) noexcept nogil

    # The text with the edits of its verdict; NULL if it is not here, or not with edits.
    cdef Rewrite *rewrite(
        self, uint32_t scope_id, const char *sql, size_t size, const char *tail, size_t tail_size
    ) noexcept nogil

    cdef bint _store(
        self, uint32_t scope_id, bytes sql, uint32_t effects, bint exact, object verdict, Edits *edits
    ) except -1
    cdef int32_t _probe(self, uint32_t scope_id, const char *sql, size_t size) noexcept nogil
    cdef uint64_t _hash(
        self, bint text, uint32_t scope_id, const unsigned char *key, size_t size
    ) noexcept nogil
    cdef int32_t _find(
        self, uint64_t hashed, bint text, uint32_t scope_id, const unsigned char *key, size_t size
    ) noexcept nogil
    cdef int _put(
        self, Kind kind, uint32_t scope_id, const unsigned char *key, size_t size, uint32_t effects, object verdict, Edits *edits
    ) except -1
    cdef void _drop(self, int32_t index)
    cdef void _evict_one(self)
