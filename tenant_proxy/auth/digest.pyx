"""SHA-256 (FIPS 180-4), HMAC (RFC 2104) and base64 (RFC 4648) for the compiled login.

hashlib does the same through objects and the GIL, and its library's headers would have to be there to
build.  The functions for Python are here to be tested.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #define TP_ROTR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
    static const uint32_t tp_k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2 };
    static void tp_sha256_block(uint32_t *h, const uint8_t *p) {
        uint32_t w[64], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], k = h[7];
        int i;
        for (i = 0; i < 16; i++, p += 4)
            w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        for (; i < 64; i++) {
            uint32_t x = w[i - 15], y = w[i - 2];
            w[i] = w[i - 16] + (TP_ROTR(x, 7) ^ TP_ROTR(x, 18) ^ (x >> 3))
                 + w[i - 7] + (TP_ROTR(y, 17) ^ TP_ROTR(y, 19) ^ (y >> 10));
        }
        for (i = 0; i < 64; i++) {
            uint32_t t = k + (TP_ROTR(e, 6) ^ TP_ROTR(e, 11) ^ TP_ROTR(e, 25)) + ((e & f) ^ (~e & g))
                       + tp_k[i] + w[i];
            uint32_t u = (TP_ROTR(a, 2) ^ TP_ROTR(a, 13) ^ TP_ROTR(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            k = g; g = f; f = e; e = d + t; d = c; c = b; b = a; a = t + u;
        }
        h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += k;
    }
    static void tp_wipe(void *data, size_t n) {
        memset(data, 0, n);
    #if defined(__GNUC__) || defined(__clang__)
        __asm__ __volatile__("" : : "r"(data) : "memory");
    #else
        { volatile uint8_t *p = (volatile uint8_t *)data; while (n--) *p++ = 0; }
    #endif
    }
    """
    void tp_sha256_block(uint32_t *h, const uint8_t *p) noexcept nogil
    void tp_wipe(void *data, size_t n) noexcept nogil

cdef uint32_t *START = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19]
cdef const char *LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef void sha256_begin(Sha256 *s) noexcept nogil:
    memcpy(s.state, START, sizeof(s.state))
    s.total = 0


cdef void sha256_add(Sha256 *s, const void *data, size_t n) noexcept nogil:
    cdef const uint8_t *p = <const uint8_t *> data
    cdef size_t have = s.total & 63
    cdef size_t k
    s.total += n
    if have:
        k = 64 - have if n > 64 - have else n
        memcpy(s.block + have, p, k)
        if have + k < 64:
            return
        tp_sha256_block(s.state, s.block)
        p += k
        n -= k
    while n >= 64:
        tp_sha256_block(s.state, p)
        p += 64
        n -= 64
    if n:
        memcpy(s.block, p, n)


cdef void sha256_end(Sha256 *s, uint8_t *digest) noexcept nogil:
    cdef size_t have = s.total & 63
    cdef uint64_t bits = s.total * 8
    cdef int i
    s.block[have] = 0x80
    have += 1
    if have > 56:
        memset(s.block + have, 0, 64 - have)
        tp_sha256_block(s.state, s.block)
        have = 0
    memset(s.block + have, 0, 56 - have)
    for i in range(8):
        s.block[56 + i] = <uint8_t> (bits >> (56 - 8 * i))
    tp_sha256_block(s.state, s.block)
    for i in range(32):
        digest[i] = <uint8_t> (s.state[i >> 2] >> (24 - 8 * (i & 3)))
    wipe(s, sizeof(Sha256))


cdef void hmac_key(HmacKey *k, const uint8_t *key, size_t n) noexcept nogil:
    cdef Sha256 s
    cdef uint8_t pad[64]
    cdef int i
    memset(pad, 0, 64)
    if n > 64:
        sha256_begin(&s)
        sha256_add(&s, key, n)
        sha256_end(&s, pad)
    else:
        memcpy(pad, key, n)
    for i in range(64):
        pad[i] ^= 0x36
    memcpy(k.inner, START, sizeof(k.inner))
    tp_sha256_block(k.inner, pad)
    for i in range(64):
        pad[i] ^= 0x36 ^ 0x5c
    memcpy(k.outer, START, sizeof(k.outer))
    tp_sha256_block(k.outer, pad)
    wipe(pad, sizeof(pad))


cdef void hmac_begin(const HmacKey *k, Sha256 *s) noexcept nogil:
    memcpy(s.state, k.inner, sizeof(s.state))
    s.total = 64


cdef void hmac_end(const HmacKey *k, Sha256 *s, uint8_t *digest) noexcept nogil:
    cdef uint8_t inner[32]
    sha256_end(s, inner)
    memcpy(s.state, k.outer, sizeof(s.state))
    s.total = 64
    sha256_add(s, inner, 32)
    sha256_end(s, digest)
    wipe(inner, sizeof(inner))


cdef size_t base64_encode(const uint8_t *data, size_t n, char *text) noexcept nogil:
    cdef size_t i = 0
    cdef size_t at = 0
    cdef uint32_t v
    while i + 3 <= n:
        v = (<uint32_t> data[i] << 16) | (<uint32_t> data[i + 1] << 8) | data[i + 2]
        text[at] = LETTERS[v >> 18]
        text[at + 1] = LETTERS[(v >> 12) & 63]
        text[at + 2] = LETTERS[(v >> 6) & 63]
        text[at + 3] = LETTERS[v & 63]
        i += 3
        at += 4
    if i < n:
        v = <uint32_t> data[i] << 16
        if i + 1 < n:
            v |= <uint32_t> data[i + 1] << 8
        text[at] = LETTERS[v >> 18]
        text[at + 1] = LETTERS[(v >> 12) & 63]
        text[at + 2] = LETTERS[(v >> 6) & 63] if i + 1 < n else <char> 61
        text[at + 3] = 61
        at += 4
    return at


cdef inline int letter_value(uint8_t c) noexcept nogil:
    if 65 <= c <= 90:
        return c - 65
    if 97 <= c <= 122:
        return c - 71
    if 48 <= c <= 57:
        return c + 4
    return 62 if c == 43 else 63 if c == 47 else -1


cdef bint base64_digest(const char *text, uint8_t *digest) noexcept nogil:
    cdef int i, v
    cdef uint32_t bits = 0
    cdef int count = 0
    cdef int at = 0
    for i in range(43):
        v = letter_value(<uint8_t> text[i])
        if v < 0:
            return False
        bits = (bits << 6) | <uint32_t> v
        count += 6
        if count >= 8:
            count -= 8
            digest[at] = <uint8_t> (bits >> count)
            at += 1
    # two bits are left over, and one character to fill up
    return at == 32 and bits & 3 == 0 and text[43] == 61


cdef bint same_bytes(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil:
    cdef size_t i
    cdef uint8_t d = 0
    for i in range(n):
        d |= a[i] ^ b[i]
    return d == 0


cdef void wipe(void *data, size_t n) noexcept nogil:
    tp_wipe(data, n)


# --- for tests --------------------------------------------------------------------


def sha256(*parts):
    """Of the parts one after the other."""
    cdef Sha256 s
    cdef uint8_t digest[32]
    cdef bytes part
    sha256_begin(&s)
    for part in parts:
        sha256_add(&s, <const char *> part, len(part))
    sha256_end(&s, digest)
    return digest[:32]


def hmac_sha256(bytes key, *parts):
    cdef HmacKey k
    cdef Sha256 s
    cdef uint8_t digest[32]
    cdef bytes part
    hmac_key(&k, <const uint8_t *> <const char *> key, len(key))
    hmac_begin(&k, &s)
    for part in parts:
        sha256_add(&s, <const char *> part, len(part))
    hmac_end(&k, &s, digest)
    return digest[:32]


def encode(bytes data):
    """base64"""
    cdef bytearray text = bytearray((len(data) + 2) // 3 * 4)
    cdef char *where = text
    cdef size_t n = base64_encode(<const uint8_t *> <const char *> data, len(data), where)
    return bytes(text[:n])


def decode_digest(bytes text):
    """The 32 bytes, or None if it is not the one way to write them."""
    cdef uint8_t digest[32]
    if len(text) != 44 or not base64_digest(text, digest):
        return None
    return digest[:32]
