from libc.stdint cimport uint32_t
cdef class VerdictCache:
    cdef uint32_t lookup(self, uint32_t scope_id, const char *sql, size_t size) noexcept nogil
