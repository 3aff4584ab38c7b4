"""Asynchronous writes of a program, by the kernel's own calls (io_setup(2), io_submit(2), io_getevents(2))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator, Sequence

_NUMBERS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_PWRITE = 1  # IOCB_CMD_PWRITE, linux/aio_abi.h


class _Request(ctypes.Structure):  # struct iocb
    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64 * 2),
    )


class _Event(ctypes.Structure):  # struct io_event
    _fields_ = (
        ("data", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("more", ctypes.c_int64),
    )


def submit_writes(descriptor: int, pieces: Sequence[tuple[int, bytes]]) -> list[int]:
    """Write each (offset, data), all under way at once: what each write(2) would have returned, an errno negated."""
    buffers = [ctypes.create_string_buffer(data, len(data)) for _, data in pieces]
    requests = [
        _Request(
            data=index,
            opcode=_PWRITE,
            descriptor=descriptor,
            buffer=ctypes.addressof(buffers[index]),
            size=len(data),
            offset=offset,
        )
        for index, (offset, data) in enumerate(pieces)
    ]
    places = (ctypes.c_void_p * len(requests))(*map(ctypes.addressof, requests))
    events = (_Event * len(requests))()
    _, _, wait, submit = _NUMBERS[platform.machine()]
    with _context(len(requests)) as context:
        _call(submit, context, ctypes.c_long(len(requests)), places)
        _call(wait, context, ctypes.c_long(len(requests)), ctypes.c_long(len(requests)), events, None)
    results = {event.data: event.result for event in events}
    return [results[index] for index in range(len(requests))]


@contextlib.contextmanager
def _context(size: int) -> Iterator[ctypes.c_ulong]:
    setup, destroy, _, _ = _NUMBERS[platform.machine()]
    context = ctypes.c_ulong()
    _call(setup, ctypes.c_uint(size), ctypes.byref(context))
    try:
        yield context
    finally:
        _call(destroy, context)


def _call(number: int, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
