"""Opens that are answered here, noted for a successor of this process in memory that outlives it: how that looks is
said in `csi/fs/light_opens.py`. A killed process may leave a slot half written only while its `opens` is 0. One file
that is closed and opened again may be in two slots for a moment."""

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
    #define ossfuse_count(target, by) __atomic_fetch_add((target), (by), __ATOMIC_RELEASE)
    #define ossfuse_opens(target) __atomic_load_n((target), __ATOMIC_ACQUIRE)
    """
    void ossfuse_count(uint32_t* target, uint32_t by) nogil
    uint32_t ossfuse_opens(uint32_t* target) nogil

cdef enum:
    SLOT_SIZE = 512
    TRIES = 8


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
        if plan.key_size + plan.etag_size > TEXT_SIZE or not take_slot(tables, plan):
            return False
        slot = slot_at(tables, plan.slot)
        slot.inode = inode
        slot.size = plan.size
        slot.key_size = <uint16_t>plan.key_size
        slot.etag_size = <uint16_t>plan.etag_size
        memcpy(slot.text, plan.key, plan.key_size)
        memcpy(slot.text + plan.key_size, plan.etag, plan.etag_size)
    ossfuse_count(&slot_at(tables, plan.slot).opens, 1)
    return True


cdef Slot* leave_slot(Tables* tables, Plan* plan) noexcept nogil:
    """One open of `plan` less is counted. Where `count_down` is to be said of it, once the kernel knows; NULL: nowhere.
    The slot is not taken by another one before that."""
    cdef Slot* slot
    if plan.slot < 0:
        return NULL
    slot = slot_at(tables, plan.slot)
    if plan.opens == 0:
        put_back(tables, <size_t>plan.slot)
        plan.slot = -1
    return slot


cdef void put_back(Tables* tables, size_t slot) noexcept nogil:
    tables.unused[tables.unused_count] = slot
    tables.unused_count += 1


cdef bint take_slot(Tables* tables, Plan* plan) noexcept nogil:
    """One of the last that were put back and are not waited for any more."""
    cdef size_t tried, last = tables.unused_count
    cdef size_t slot
    for tried in range(TRIES if last > TRIES else last):
        slot = tables.unused[last - 1 - tried]
        if ossfuse_opens(&slot_at(tables, <Py_ssize_t>slot).opens) == 0:
            tables.unused[last - 1 - tried] = tables.unused[last - 1]
            tables.unused_count -= 1
            plan.slot = <Py_ssize_t>slot
            return True
    return False


# --- without `lock` ---


cdef void count_down(Slot* slot, uint32_t opens) noexcept nogil:
    """The kernel knows that so many are released, or they are noted elsewhere."""
    ossfuse_count(&slot.opens, <uint32_t>(0 - opens))


cdef Slot* slot_at(Tables* tables, Py_ssize_t slot) noexcept nogil:
    return <Slot*>(<char*>tables.slots + slot * SLOT_SIZE)
