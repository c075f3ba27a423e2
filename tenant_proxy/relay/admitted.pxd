# Where startup packets have led before: what the compiled login (relay.entry) does again without Python.

from libc.stdint cimport uint32_t

from tenant_proxy.relay.core cimport Admitted, Relay

cdef Admitted *find_admitted(Relay e, const char *packet, size_t n, bint tls) noexcept nogil
# Remembers a packet, with TLS or without, unless it is known; `places` are (index of a shared counter, limit).
cdef void admit(Relay e, bytes packet, admission, uint32_t pool_id, uint32_t startup_id, uint32_t settings_id,
                bytes greeting, places, bint tls)
cdef void admitted_unref(Admitted *a) noexcept nogil
cdef void forget_packet(Relay e, bytes packet, bint tls)
cdef void forget_admitted(Relay e) noexcept nogil
