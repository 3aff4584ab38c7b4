# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Large files read at random places: each READ is one GET of just its bytes, by a courier (fetches.pyx).

Who publishes says when the reads of a file are scattered, and when they are not any more. What may be the beginning of
a pattern comes to the filesystem: a read near one of the latest, and one that jumps as far as the one before.
"""

from libc.stdint cimport uint64_t

from csi.fuse.native.fetches cimport await_job, is_fetching, make_range
from csi.fuse.native.tables cimport RECENT, File, Job, Tables
from csi.fuse.native.wire cimport InHeader

cdef enum:
    PAGE = 4096
    LARGEST = 262144  # more is worth several connections


cdef bint read_range(
    Tables* tables, int descriptor, File* file, InHeader* header, uint64_t offset, uint64_t end
) noexcept nogil:
    """READ of `offset`..`end`, not empty and no longer than the file: answered soon. False: for the filesystem."""
    cdef Job* job
    if not is_scattered(file, offset, end) or end - offset > LARGEST or not is_fetching(tables):
        return False
    tables.fetching.descriptor = descriptor
    job = make_range(tables, file.plan, offset, end - offset)
    return job != NULL and await_job(tables, job, header)


cdef bint is_scattered(File* file, uint64_t offset, uint64_t end) noexcept nogil:
    cdef uint64_t near = 2 * (end - offset), jump = offset - file.begin
    cdef bint found = jump - file.jump + PAGE <= 2 * PAGE  # the kernel asks for whole pages
    cdef int at
    for at in range(RECENT):
        found = found or offset - file.ends[at] + near <= 2 * near
    file.latest = (file.latest + 1) % RECENT
    file.ends[file.latest] = end
    file.begin = offset
    file.jump = jump
    return not found
