"""The kernel's end of a FUSE connection in a test: a socket that keeps messages apart stands for /dev/fuse."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from dataclasses import dataclass

from csi.fuse.protocol.constants import Opcode

_IN = struct.Struct("<IIQQIIIHxx")
_OUT = struct.Struct("<IiQ")
_INIT_FLAGS = 0x73FFFFFB
_INIT_FLAGS2 = 0x5FD
PATIENCE = 20.0


@dataclass(frozen=True)
class Answered:
    unique: int
    error: int
    """An errno, 0 for none."""
    body: bytes


class KernelEnd:
    """`descriptor` is the server's end. Requests get the numbers 2, 4, …"""

    def __init__(self) -> None:
        self._socket, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, server):
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, buffer, 4 << 20)
        self.descriptor = server.detach()
        self._socket.settimeout(PATIENCE)
        self._uniques = itertools.count(2, 2)

    def send(self, opcode: Opcode, body: bytes = b"", node: int = 1, unique: int | None = None) -> int:
        unique = next(self._uniques) if unique is None else unique
        self._socket.send(_IN.pack(_IN.size + len(body), opcode, unique, node, 1000, 1000, 1, 0) + body)
        return unique

    def receive(self) -> Answered:
        message = self._socket.recv(4 << 20)
        if not message:
            raise EOFError("the server has closed the connection")
        length, error, unique = _OUT.unpack_from(message)
        assert length == len(message)
        return Answered(unique, -error, message[_OUT.size :])

    def ask(self, opcode: Opcode, body: bytes = b"", node: int = 1) -> Answered:
        """One request, and its answer: nothing else may be under way."""
        unique = self.send(opcode, body, node)
        answered = self.receive()
        assert answered.unique == unique
        return answered

    def init(self, minor: int = 45) -> Answered:
        body = struct.pack("<IIIII44x", 7, minor, 1 << 20, _INIT_FLAGS, _INIT_FLAGS2)
        return self.ask(Opcode.INIT, body, node=0)

    def has_answer(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(PATIENCE)
        return True

    def unmount(self) -> None:
        """The server reads the end of the connection."""
        self._socket.close()

    def close(self) -> None:
        """Both ends, where no server closes its own."""
        self._socket.close()
        os.close(self.descriptor)


def read_body(handle: int, offset: int, size: int) -> bytes:
    return struct.pack("<QQIIQIxxxx", handle, offset, size, 0, 0, 0)


def open_body(flags: int) -> bytes:
    return struct.pack("<II", flags, 0)


def release_body(handle: int) -> bytes:
    return struct.pack("<QIIQ", handle, 0, 0, 0)


def forget_body(count: int) -> bytes:
    return struct.pack("<Q", count)


def batch_forget_body(*forgotten: tuple[int, int]) -> bytes:
    return struct.pack("<II", len(forgotten), 0) + b"".join(struct.pack("<QQ", *one) for one in forgotten)


def getattr_body() -> bytes:
    return struct.pack("<IxxxxQ", 0, 0)
