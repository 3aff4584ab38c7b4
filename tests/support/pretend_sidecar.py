"""A process and a connection that behave like a sidecar, inside the test's own process: no fork, no mount."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from csi.handover.channel import Channel
from csi.handover.wire import Hello, Message
from csi.volume.units import Seconds

SOON = Seconds(10.0)


class PretendProcess:
    """A SidecarProcess whose end the test decides. Its pid is the test's, which SO_PEERCRED will say too."""

    def __init__(self, pid: int | None = None) -> None:
        self.pid = os.getpid() if pid is None else pid
        self.status: int | None = None
        self.signals: list[int] = []
        self._ended, self._end = socket.socketpair()

    def end(self, status: int) -> None:
        self.status = status
        self._end.close()

    def fileno(self) -> int:
        return self._ended.fileno()

    def poll(self) -> int | None:
        return self.status

    def wait(self, timeout: Seconds) -> bool:
        return self.status is not None

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def stopped(self) -> bool:
        return False

    def holds_device(self) -> bool:
        return True

    def close(self) -> None:
        self._ended.close()
        self._end.close()


class PretendSidecar:
    """The other end of the socket in `directory`."""

    def __init__(self, directory: Path, name: str = "s") -> None:
        where = os.open(directory, os.O_PATH)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(f"/proc/self/fd/{where}/{name}")
        finally:
            os.close(where)
        self.channel = Channel(sock)

    def say(self, *messages: Message) -> PretendSidecar:
        for message in messages:
            self.channel.send(message)
        return self

    def hello(self, **fields: object) -> PretendSidecar:
        return self.say(Hello(**{"version": 1, "pid": os.getpid(), **fields}))  # type: ignore[arg-type]

    def hear(self) -> Message | None:
        """The next message; its descriptor, if any, is closed."""
        received = self.channel.receive(SOON)
        if received is None:
            return None
        if received.descriptor is not None:
            os.close(received.descriptor)
        return received.message

    def close(self) -> None:
        self.channel.close()
