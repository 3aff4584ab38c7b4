"""Being in the namespaces of another process: its network for a moment, or all of them for a command."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000


@contextmanager
def inside_network(pid: int) -> Iterator[None]:
    """Sockets that this thread makes in the block, and processes that it starts, belong to the network of `pid`."""
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(theirs)
        try:
            yield
        finally:
            _enter(ours)
    finally:
        os.close(theirs)
        os.close(ours)


def command_inside(pid: int, command: list[str]) -> list[str]:
    """The command line that runs `command` with mounts, network and processes of `pid`, in the directory /."""
    return ["nsenter", "-t", str(pid), "-m", "-n", "-p", "--", *command]


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
