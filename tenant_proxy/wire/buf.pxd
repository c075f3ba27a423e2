# Buf: a growable run of bytes, [start, end) of it taken.  Gives its memory back when it empties,
# so that an idle link owns none.  All functions: no GIL, 0 on success, -1 when memory is out.

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

cdef struct Buf:
    char *data
    size_t cap
    size_t start
    size_t end


cdef inline size_t buf_len(const Buf *b) noexcept nogil:
    return b.end - b.start


cdef inline void buf_free(Buf *b) noexcept nogil:
    if b.data != NULL:
        free(b.data)
    b.data = NULL
    b.cap = b.start = b.end = 0


cdef inline int buf_reserve(Buf *b, size_t room) noexcept nogil:
    # makes sure that `room` bytes can be written behind `end`
    cdef size_t used = b.end - b.start
    cdef size_t cap
    cdef char *data
    if b.cap - b.end >= room:
        return 0
    if b.start > 0 and b.cap - used >= room and b.start >= used:
        memcpy(b.data, b.data + b.start, used)
        b.start = 0
        b.end = used
        return 0
    cap = 256
    while cap < used + room:
        cap <<= 1
    data = <char *> malloc(cap)
    if data == NULL:
        return -1
    if used:
        memcpy(data, b.data + b.start, used)
    if b.data != NULL:
        free(b.data)
    b.data = data
    b.cap = cap
    b.start = 0
    b.end = used
    return 0


cdef inline int buf_append(Buf *b, const char *data, size_t n) noexcept nogil:
    if buf_reserve(b, n) != 0:
        return -1
    memcpy(b.data + b.end, data, n)
    b.end += n
    return 0


cdef inline void buf_consume(Buf *b, size_t n) noexcept nogil:
    b.start += n
    if b.start >= b.end:
        buf_free(b)
