"""Where startup packets have led before."""

from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from tenant_proxy.relay.core cimport MAX_PLACES, Admitted, Relay, drop_object
from tenant_proxy.relay.statements cimport hash_bytes
from tenant_proxy.wire.ptrmap cimport PtrMap, PtrSlot, map_add, map_find, map_free, map_remove


cdef PtrSlot *find_slot(Relay e, const char *packet, size_t n, bint tls) noexcept nogil:
    cdef uint64_t h = hash_bytes(e.seed, packet, n)
    cdef PtrSlot *slot = map_find(&e.entries.admitted, h, NULL)
    cdef Admitted *a
    while slot != NULL:
        a = <Admitted *> slot.value
        if a.size == n and a.tls == tls and memcmp(a.packet, packet, n) == 0:
            return slot
        slot = map_find(&e.entries.admitted, h, slot)
    return NULL


cdef Admitted *find_admitted(Relay e, const char *packet, size_t n, bint tls) noexcept nogil:
    cdef PtrSlot *slot = find_slot(e, packet, n, tls)
    return <Admitted *> slot.value if slot != NULL else NULL


cdef void admit(Relay e, bytes packet, admission, uint32_t pool_id, uint32_t startup_id, uint32_t settings_id,
                bytes greeting, places, bint tls):
    cdef Admitted *a
    if len(places) > MAX_PLACES or find_slot(e, packet, len(packet), tls) != NULL:
        return
    a = <Admitted *> calloc(1, sizeof(Admitted))
    if a == NULL:
        raise MemoryError
    a.refs = 1
    a.tls = tls
    a.size = len(packet)
    a.packet = <char *> malloc(a.size + 1)
    a.greeting_size = len(greeting)
    a.greeting = <char *> malloc(a.greeting_size + 1)
    memcpy(a.packet, <const char *> packet, a.size)
    memcpy(a.greeting, <const char *> greeting, a.greeting_size)
    a.hash = hash_bytes(e.seed, packet, len(packet))
    a.elsewhere = pool_id == 0
    a.pool = pool_id
    a.startup_id = startup_id
    a.settings_id = settings_id
    for index, limit in places:
        a.place[a.places] = index
        a.limit[a.places] = limit
        a.places += 1
    Py_INCREF(admission)
    a.admission = <void *> admission
    map_add(&e.entries.admitted, a.hash, a)


cdef void admitted_unref(Admitted *a) noexcept nogil:
    a.refs -= 1
    if a.refs:
        return
    drop_object(a.admission)
    free(a.packet)
    free(a.greeting)
    free(a)


cdef void forget_packet(Relay e, bytes packet, bint tls):
    cdef PtrSlot *slot = find_slot(e, packet, len(packet), tls)
    cdef Admitted *a
    if slot != NULL:
        a = <Admitted *> slot.value
        map_remove(&e.entries.admitted, slot)
        admitted_unref(a)


cdef void forget_admitted(Relay e) noexcept nogil:
    cdef PtrMap *m = &e.entries.admitted
    cdef size_t i
    if m.slots != NULL:
        for i in range(m.mask + 1):
            if m.slots[i].value != NULL:
                admitted_unref(<Admitted *> m.slots[i].value)
    map_free(m)
