"""Opens that are answered here, noted for a successor of this process in memory that outlives it: how that looks is
said in `csi/fs/light_opens.py`. A killed process may leave a slot half written only while its `opens` is 0."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from csi.fuse.native.tables cimport Plan, Tables


cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t length, int protection, int flags, int descriptor, long offset)
    int munmap(void* address, size_t length)
    enum: PROT_READ, PROT_WRITE, MAP_SHARED
    void* MAP_FAILED

cdef extern from *:
    """
    #define ossfuse_publish(target, value) __atomic_store_n((target), (value), __ATOMIC_RELEASE)
    """
    void ossfuse_publish(uint32_t* target, uint32_t value) nogil

cdef enum:
    SLOT_SIZE = 512
    TEXT_SIZE = 488

cdef struct Slot:
    uint64_t inode
    uint64_t size
    uint32_t opens
    uint16_t key_size
    uint16_t etag_size
    char text[TEXT_SIZE]


cdef bint note_in(Tables* tables, int descriptor, uint64_t offset, size_t size) noexcept nogil:
    """From now on opens are noted in that part of a file, which is all zeros; False without memory. Called once."""
    cdef size_t count = size // SLOT_SIZE, at
    cdef void* mapped
    cdef size_t* unused = <size_t*>malloc(count * sizeof(size_t))
    if unused == NULL:
        return False
    mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, <long>offset)
    if mapped == MAP_FAILED:
        free(unused)
        return False
    for at in range(count):
        unused[at] = count - 1 - at  # the first ones first: what was never used takes no memory
    tables.slots = mapped
    tables.slots_size = size
    tables.unused = unused
    tables.unused_count = count
    return True


cdef void end_notes(Tables* tables) noexcept nogil:
    if tables.slots != NULL:
        munmap(tables.slots, tables.slots_size)
        free(tables.unused)
        tables.slots = NULL


cdef bint note_opened(Tables* tables, uint64_t inode, Plan* plan) noexcept nogil:
    """The kernel is going to be told of an open by `plan`. False: there is no room to note it, so it must not be."""
    cdef Slot* slot
    if tables.slots == NULL:
        return True
    if plan.slot < 0:
        if tables.unused_count == 0 or plan.key_size + plan.etag_size > TEXT_SIZE:
            return False
        tables.unused_count -= 1
        plan.slot = <Py_ssize_t>tables.unused[tables.unused_count]
        slot = slot_at(tables, plan.slot)
        slot.inode = inode
        slot.size = plan.size
        slot.key_size = <uint16_t>plan.key_size
        slot.etag_size = <uint16_t>plan.etag_size
        memcpy(slot.text, plan.key, plan.key_size)
        memcpy(slot.text + plan.key_size, plan.etag, plan.etag_size)
    slot = slot_at(tables, plan.slot)
    ossfuse_publish(&slot.opens, slot.opens + 1)
    return True


cdef void note_released(Tables* tables, Plan* plan) noexcept nogil:
    """The kernel has been told that one of them is released, or was not told of the open."""
    cdef Slot* slot
    if plan.slot < 0:
        return
    slot = slot_at(tables, plan.slot)
    ossfuse_publish(&slot.opens, slot.opens - 1)
    if slot.opens == 0:
        free_slot(tables, <size_t>plan.slot)
        plan.slot = -1


cdef void free_slot(Tables* tables, size_t slot) noexcept nogil:
    ossfuse_publish(&slot_at(tables, <Py_ssize_t>slot).opens, 0)
    tables.unused[tables.unused_count] = slot
    tables.unused_count += 1


cdef Slot* slot_at(Tables* tables, Py_ssize_t slot) noexcept nogil:
    return <Slot*>(<char*>tables.slots + slot * SLOT_SIZE)
