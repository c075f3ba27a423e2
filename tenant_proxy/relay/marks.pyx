"""Counters in the workers' shared memory: what one of them does with a tenant that all must know of."""

from libc.stdint cimport int32_t, uint32_t

from tenant_proxy.pool.pool cimport CODE_PROVEN, Pool
from tenant_proxy.relay.core cimport Relay

cdef extern from *:
    """
    #define tp_full_fence() __sync_synchronize()
    """
    void full_fence "tp_full_fence"() nogil


cdef void count_shared(Relay e, int32_t index, int n) noexcept nogil:
    # other workers see it before anything of the client's is sent
    if e.counters != NULL and index >= 0:
        e.counters[e.row * e.row_places + index] += n
        full_fence()


cdef int32_t counted(Relay e, int32_t index) noexcept nogil:
    # over all workers; as a place is kept for good, it can be compared with an earlier sum
    cdef int32_t i
    cdef int32_t n = 0
    if e.counters == NULL or index < 0:
        return 0
    for i in range(e.rows):
        n += e.counters[i * e.row_places + index]
    return n


cdef void count_pin(Relay e, Pool *p, int n) noexcept nogil:
    p.pinned += n
    count_shared(e, p.pins_index, n)


cdef int32_t tenant_waits(Relay e, Pool *p) noexcept nogil:
    # clients of its tenant that wait, for shared servers or their own, at all workers
    if p.waits_index < 0:
        return p.waiting + (p.share.above.waiting if p.group != NULL else 0)
    return counted(e, p.waits_index)


cdef void define(Relay e, Pool *p) noexcept nogil:
    # definitions in the schema of the pool's tenant change, or have changed
    if p.defined_index < 0:
        p.generation += 1
    else:
        count_shared(e, p.defined_index, 1)


cdef uint32_t definitions(Relay e, Pool *p) noexcept nogil:
    # how often they have, as far as workers know
    return p.generation + <uint32_t> counted(e, p.defined_index)


cdef bint is_proven(Relay e, Pool *p) noexcept nogil:
    return p.known == CODE_PROVEN and counted(e, p.mark_index) == p.known_mark
