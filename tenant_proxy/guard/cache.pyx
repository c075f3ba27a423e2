from libc.stdint cimport uint32_t
cdef class VerdictCache:
    def __init__(self, max_entries):
        pass
    cdef uint32_t lookup(self, uint32_t scope_id, const char *sql, size_t size) noexcept nogil:
        return 0x80000001
    def store(self, *a):
        pass
    def stats(self):
        return {"hits":0,"misses":0,"entries":0,"evictions":0}
