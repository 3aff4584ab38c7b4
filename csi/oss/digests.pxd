"""Digests in C, without the interpreter: what a plain GET needs to be signed and its body to be checked."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    SHA1 = 1
    SHA256 = 256


cdef struct Hash:
    uint32_t state[8]
    uint64_t length
    uint8_t block[64]
    int filled
    int kind


cdef struct Keyed:
    # HMAC with a key: the hashes after the inner and the outer pad
    Hash inner
    Hash outer


cdef void begin(Hash* hash, int kind) noexcept nogil
cdef void add(Hash* hash, const uint8_t* data, size_t size) noexcept nogil
cdef int end(Hash* hash, uint8_t* digest) noexcept nogil
cdef void set_key(Keyed* keyed, int kind, const uint8_t* key, size_t size) noexcept nogil
cdef int end_keyed(Keyed* keyed, Hash* text, uint8_t* digest) noexcept nogil
cdef uint64_t crc64(const uint8_t* data, size_t size) noexcept nogil
cdef void make_crc_tables() noexcept nogil
