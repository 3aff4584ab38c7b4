"""GETs without the interpreter; see getting.pyx."""

from libc.stdint cimport uint64_t

from csi.oss.digests cimport Keyed

cdef enum:
    GOT = 0
    AGAIN = 1
    UNUSUAL = 2


cdef struct Text:
    const char* data
    size_t size


cdef struct Recipe:
    # what all GETs of some seconds have in common; the texts belong to a Stamp
    int kind  # of the HMAC: SHA1, SHA256, or 0 for requests that are not signed
    Text path
    Text fixed
    Text resource
    Text before
    Text after
    Text text
    Text lines
    Keyed key
    bint crc
    double timeout
    double stall
    double until


cdef struct Wanted:
    # `size` bytes from `begin` of an object of `total`, if it is the version of this ETag; all of them are no range
    const char* key
    size_t key_size
    const char* etag
    size_t etag_size
    uint64_t begin
    size_t size
    uint64_t total


cdef struct Line:
    # a connection and what is known of it
    int descriptor
    double armed
    bint ends  # the server closes it after this answer


cdef class Stamp:
    cdef Recipe recipe
    cdef tuple held


cdef int get(Line* line, Recipe* recipe, Wanted* wanted, char* target) noexcept nogil
