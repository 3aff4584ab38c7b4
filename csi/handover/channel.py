"""One end of a connected hand-over socket: whole messages in and out, descriptors with the message that has them.

Used by both sides. A channel promises that a received descriptor is either returned with its message or closed, that
no descriptor is inheritable, and that a peer that sends half a frame or stops reading costs at most a time limit.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from csi.errors import ProtocolError
from csi.handover.wire import MAX_FRAME, Message, encode, take_frame
from csi.volume.units import Seconds

_CHUNK = 65536
_MAX_DESCRIPTORS = 16
_SEND_TIMEOUT = Seconds(5.0)
_INTEGER = array.array("i").itemsize
_ANCILLARY = socket.CMSG_SPACE(_MAX_DESCRIPTORS * _INTEGER)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, as the kernel saw it at connect(2) (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message and the descriptors that came with it (the receiver's to close)."""

    message: Message
    descriptors: tuple[int, ...] = ()

    @property
    def descriptor(self) -> int | None:
        """Of a message that has one."""
        return self.descriptors[0] if self.descriptors else None

    def close(self) -> None:
        """Of no use: close them."""
        for descriptor in self.descriptors:
            os.close(descriptor)


class Channel:
    """Owns `sock`. `send` may be called from any thread (`_sending` keeps frames whole); receiving is for one thread.

    After a ProtocolError or the end of the stream the channel is of no further use: close it.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._sending = threading.Lock()
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self._pending: deque[Received] = deque()
        self._ended = False
        self._closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def peer(self) -> Peer:
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return Peer(*struct.unpack("3i", raw))

    @property
    def ended(self) -> bool:
        """The peer closed its end, and everything it sent before has been received."""
        return self._ended

    def send(self, message: Message, descriptors: Sequence[int] = (), *, timeout: Seconds = _SEND_TIMEOUT) -> None:
        """Send one message. Raises OSError when the peer is gone, TimeoutError when it does not read."""
        data = memoryview(encode(message))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        end = time.monotonic() + timeout
        with self._sending:
            while data:
                try:
                    sent = self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    if not _wait(self._socket, select.POLLOUT, end - time.monotonic()):
                        raise TimeoutError(f"the peer did not read for {timeout:g} s") from None
                    continue
                data = data[sent:]
                ancillary = []

    def receive_ready(self) -> list[Received]:
        """Every whole message that has arrived, without waiting. Raises ProtocolError."""
        self._read_available()
        messages = list(self._pending)
        self._pending.clear()
        try:
            while (message := take_frame(self._buffer)) is not None:
                messages.append(Received(message, self._descriptors_for(message)))
            self._refuse_strays()
        except ProtocolError:
            for received in messages:
                received.close()
            self._drop_descriptors()
            raise
        if self._ended and self._buffer:
            raise ProtocolError(f"the stream ended inside a frame, {len(self._buffer)} bytes into it")
        return messages

    def receive(self, timeout: Seconds) -> Received | None:
        """The next message; None when the peer has closed. Raises TimeoutError, ProtocolError."""
        end = time.monotonic() + timeout
        while True:
            self._pending.extend(self.receive_ready())
            if self._pending:
                return self._pending.popleft()
            if self._ended:
                return None
            if not _wait(self._socket, select.POLLIN, end - time.monotonic()):
                raise TimeoutError(f"no message within {timeout:g} s")

    def close(self) -> None:
        """Idempotent; from any thread."""
        if not self._closed:
            self._closed = True
            while self._pending:
                self._pending.popleft().close()
            self._drop_descriptors()
            self._socket.close()

    def _read_available(self) -> None:
        while not self._ended and len(self._buffer) <= MAX_FRAME + 4:
            try:
                # not socket.recv_fds: it drops its flags, and descriptors would be inherited by every child
                data, ancillary, flags, _ = self._socket.recvmsg(_CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data, ancillary, flags = b"", [], 0
            self._descriptors.extend(_descriptors_in(ancillary))
            if flags & socket.MSG_CTRUNC or len(self._descriptors) > _MAX_DESCRIPTORS:
                self._drop_descriptors()
                raise ProtocolError(f"more than {_MAX_DESCRIPTORS} file descriptors came at once")
            self._buffer += data
            self._ended = not data

    def _descriptors_for(self, message: Message) -> tuple[int, ...]:
        wanted = type(message).DESCRIPTORS
        if wanted == 0:
            return ()
        if len(self._descriptors) < wanted:  # more may be of the next message
            count = len(self._descriptors)
            raise ProtocolError(f"{type(message).__name__} came with {count} file descriptors, expected {wanted}")
        return tuple(self._descriptors.popleft() for _ in range(wanted))

    def _refuse_strays(self) -> None:
        if self._descriptors and not self._buffer:
            raise ProtocolError("file descriptors came with a frame that has none")

    def _drop_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popleft())


def _descriptors_in(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % _INTEGER])
    return found.tolist()


def _wait(sock: socket.socket, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(max(0.0, seconds) * 1000))
