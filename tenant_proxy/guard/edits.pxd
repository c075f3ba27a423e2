"""Edits of a statement's text: kept with verdicts, carried from texts to shapes and back, applied (see edits.pyx)."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    TAGS = 30

# One place, and what stands there instead.
cdef struct Edit:
    uint32_t start
    uint32_t end  # exclusive
    uint32_t at  # where its replacement begins: in `Edits.texts`, or in `Rewrite.result`
    uint32_t size  # of the replacement

# What a verdict has; offsets are those of the key it is kept by.  One block of memory.
cdef struct Edits:
    uint32_t count
    uint32_t bytes  # of `texts`
    Edit *list
    char *texts

# A text before and after, shared by reference count: what the way back needs.  One block of memory.
cdef struct Rewrite:
    uint32_t refs
    uint32_t scope  # it was judged in
    uint32_t size  # of `text`
    uint32_t result_size  # without the tail
    uint32_t count
    bint bound  # values of its parameters are judged
    uint8_t tags_size  # see model.Verdict.tags; 0: tags of its statements go as they are
    uint8_t tag_at  # which comes next
    char tags[TAGS]
    Edit *edits  # places in `text`
    char *text  # the client's own
    char *result  # what the server gets, and behind it the tail as it was given

cdef Edits *edits_pack(object edits) except NULL
cdef Edits *edits_to_shape(
    const Edits *edits, const char *sql, size_t size, const uint8_t *shape, size_t shape_size
) noexcept nogil
# `shape` NULL: the edits' offsets are the text's.  NULL if they don't fit the text, or memory is short.
cdef Rewrite *rewrite_new(
    const Edits *edits, uint32_t scope, const char *sql, size_t size, const uint8_t *shape, size_t shape_size,
    const char *tail, size_t tail_size
) noexcept nogil
cdef void rewrite_unref(Rewrite *r) noexcept nogil
