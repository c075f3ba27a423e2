"""The shape of a statement: what is left when plain literals are taken out of its text.

Verdicts are cached by shape, so that `… WHERE id = 7` and `… WHERE id = 8` are judged once.
That is sound only if equal shapes are read by the server as equal statements up to the values of
literals.  So this lexer knows a small part of PostgreSQL's (src/backend/parser/scan.l with
standard_conforming_strings on), and gives up on whatever else it meets: the text then has no
shape and is keyed by itself (`NO_SHAPE`).

What it knows, and what becomes of it in the shape:

  white space, -- comments, /* comments */   one space; none at the ends
  numbers: 12  1.5  .5  5.  1e-3             one byte: ICONST if it is an integer that fits int4,
                                             FCONST otherwise, as the scanner tells them apart
  'strings' with '' inside                   one byte: SCONST
  names, keywords, $1, operators, the rest   as they are, byte by byte
  "quoted names"                             as they are

What it gives up on: a backslash or control character outside comments (inside a string too:
issue 4, point 8), E'' B'' X'' N'' U&'' U&"", dollar quotes, nested comments, anything
unterminated, two strings in a row (they may be one string continued), numbers followed at once by
a letter, digit, dot, underscore, $ or quote (1_000, 0x1F, 1..5, 1e), .. and $ before anything
but digits.

Why equal shapes are equal token sequences.  The three placeholder bytes occur in a shape only
where a literal was, since texts that contain them elsewhere have none.  So a shape can be read
back uniquely as a list of verbatim pieces and literals of known kind.  On the part of the language
that is left, boundaries of tokens are those of scan.l: names are maximal runs (a literal never
starts inside one), a number is followed by no character that could prolong it or spoil it,
strings end at the first lone quote, comments end as scan.l's do, and also inside a run of
operator characters, where scan.l cuts the operator at the first -- or /*.  Comments and white
space only ever separate tokens; the one place where the kind of white space matters, a string
continued behind a newline, is given up on.  Hence texts of one shape give the grammar the same
tokens with other values in ICONST, FCONST and SCONST, and it builds the same tree with other
values in it (docs/guard.md says what that means for verdicts).
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc

# 16 bytes at once: loops over single bytes are mispredicted at the end of nearly each token, which costs more
# than the rest.  All return how many of the bytes, from the first, may be passed over or copied as they are.
cdef extern from *:
    """
    #include <stdint.h>

    #ifdef __SSE2__
    #include <emmintrin.h>
    #include <string.h>
    #define TP_STEP 16

    static inline size_t tp_first(unsigned mask) {
        return mask ? (size_t) __builtin_ctz(mask) : 16;
    }

    static inline __m128i tp_is(__m128i bytes, char c) {
        return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(c));
    }

    static inline __m128i tp_upto(__m128i bytes, char last) {
        return _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(last)), bytes);
    }

    static inline __m128i tp_between(__m128i bytes, char first, char last) {
        return _mm_and_si128(
            _mm_cmpgt_epi8(bytes, _mm_set1_epi8(first - 1)), _mm_cmplt_epi8(bytes, _mm_set1_epi8(last + 1)));
    }

    /*
     * Of names, operators, punctuation and single spaces between them: what comes out of the lexer as it went
     * in.  Ends before: a literal, a quoted name, a parameter, a comment, a space with more space (or what may
     * be a comment) behind it, two dots, and all that has no shape.  `in_name`: is the byte before one of a name?
     */
    static inline size_t tp_plain(const uint8_t *from, size_t size, int in_name, uint8_t *to) {
        uint8_t end[32];
        if (size < 17) { /* the end of the text is as a control character */
            _mm_storeu_si128((__m128i *) end, _mm_setzero_si128());
            _mm_storeu_si128((__m128i *) (end + 16), _mm_setzero_si128());
            memcpy(end, from, size);
            from = end;
        }
        __m128i bytes = _mm_loadu_si128((const __m128i *) from);
        __m128i next = _mm_loadu_si128((const __m128i *) (from + 1));
        _mm_storeu_si128((__m128i *) to, bytes);
        __m128i digit = tp_between(bytes, '0', '9');
        __m128i begins = _mm_or_si128(digit, tp_is(bytes, '$')); /* a number or parameter, if not in a name */
        __m128i name = _mm_or_si128(
            _mm_or_si128(tp_between(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), 'a', 'z'), tp_is(bytes, '_')),
            _mm_or_si128(begins, bytes)); /* and from 0x80 */
        __m128i stop = _mm_or_si128(
            _mm_or_si128(tp_upto(bytes, 0x1F), tp_is(bytes, 0x7F)),
            _mm_or_si128(tp_is(bytes, 92), _mm_or_si128(tp_is(bytes, 39), tp_is(bytes, '"'))));
        __m128i dash = tp_is(next, '-');
        stop = _mm_or_si128(stop, _mm_and_si128(tp_is(bytes, '-'), dash));
        stop = _mm_or_si128(stop, _mm_and_si128(tp_is(bytes, '/'), tp_is(next, '*')));
        stop = _mm_or_si128(stop, _mm_and_si128(
            tp_is(bytes, '.'), _mm_or_si128(tp_is(next, '.'), tp_between(next, '0', '9'))));
        stop = _mm_or_si128(stop, _mm_and_si128(
            tp_is(bytes, ' '), _mm_or_si128(tp_upto(next, ' '), _mm_or_si128(dash, tp_is(next, '/')))));
        unsigned names = (unsigned) _mm_movemask_epi8(name);
        unsigned starts = (unsigned) _mm_movemask_epi8(begins) & ~(names << 1 | (unsigned) in_name);
        return tp_first((unsigned) _mm_movemask_epi8(stop) | starts);
    }

    /* of a quoted name: neither a quote nor a control character */
    static inline size_t tp_quoted(const uint8_t *from, uint8_t *to) {
        __m128i bytes = _mm_loadu_si128((const __m128i *) from);
        _mm_storeu_si128((__m128i *) to, bytes);
        return tp_first((unsigned) _mm_movemask_epi8(_mm_or_si128(tp_is(bytes, '"'), tp_upto(bytes, 0x1F))));
    }

    /* of a string: neither a quote nor a backslash nor 0 */
    static inline size_t tp_string(const uint8_t *from) {
        __m128i bytes = _mm_loadu_si128((const __m128i *) from);
        return tp_first((unsigned) _mm_movemask_epi8(
            _mm_or_si128(_mm_or_si128(tp_is(bytes, 39), tp_is(bytes, 92)), tp_is(bytes, 0))));
    }
    #else
    /* the loops over single bytes do it all */
    #define TP_STEP SIZE_MAX
    static inline size_t tp_plain(const uint8_t *from, size_t size, int in_name, uint8_t *to) { return 0; }
    static inline size_t tp_quoted(const uint8_t *from, uint8_t *to) { return 0; }
    static inline size_t tp_string(const uint8_t *from) { return 0; }
    #endif
    """
    const size_t TP_STEP
    size_t tp_plain(const uint8_t *, size_t, bint, uint8_t *) noexcept nogil
    size_t tp_quoted(const uint8_t *, uint8_t *) noexcept nogil
    size_t tp_string(const uint8_t *) noexcept nogil

cdef enum:
    C_OTHER = 0  # operators, punctuation: copied
    C_NAME = 1  # may start a name: letters, _, bytes from 0x80
    C_DIGIT = 2
    C_SPACE = 3
    C_QUOTE = 4
    C_DQUOTE = 5
    C_DASH = 6
    C_SLASH = 7
    C_DOT = 8
    C_DOLLAR = 9
    C_BAD = 10  # control characters, backslash: no shape

    INT4_MAX = 2147483647

cdef uint8_t[256] CLASS  # of a byte at the start of a token
cdef uint8_t[256] IN_NAME  # 1: may go on in a name (ident_cont)
cdef uint8_t[256] IS_OPERATOR  # 1: one of op_chars


cdef void _fill_tables() noexcept:
    cdef int c
    for c in range(256):
        if c < 0x20 or c == 0x7F or c == b"\\":
            CLASS[c] = C_BAD
        elif c >= 0x80 or c == b"_" or (b"a" <= c <= b"z") or (b"A" <= c <= b"Z"):
            CLASS[c] = C_NAME
        elif b"0" <= c <= b"9":
            CLASS[c] = C_DIGIT
        else:
            CLASS[c] = C_OTHER
        IN_NAME[c] = CLASS[c] == C_NAME or CLASS[c] == C_DIGIT or c == b"$"
        IS_OPERATOR[c] = c > 0 and chr(c) in "~!@#^&|`?+-*/%<>="
    # \v is white space to newer servers only
    for c in b" \t\n\r\f":
        CLASS[c] = C_SPACE
    CLASS[b"'"] = C_QUOTE
    CLASS[b'"'] = C_DQUOTE
    CLASS[b"-"] = C_DASH
    CLASS[b"/"] = C_SLASH
    CLASS[b"."] = C_DOT
    CLASS[b"$"] = C_DOLLAR


_fill_tables()


cdef inline bint _is_lone(const uint8_t *sql, size_t i) noexcept nogil:
    """Is sql[i] no part of a longer name?"""
    return i == 0 or not IN_NAME[sql[i - 1]]


cdef inline bint _has_ampersand(const uint8_t *sql, size_t i) noexcept nogil:
    """Is it U&'' or U&"", whose quote is at i?"""
    return i >= 2 and sql[i - 1] == b"&" and (sql[i - 2] | 0x20) == b"u" and _is_lone(sql, i - 2)


cdef inline bint _has_prefix(const uint8_t *sql, size_t i) noexcept nogil:
    """Is it B'' X'' N'' E'' or U&''?  What lies before a quote is a name of one letter, and no end of a string,
    quoted name or comment, as these end with other bytes."""
    cdef uint8_t before
    if i == 0:
        return False
    before = sql[i - 1] | 0x20
    if before == b"b" or before == b"x" or before == b"n" or before == b"e":
        return _is_lone(sql, i - 1)
    return _has_ampersand(sql, i)


cdef Py_ssize_t shape_of(
    const uint8_t *sql, size_t size, uint8_t *out, Span *spans, size_t *n_spans
) noexcept nogil:
    cdef:
        size_t i = 0  # next byte of the text
        size_t n = 0  # bytes of the shape
        size_t start, run
        bint space = False  # white space or a comment lies before sql[i]
        bint after_string = False  # the last token was a string
        bint in_name  # the byte before sql[i] is one of a name, which sql[i] may prolong
        bint gap  # a space goes in front of what is copied
        uint8_t c, kind
        uint64_t value

    while i < size:
        c = sql[i]
        in_name = i > 0 and IN_NAME[sql[i - 1]]
        # a space is copied as it is only where it is the first, and something lies before it
        if c != b" " or (n > 0 and not space):
            gap = n > 0 and space
            run = tp_plain(sql + i, size - i, in_name, out + n + gap)
            if run:
                if gap:
                    out[n] = b" "
                n += gap + run
                i += run
                space = False
                if c != b" " or run > 1:
                    after_string = False
                continue
        kind = C_NAME if in_name and IN_NAME[c] else CLASS[c]

        if kind == C_SPACE:
            space = True
            i += 1
            continue

        if kind == C_DASH and i + 1 < size and sql[i + 1] == b"-":
            i += 2
            while i < size and sql[i] != b"\n" and sql[i] != b"\r":
                i += 1
            space = True
            continue

        if kind == C_SLASH and i + 1 < size and sql[i + 1] == b"*":
            i += 2
            while True:
                if i + 1 >= size:
                    return NO_SHAPE  # unterminated
                if sql[i] == b"*" and sql[i + 1] == b"/":
                    i += 2
                    break
                if sql[i] == b"/" and sql[i + 1] == b"*":
                    return NO_SHAPE  # nested
                i += 1
            space = True
            continue

        # a token starts here
        if space:
            if n > 0:
                out[n] = b" "
                n += 1
            space = False
        start = i

        if kind == C_NAME:
            while i < size and IN_NAME[sql[i]]:
                out[n] = sql[i]
                n += 1
                i += 1
            after_string = False
            continue

        if kind == C_DIGIT or (kind == C_DOT and i + 1 < size and CLASS[sql[i + 1]] == C_DIGIT):
            value = 0
            while i < size and CLASS[sql[i]] == C_DIGIT:
                if value <= INT4_MAX:
                    value = value * 10 + (sql[i] - 48)
                i += 1
            kind = ICONST if value <= INT4_MAX else FCONST
            if i < size and sql[i] == b".":
                kind = FCONST
                i += 1
                while i < size and CLASS[sql[i]] == C_DIGIT:
                    i += 1
            if i < size and (sql[i] == b"e" or sql[i] == b"E"):
                kind = FCONST
                i += 1
                if i < size and (sql[i] == b"+" or sql[i] == b"-"):
                    i += 1
                if i >= size or CLASS[sql[i]] != C_DIGIT:
                    return NO_SHAPE
                while i < size and CLASS[sql[i]] == C_DIGIT:
                    i += 1
            if i < size and (IN_NAME[sql[i]] or sql[i] == b"." or sql[i] == b"'"):
                return NO_SHAPE
            out[n] = kind
            n += 1
            if spans != NULL:
                spans[n_spans[0]] = Span(start, i, kind)
                n_spans[0] += 1
            after_string = False
            continue

        if kind == C_QUOTE:
            if after_string or _has_prefix(sql, i):
                return NO_SHAPE  # perhaps the last one continued
            i += 1
            while True:
                while size - i >= TP_STEP:
                    run = tp_string(sql + i)
                    i += run
                    if run < TP_STEP:
                        break
                if i >= size:
                    return NO_SHAPE
                c = sql[i]
                i += 1
                if c == b"'":
                    if i < size and sql[i] == b"'":
                        i += 1
                        continue
                    break
                if c == b"\\" or c == 0:
                    return NO_SHAPE
            out[n] = SCONST
            n += 1
            if spans != NULL:
                spans[n_spans[0]] = Span(start, i, SCONST)
                n_spans[0] += 1
            after_string = True
            continue

        after_string = False

        if kind == C_DQUOTE:
            if _has_ampersand(sql, i):
                return NO_SHAPE
            out[n] = c
            n += 1
            i += 1
            while size - i >= TP_STEP:
                run = tp_quoted(sql + i, out + n)
                i += run
                n += run
                if run < TP_STEP:
                    break
            while True:
                if i >= size:
                    return NO_SHAPE
                c = sql[i]
                if c < 0x20:
                    return NO_SHAPE
                out[n] = c
                n += 1
                i += 1
                # of a doubled quote the second half opens the name again, which comes to the same
                if c == b'"':
                    break
            continue

        if kind == C_DOLLAR:
            out[n] = c
            n += 1
            i += 1
            if i >= size or CLASS[sql[i]] != C_DIGIT:
                return NO_SHAPE  # a dollar quote
            while i < size and CLASS[sql[i]] == C_DIGIT:
                out[n] = sql[i]
                n += 1
                i += 1
            if i < size and IN_NAME[sql[i]]:
                return NO_SHAPE
            continue

        if kind == C_BAD or (kind == C_DOT and i + 1 < size and sql[i + 1] == b"."):
            return NO_SHAPE

        out[n] = c
        n += 1
        i += 1

    return <Py_ssize_t> n


cdef uint64_t operator_work(const uint8_t *sql, size_t size) noexcept nogil:
    cdef:
        size_t i
        uint64_t run = 0, work = 0
    for i in range(size):
        if IS_OPERATOR[sql[i]]:
            run += 1
        elif run:
            work += run * run
            run = 0
    return work + run * run


# --- for Python: the judge, logs and tests ---------------------------------------


def shape(const uint8_t[::1] sql not None):
    """The shape of a statement, or None if it has none."""
    cdef:
        size_t size = sql.shape[0]
        uint8_t *out
        Py_ssize_t n
    if size == 0:
        return b""
    out = <uint8_t *> malloc(size + SHAPE_SLACK)
    if out == NULL:
        raise MemoryError
    try:
        n = shape_of(&sql[0], size, out, NULL, NULL)
        return None if n == NO_SHAPE else (<char *> out)[:n]
    finally:
        free(out)


def literal_spans(const uint8_t[::1] sql not None):
    """(start, end, kind) of each literal that the shape leaves out, or None if there is no shape."""
    cdef:
        size_t size = sql.shape[0]
        size_t found = 0, i
        uint8_t *out
        Span *spans
    if size == 0:
        return []
    out = <uint8_t *> malloc(size + SHAPE_SLACK)
    spans = <Span *> malloc(size * sizeof(Span))
    try:
        if out == NULL or spans == NULL:
            raise MemoryError
        if shape_of(&sql[0], size, out, spans, &found) == NO_SHAPE:
            return None
        names = {ICONST: "ICONST", FCONST: "FCONST", SCONST: "SCONST"}
        return [(spans[i].start, spans[i].end, names[spans[i].kind]) for i in range(found)]
    finally:
        free(out)
        free(spans)


def readable(const uint8_t[::1] sql not None):
    """A statement for logs: literals shown as ?; None if it has no shape (then show nothing of it)."""
    found = shape(sql)
    if found is None:
        return None
    return found.translate(_READABLE).decode("utf-8", "replace")


_READABLE = bytes(b"?"[0] if c in (ICONST, FCONST, SCONST) else c for c in range(256))


def scan_cost(const uint8_t[::1] sql not None):
    """See `operator_work`: a unit is about a step of the scanner; 0 for an empty text."""
    return operator_work(&sql[0], sql.shape[0]) if sql.shape[0] else 0
