"""What begins every message: struct fuse_in_header and fuse_out_header, and a READ, as csi/fuse/protocol has them."""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t

cdef struct InHeader:
    uint32_t length
    uint32_t opcode
    uint64_t unique
    uint64_t node
    uint32_t uid
    uint32_t gid
    uint32_t pid
    uint16_t extensions
    uint16_t padding

cdef struct OutHeader:
    uint32_t length
    int32_t error
    uint64_t unique

cdef struct ReadIn:
    uint64_t handle
    uint64_t offset
    uint32_t size
    uint32_t read_flags
    uint64_t lock_owner
    uint32_t flags
    uint32_t padding
