"""A copy as C makes it: other threads of the interpreter go on meanwhile, whatever the size.

Assigning to a slice of a memoryview keeps the interpreter's lock for the whole copy, which would measure the tree, not
the session that brings it the bytes.
"""

from __future__ import annotations

import ctypes

from csi.oss.store import Buffer


class _PyBuffer(ctypes.Structure):
    """Py_buffer of the C API (stable since 3.11)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address_of(buffer: Buffer) -> int:
    """Where the bytes lie; true for as long as the caller keeps `buffer` and does not resize it."""
    view = _PyBuffer()
    reference = ctypes.byref(view)
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), reference, 0)
    address = int(view.buf or 0)
    ctypes.pythonapi.PyBuffer_Release(reference)
    return address


def copy(address: int, data: Buffer) -> None:
    ctypes.memmove(address, address_of(data), len(data))
