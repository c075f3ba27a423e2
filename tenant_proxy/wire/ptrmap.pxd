# PtrMap: open addressing from a 64-bit key to a pointer; a key may stand several times (colliding
# names are told apart by the caller).  Linear probing, deletion by shifting back, at most 2/3 full.

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

cdef struct PtrSlot:
    uint64_t key
    void *value

cdef struct PtrMap:
    PtrSlot *slots
    size_t mask
    size_t count


cdef inline size_t _home(const PtrMap *m, uint64_t key) noexcept nogil:
    return <size_t> ((key * <uint64_t> 0x9E3779B97F4A7C15) >> 20) & m.mask


cdef inline int map_grow(PtrMap *m) noexcept nogil:
    cdef PtrSlot *old = m.slots
    cdef size_t size = m.mask + 1 if old != NULL else 0
    cdef size_t wanted = size * 2 if size else 8
    cdef size_t i, j
    cdef PtrSlot *slots = <PtrSlot *> calloc(wanted, sizeof(PtrSlot))
    if slots == NULL:
        return -1
    m.slots = slots
    m.mask = wanted - 1
    for i in range(size):
        if old[i].value != NULL:
            j = _home(m, old[i].key)
            while slots[j].value != NULL:
                j = (j + 1) & m.mask
            slots[j] = old[i]
    if old != NULL:
        free(old)
    return 0


cdef inline int map_add(PtrMap *m, uint64_t key, void *value) noexcept nogil:
    cdef size_t j
    if m.slots == NULL or (m.count + 1) * 3 > (m.mask + 1) * 2:
        if map_grow(m) != 0:
            return -1
    j = _home(m, key)
    while m.slots[j].value != NULL:
        j = (j + 1) & m.mask
    m.slots[j].key = key
    m.slots[j].value = value
    m.count += 1
    return 0


# first slot with this key at or behind `at` in its probe run, NULL if none
cdef inline PtrSlot *map_find(const PtrMap *m, uint64_t key, PtrSlot *after) noexcept nogil:
    cdef size_t j
    if m.slots == NULL:
        return NULL
    if after == NULL:
        j = _home(m, key)
    else:
        j = (<size_t> (after - m.slots) + 1) & m.mask
    while m.slots[j].value != NULL:
        if m.slots[j].key == key:
            return &m.slots[j]
        j = (j + 1) & m.mask
    return NULL


cdef inline void *map_get(const PtrMap *m, uint64_t key) noexcept nogil:
    cdef PtrSlot *slot = map_find(m, key, NULL)
    return slot.value if slot != NULL else NULL


cdef inline void map_remove(PtrMap *m, PtrSlot *slot) noexcept nogil:
    cdef size_t hole = slot - m.slots
    cdef size_t j = hole
    cdef size_t home
    m.count -= 1
    while True:
        j = (j + 1) & m.mask
        if m.slots[j].value == NULL:
            break
        home = _home(m, m.slots[j].key)
        # move back what does not live between the hole (excluded) and here
        if ((j - home) & m.mask) >= ((j - hole) & m.mask):
            m.slots[hole] = m.slots[j]
            hole = j
    m.slots[hole].value = NULL
    m.slots[hole].key = 0


cdef inline void map_free(PtrMap *m) noexcept nogil:
    if m.slots != NULL:
        free(m.slots)
    m.slots = NULL
    m.mask = m.count = 0
