# SHA-256, HMAC and base64 for what runs without the GIL.  Sizes are the caller's to check.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    DIGEST_BYTES = 32
    DIGEST_TEXT = 44            # of a digest in base64

cdef struct Sha256:
    uint32_t state[8]
    uint64_t total
    uint8_t block[64]

# A key's two first blocks, done once: a message then costs its own blocks and one more.
cdef struct HmacKey:
    uint32_t inner[8]
    uint32_t outer[8]

cdef void sha256_begin(Sha256 *s) noexcept nogil
cdef void sha256_add(Sha256 *s, const void *data, size_t n) noexcept nogil
cdef void sha256_end(Sha256 *s, uint8_t *digest) noexcept nogil
cdef void hmac_key(HmacKey *k, const uint8_t *key, size_t n) noexcept nogil
cdef void hmac_begin(const HmacKey *k, Sha256 *s) noexcept nogil
cdef void hmac_end(const HmacKey *k, Sha256 *s, uint8_t *digest) noexcept nogil
# writes 4 characters for each 3 bytes begun
cdef size_t base64_encode(const uint8_t *data, size_t n, char *text) noexcept nogil
# 1: `text` is the one way to write 32 bytes
cdef bint base64_digest(const char *text, uint8_t *digest) noexcept nogil
# in a time that does not tell where they differ
cdef bint same_bytes(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil
# not left out by the compiler, though nobody reads it afterwards
cdef void wipe(void *data, size_t n) noexcept nogil
