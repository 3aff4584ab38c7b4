"""The tables as an object; the device answers from `tables`."""

from csi.fuse.native.tables cimport Tables


cdef class Answers:
    cdef Tables* tables
    cdef public object couriers

    cdef void settle(self) noexcept
