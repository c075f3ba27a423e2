"""The shape of a statement: its text with plain literals taken out (see shape.pyx)."""

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    # bytes that stand for a literal in a shape; texts that hold such a byte themselves have no shape
    ICONST = 1  # a number that fits int4
    FCONST = 2  # any other number
    SCONST = 3  # a plain '…' string

    # shape_of(): the text has no shape, its exact text is the key
    NO_SHAPE = -1

    # what shape_of() may write beyond the size of the text
    SHAPE_SLACK = 16

# Where a literal was found; for tests, which compare with the server's own scanner.
cdef struct Span:
    size_t start
    size_t end  # exclusive
    uint8_t kind

# Writes the shape of `sql` to `out`, which must have room for `size` + SHAPE_SLACK bytes; returns its length or
# NO_SHAPE.  `spans`, if not NULL, has room for `size` entries and takes where the literals are, their
# number goes to `n_spans`.
cdef Py_ssize_t shape_of(
    const uint8_t *sql, size_t size, uint8_t *out, Span *spans, size_t *n_spans
) noexcept nogil

# What reading runs of operator characters costs PostgreSQL's scanner: the sum of their squared lengths
cdef uint64_t operator_work(const uint8_t *sql, size_t size) noexcept nogil
