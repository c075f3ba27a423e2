"""What single messages of servers say."""

from libc.string cimport memcmp


cdef bint reads_otherwise(const char *message, size_t size) noexcept nogil:
    # Whether a ParameterStatus says that the server takes backslashes in '…' for escapes, which the guard does
    # not.  No statement that the guard has let through sets that, but code put together at run time may.
    return size > 33 and memcmp(message + 5, b"standard_conforming_strings", 28) == 0 and \
        (size != 36 or memcmp(message + 33, b"on", 3) != 0)


cdef bint stale_plan(char *message, size_t total) noexcept nogil:
    # feature_not_supported is what "cached plan must not change result type" comes with
    # (RevalidateCachedQuery in src/backend/utils/cache/plancache.c)
    return memcmp(sqlstate(message, total), b"0A000", 5) == 0


cdef bint is_wrong(char *message, size_t total) noexcept nogil:
    # whether an error is about a value or a right, so that only what sets roles and settings can have met it
    cdef const char *code = sqlstate(message, total)
    return memcmp(code, b"22", 2) == 0 or memcmp(code, b"42", 2) == 0


cdef const char *sqlstate(char *message, size_t total) noexcept nogil:
    cdef size_t i = 5
    while i + 7 < total and message[i] != 0:
        if message[i] == b'C':
            return message + i + 1
        while i < total and message[i] != 0:
            i += 1
        i += 1
    return b"     "
