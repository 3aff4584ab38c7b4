"""What messages consist of, as far as the native modules read and write them: as csi/fuse/protocol has it."""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

cdef enum:
    KEEP_CACHE = 1 << 1  # of an open
    NOFLUSH = 1 << 5
    WRITE_CACHE = 1 << 0  # of a write: pages of a mapping
    O_DSYNC = 0x1000  # of a write's file, or of the call: not answered before it is in OSS

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

cdef struct WriteIn:
    uint64_t handle
    uint64_t offset
    uint32_t size
    uint32_t write_flags
    uint64_t lock_owner
    uint32_t flags
    uint32_t padding

cdef struct Shape:
    # struct fuse_attr
    uint64_t inode
    uint64_t size
    uint64_t blocks
    int64_t accessed
    int64_t modified
    int64_t changed
    uint32_t accessed_nanoseconds
    uint32_t modified_nanoseconds
    uint32_t changed_nanoseconds
    uint32_t mode
    uint32_t links
    uint32_t uid
    uint32_t gid
    uint32_t device
    uint32_t block_size
    uint32_t flags

cdef struct EntryOut:
    uint64_t node
    uint64_t generation
    uint64_t entry_seconds
    uint64_t attributes_seconds
    uint32_t entry_nanoseconds
    uint32_t attributes_nanoseconds
    Shape shape
