# What single messages of servers say.

cdef bint reads_otherwise(const char *message, size_t size) noexcept nogil
cdef bint stale_plan(char *message, size_t total) noexcept nogil
cdef bint is_wrong(char *message, size_t total) noexcept nogil
