"""Edits of a statement's text, in C: what the relay does with `Verdict.edits`.

A verdict that holds for a shape has its edits in the shape's offsets.  For a text of that shape they are
found by reading both side by side: the shape is the text but for literals, white space and comments
(shape.pyx), so each of its bytes either is the text's next byte, or stands for a literal or a gap that is
passed over.  An edit may begin and end only at bytes that are the same in both; whatever does not fit gives
no rewriting at all, and the statement is then judged anew.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from tenant_proxy.guard.shape cimport FCONST, ICONST, NO_SHAPE, SCONST, SHAPE_SLACK, shape_of


cdef inline bint _is_space(uint8_t c) noexcept nogil:
    return c == b" " or c == b"\t" or c == b"\n" or c == b"\r" or c == b"\f"


cdef inline bint _is_digit(uint8_t c) noexcept nogil:
    return b"0" <= c <= b"9"


cdef inline bint _is_literal(uint8_t c) noexcept nogil:
    return c == ICONST or c == FCONST or c == SCONST


cdef size_t _behind_gap(const uint8_t *sql, size_t size, size_t i) noexcept nogil:
    # white space and comments, as shape_of takes them
    while i < size:
        if _is_space(sql[i]):
            i += 1
        elif sql[i] == b"-" and i + 1 < size and sql[i + 1] == b"-":
            while i < size and sql[i] != b"\n" and sql[i] != b"\r":
                i += 1
        elif sql[i] == b"/" and i + 1 < size and sql[i + 1] == b"*":
            i += 2
            while i + 1 < size and not (sql[i] == b"*" and sql[i + 1] == b"/"):
                i += 1
            i += 2
        else:
            break
    return i if i < size else size


cdef size_t _behind_literal(const uint8_t *sql, size_t size, size_t i) noexcept nogil:
    if i < size and sql[i] == b"'":
        i += 1
        while i < size:
            if sql[i] == b"'":
                if i + 1 < size and sql[i + 1] == b"'":
                    i += 1
                else:
                    return i + 1
            i += 1
        return size
    while i < size and _is_digit(sql[i]):
        i += 1
    if i < size and sql[i] == b".":
        i += 1
        while i < size and _is_digit(sql[i]):
            i += 1
    if i < size and (sql[i] == b"e" or sql[i] == b"E"):
        i += 1
        if i < size and (sql[i] == b"+" or sql[i] == b"-"):
            i += 1
        while i < size and _is_digit(sql[i]):
            i += 1
    return i


cdef int _carry(const Edit *edits, uint32_t count, Edit *out, const uint8_t *sql, size_t size,
                const uint8_t *shape, size_t n, bint to_shape) noexcept nogil:
    # Offsets of the text to those of its shape, or back; -1 if one is not in both.
    cdef:
        size_t i = _behind_gap(sql, size, 0)
        size_t j = 0
        uint32_t k = 0
        bint begun = False
        bint quoted = False  # inside a quoted name, where a space is a space
        uint8_t c
    while j < n and k < count:
        c = shape[j]
        if not quoted and c == b" ":
            i = _behind_gap(sql, size, i)
            j += 1
            continue
        if not quoted and _is_literal(c):
            i = _behind_literal(sql, size, i)
            j += 1
            continue
        if i >= size or sql[i] != c:
            return -1
        while k < count and not begun and edits[k].start == (i if to_shape else j):
            out[k] = edits[k]
            out[k].start = <uint32_t> (j if to_shape else i)
            if edits[k].end != edits[k].start:
                begun = True
            else:
                out[k].end = out[k].start
                k += 1
        if c == b'"':
            quoted = not quoted
        i += 1
        j += 1
        if k == count:
            break
        if begun and edits[k].end == (i if to_shape else j):
            out[k].end = <uint32_t> (j if to_shape else i)
            begun = False
            k += 1
        elif (edits[k].start == edits[k].end == (i if to_shape else j)
                and (j == n or (not quoted and (shape[j] == b" " or _is_literal(shape[j]))))):
            # something new behind a word
            out[k] = edits[k]
            out[k].start = out[k].end = <uint32_t> (j if to_shape else i)
            k += 1
    return 0 if k == count else -1


cdef Edits *_new(uint32_t count, uint32_t bytes) noexcept nogil:
    cdef Edits *e = <Edits *> malloc(sizeof(Edits) + count * sizeof(Edit) + bytes)
    if e != NULL:
        e.count = count
        e.bytes = bytes
        e.list = <Edit *> (e + 1)
        e.texts = <char *> (e.list + count)
    return e


cdef Edits *edits_pack(object edits) except NULL:
    """Of (start, end, bytes) in ascending order."""
    cdef:
        uint32_t at = 0, k = 0, last = 0
        bytes text
        Edits *packed = _new(<uint32_t> len(edits), <uint32_t> sum(len(text) for _, _, text in edits))
    if packed == NULL:
        raise MemoryError
    try:
        for start, end, text in edits:
            if not last <= start <= end:
                raise ValueError("edits overlap or are not sorted")
            packed.list[k] = Edit(start, end, at, <uint32_t> len(text))
            memcpy(packed.texts + at, <const char *> text, len(text))
            at += <uint32_t> len(text)
            last = end
            k += 1
    except BaseException:
        free(packed)
        raise
    return packed


cdef Edits *edits_to_shape(
    const Edits *edits, const char *sql, size_t size, const uint8_t *shape, size_t shape_size
) noexcept nogil:
    cdef Edits *e = _new(edits.count, edits.bytes)
    if e == NULL:
        return NULL
    memcpy(e.texts, edits.texts, edits.bytes)
    if _carry(edits.list, edits.count, e.list, <const uint8_t *> sql, size, shape, shape_size, True) != 0:
        free(e)
        return NULL
    return e


cdef Rewrite *rewrite_new(
    const Edits *edits, uint32_t scope, const char *sql, size_t size, const uint8_t *shape, size_t shape_size,
    const char *tail, size_t tail_size
) noexcept nogil:
    cdef:
        size_t places = edits.count * sizeof(Edit)
        size_t most = size + edits.bytes  # an edit takes nothing away at worst
        Rewrite *r = <Rewrite *> malloc(sizeof(Rewrite) + places + size + most + tail_size)
        size_t done = 0, n = 0
        uint32_t k
        Edit *edit
    if r == NULL:
        return NULL
    r.refs = 1
    r.scope = scope
    r.size = <uint32_t> size
    r.count = edits.count
    r.bound = False
    r.tags_size = r.tag_at = 0
    r.edits = <Edit *> (r + 1)
    r.text = <char *> (r.edits + edits.count)
    r.result = r.text + size
    memcpy(r.text, sql, size)
    if shape == NULL:
        memcpy(r.edits, edits.list, places)
    elif _carry(edits.list, edits.count, r.edits, <const uint8_t *> sql, size, shape, shape_size, False) != 0:
        free(r)
        return NULL
    for k in range(r.count):
        edit = &r.edits[k]
        if edit.start < done or edit.end > size or edit.end < edit.start:
            free(r)
            return NULL
        memcpy(r.result + n, sql + done, edit.start - done)
        n += edit.start - done
        memcpy(r.result + n, edits.texts + edit.at, edit.size)
        edit.at = <uint32_t> n
        n += edit.size
        done = edit.end
    memcpy(r.result + n, sql + done, size - done)
    n += size - done
    r.result_size = <uint32_t> n
    memcpy(r.result + n, tail, tail_size)
    return r


cdef void rewrite_unref(Rewrite *r) noexcept nogil:
    r.refs -= 1
    if r.refs == 0:
        free(r)


# --- for Python ---------------------------------------------------------------------


def applied(bytes sql, edits, *, by_shape=False):
    """`sql` with (start, end, bytes) applied; None if they don't fit.

    `by_shape`: by way of the text's shape, as for a verdict that holds for all texts of it.
    """
    cdef:
        Edits *packed = edits_pack(edits)
        Edits *carried = NULL
        Rewrite *r = NULL
        uint8_t *shape = NULL
        Py_ssize_t n = 0
    try:
        if by_shape:
            shape = <uint8_t *> malloc(len(sql) + SHAPE_SLACK)
            n = shape_of(<const uint8_t *> <const char *> sql, len(sql), shape, NULL, NULL)
            carried = edits_to_shape(packed, sql, len(sql), shape, n) if n != NO_SHAPE else NULL
            if carried == NULL:
                return None
            r = rewrite_new(carried, 0, sql, len(sql), shape, n, NULL, 0)
        else:
            r = rewrite_new(packed, 0, sql, len(sql), NULL, 0, NULL, 0)
        return r.result[:r.result_size] if r != NULL else None
    finally:
        free(packed)
        free(carried)
        free(shape)
        free(r)


def places_in_text(bytes sql, spans):
    """(start, end) of the shape, in ascending order, as offsets of the text; None if they don't fit."""
    cdef:
        Edits *packed = edits_pack([(start, end, b"") for start, end in spans])
        Edits *found = _new(packed.count, 0)
        uint8_t *shape = <uint8_t *> malloc(len(sql) + SHAPE_SLACK)
        Py_ssize_t n
        uint32_t k
    try:
        if shape == NULL or found == NULL:
            raise MemoryError
        n = shape_of(<const uint8_t *> <const char *> sql, len(sql), shape, NULL, NULL)
        if n == NO_SHAPE or _carry(
            packed.list, packed.count, found.list, <const uint8_t *> <const char *> sql, len(sql), shape, n, False
        ) != 0:
            return None
        return [(found.list[k].start, found.list[k].end) for k in range(packed.count)]
    finally:
        free(packed)
        free(found)
        free(shape)
