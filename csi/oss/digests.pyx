# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""SHA-1, SHA-256, HMAC and CRC-64/XZ without the interpreter lock: to sign a GET and to check its body in C.

Python has all of them, but behind the lock, and a small file is to be read without it. FIPS 180-4, RFC 2104; the CRC is
folded by carry-less multiplication where the processor has it ("Fast CRC Computation Using PCLMULQDQ", Intel).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>
    static const uint32_t OSSFUSE_K256[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    };
    static const uint32_t OSSFUSE_FIRST256[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    static const uint32_t OSSFUSE_FIRST1[8] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    #if defined(__x86_64__)
    #include <immintrin.h>
    #define OSSFUSE_FOLDS __builtin_cpu_supports("pclmul")
    #define FOLD(value, by) _mm_xor_si128(_mm_clmulepi64_si128(value, by, 0x00), _mm_clmulepi64_si128(value, by, 0x11))
    /* The 16 bytes that have the same CRC as `state` (the CRC so far) before all of `size` (a multiple of 64). */
    __attribute__((target("pclmul,sse4.1")))
    static void ossfuse_fold(const uint8_t *data, size_t size, uint64_t state, uint8_t *left) {
        const __m128i by64 = _mm_set_epi64x(0x081f6054a7842df4, 0x6ae3efbb9dd441f3);
        const __m128i by16 = _mm_set_epi64x(0xdabe95afc7875f40, 0xe05dd497ca393ae4);
        const __m128i *at = (const __m128i *)data;
        __m128i a = _mm_xor_si128(_mm_loadu_si128(at), _mm_cvtsi64_si128((long long)state));
        __m128i b = _mm_loadu_si128(at + 1), c = _mm_loadu_si128(at + 2), d = _mm_loadu_si128(at + 3);
        for (at += 4, size -= 64; size; at += 4, size -= 64) {
            a = _mm_xor_si128(FOLD(a, by64), _mm_loadu_si128(at));
            b = _mm_xor_si128(FOLD(b, by64), _mm_loadu_si128(at + 1));
            c = _mm_xor_si128(FOLD(c, by64), _mm_loadu_si128(at + 2));
            d = _mm_xor_si128(FOLD(d, by64), _mm_loadu_si128(at + 3));
        }
        b = _mm_xor_si128(FOLD(a, by16), b);
        c = _mm_xor_si128(FOLD(b, by16), c);
        d = _mm_xor_si128(FOLD(c, by16), d);
        _mm_storeu_si128((__m128i *)left, d);
    }
    #else
    #define OSSFUSE_FOLDS 0
    static void ossfuse_fold(const uint8_t *data, size_t size, uint64_t state, uint8_t *left) {}
    #endif
    """
    int OSSFUSE_FOLDS
    const uint32_t* OSSFUSE_K256
    const uint32_t* OSSFUSE_FIRST256
    const uint32_t* OSSFUSE_FIRST1
    void ossfuse_fold(const uint8_t* data, size_t size, uint64_t state, uint8_t* left)

cdef uint64_t POLYNOMIAL = 0xC96C5795D7870F42
cdef uint64_t CRC[8][256]  # written once, by make_crc_tables


cdef inline uint32_t left(uint32_t word, int count) noexcept nogil:
    return word << count | word >> (32 - count)


cdef inline uint32_t right(uint32_t word, int count) noexcept nogil:
    return word >> count | word << (32 - count)


cdef inline void read_words(uint32_t* w, const uint8_t* block) noexcept nogil:
    """The 16 of a block."""
    cdef int at
    for at in range(16):
        w[at] = <uint32_t>block[4 * at] << 24 | <uint32_t>block[4 * at + 1] << 16
        w[at] |= <uint32_t>block[4 * at + 2] << 8 | block[4 * at + 3]


cdef void take256(uint32_t* state, const uint8_t* block) noexcept nogil:
    cdef uint32_t w[64]
    cdef uint32_t a, b, c, d, e, f, g, h, one, two
    cdef int at
    read_words(w, block)
    for at in range(16, 64):
        one = right(w[at - 15], 7) ^ right(w[at - 15], 18) ^ (w[at - 15] >> 3)
        two = right(w[at - 2], 17) ^ right(w[at - 2], 19) ^ (w[at - 2] >> 10)
        w[at] = w[at - 16] + one + w[at - 7] + two
    a, b, c, d, e, f, g, h = state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7]
    for at in range(64):
        one = h + (right(e, 6) ^ right(e, 11) ^ right(e, 25)) + ((e & f) ^ (~e & g)) + OSSFUSE_K256[at] + w[at]
        two = (right(a, 2) ^ right(a, 13) ^ right(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))
        h = g
        g = f
        f = e
        e = d + one
        d = c
        c = b
        b = a
        a = one + two
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e
    state[5] += f
    state[6] += g
    state[7] += h


cdef void take1(uint32_t* state, const uint8_t* block) noexcept nogil:
    cdef uint32_t w[80]
    cdef uint32_t a, b, c, d, e, mixed
    cdef int at
    read_words(w, block)
    for at in range(16, 80):
        w[at] = left(w[at - 3] ^ w[at - 8] ^ w[at - 14] ^ w[at - 16], 1)
    a, b, c, d, e = state[0], state[1], state[2], state[3], state[4]
    for at in range(80):
        if at < 20:
            mixed = ((b & c) | (~b & d)) + <uint32_t>0x5a827999
        elif at < 40:
            mixed = (b ^ c ^ d) + <uint32_t>0x6ed9eba1
        elif at < 60:
            mixed = ((b & c) | (b & d) | (c & d)) + <uint32_t>0x8f1bbcdc
        else:
            mixed = (b ^ c ^ d) + <uint32_t>0xca62c1d6
        mixed += left(a, 5) + e + w[at]
        e = d
        d = c
        c = left(b, 30)
        b = a
        a = mixed
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e


cdef void take(Hash* hash, const uint8_t* block) noexcept nogil:
    if hash.kind == SHA1:
        take1(hash.state, block)
    else:
        take256(hash.state, block)


cdef void begin(Hash* hash, int kind) noexcept nogil:
    """`kind` is SHA1 or SHA256."""
    hash.kind = kind
    hash.length = 0
    hash.filled = 0
    memcpy(hash.state, OSSFUSE_FIRST1 if kind == SHA1 else OSSFUSE_FIRST256, sizeof(hash.state))


cdef void add(Hash* hash, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t part
    hash.length += size
    if hash.filled:
        part = min(size, <size_t>(64 - hash.filled))
        memcpy(hash.block + hash.filled, data, part)
        hash.filled += <int>part
        data += part
        size -= part
        if hash.filled < 64:
            return
        take(hash, hash.block)
        hash.filled = 0
    while size >= 64:
        take(hash, data)
        data += 64
        size -= 64
    memcpy(hash.block, data, size)
    hash.filled = <int>size


cdef int end(Hash* hash, uint8_t* digest) noexcept nogil:
    """Writes the digest (32 bytes of room); returns how long it is."""
    cdef uint64_t bits = hash.length * 8
    cdef int words = 5 if hash.kind == SHA1 else 8
    cdef int at
    hash.block[hash.filled] = 0x80
    memset(hash.block + hash.filled + 1, 0, 63 - hash.filled)
    if hash.filled >= 56:
        take(hash, hash.block)
        memset(hash.block, 0, 64)
    for at in range(8):
        hash.block[56 + at] = <uint8_t>(bits >> (56 - 8 * at))
    take(hash, hash.block)
    for at in range(4 * words):
        digest[at] = <uint8_t>(hash.state[at // 4] >> (24 - 8 * (at % 4)))
    return 4 * words


cdef void set_key(Keyed* keyed, int kind, const uint8_t* key, size_t size) noexcept nogil:
    cdef uint8_t pad[64]
    cdef uint8_t short[32]
    cdef Hash hash
    cdef int at
    if size > 64:
        begin(&hash, kind)
        add(&hash, key, size)
        size = <size_t>end(&hash, short)
        key = short
    memset(pad, 0x36, 64)
    for at in range(<int>size):
        pad[at] ^= key[at]
    begin(&keyed.inner, kind)
    add(&keyed.inner, pad, 64)
    for at in range(64):
        pad[at] ^= 0x36 ^ 0x5c
    begin(&keyed.outer, kind)
    add(&keyed.outer, pad, 64)


cdef int end_keyed(Keyed* keyed, Hash* text, uint8_t* digest) noexcept nogil:
    """The HMAC of what was added to `text`, which began as a copy of `keyed.inner`; returns how long it is."""
    cdef uint8_t inner[32]
    cdef Hash outer = keyed.outer
    cdef int size = end(text, inner)
    add(&outer, inner, size)
    return end(&outer, digest)


cdef void make_crc_tables() noexcept nogil:
    cdef uint64_t rest
    cdef int byte, bit, table
    for byte in range(256):
        rest = <uint64_t>byte
        for bit in range(8):
            rest = rest >> 1 ^ (POLYNOMIAL if rest & 1 else 0)
        CRC[0][byte] = rest
    for byte in range(256):
        for table in range(1, 8):
            CRC[table][byte] = CRC[table - 1][byte] >> 8 ^ CRC[0][CRC[table - 1][byte] & 255]


cdef uint64_t plain_crc(const uint8_t* data, size_t size, uint64_t state) noexcept nogil:
    cdef uint64_t eight
    while size >= 8:
        memcpy(&eight, data, 8)
        state ^= eight  # little-endian, as everything that FUSE and OSS run on
        state = (
            CRC[7][state & 255] ^ CRC[6][state >> 8 & 255] ^ CRC[5][state >> 16 & 255] ^ CRC[4][state >> 24 & 255]
            ^ CRC[3][state >> 32 & 255] ^ CRC[2][state >> 40 & 255] ^ CRC[1][state >> 48 & 255] ^ CRC[0][state >> 56]
        )
        data += 8
        size -= 8
    while size:
        state = state >> 8 ^ CRC[0][(state ^ data[0]) & 255]
        data += 1
        size -= 1
    return state


cdef uint64_t crc64(const uint8_t* data, size_t size) noexcept nogil:
    cdef uint8_t folded[16]
    cdef uint64_t state = <uint64_t>-1
    cdef size_t part = size & ~<size_t>63
    if OSSFUSE_FOLDS and part >= 128:
        ossfuse_fold(data, part, state, folded)
        state = plain_crc(folded, 16, 0)
        data += part
        size -= part
    return ~plain_crc(data, size, state)


def hashed(int kind, data):
    cdef Py_buffer view
    cdef Hash hash
    cdef uint8_t digest[32]
    cdef int size
    begin(&hash, kind)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        add(&hash, <uint8_t*>view.buf, view.len)
        size = end(&hash, digest)
        return digest[:size]
    finally:
        PyBuffer_Release(&view)


def authenticated(int kind, bytes key, data):
    cdef Py_buffer view
    cdef Keyed keyed
    cdef Hash text
    cdef uint8_t digest[32]
    cdef int size
    set_key(&keyed, kind, key, len(key))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        text = keyed.inner
        add(&text, <uint8_t*>view.buf, view.len)
        size = end_keyed(&keyed, &text, digest)
        return digest[:size]
    finally:
        PyBuffer_Release(&view)


def checksum(data):
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return crc64(<uint8_t*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


make_crc_tables()
