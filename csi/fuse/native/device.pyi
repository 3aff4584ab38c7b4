from collections.abc import Callable

from csi.fuse.native.answers import Answers
from csi.oss.store import Buffer
from csi.volume.units import Seconds

class Device:
    """An open /dev/fuse, owned by this from the start."""

    def __init__(
        self, descriptor: int, answers: Answers, buffer_size: int, buffers: int, turns: int = ..., fewest: int = ...
    ) -> None:
        """`buffer_size`: the largest request with its headers; `buffers` bounds the buffers kept by views; `turns`: how
        many threads read at a time, `fewest` how many while Python is hardly called, or large requests come."""

    def run(self, handle: Callable[[memoryview], None]) -> int:
        """Serve on this thread: 0 after `stop`, else the errno with which the descriptor ended."""

    def watch(self) -> None:
        """Beside the threads that serve, until `stop` or the end: no request waits for a thread that is in Python."""

    def receive(self) -> bytes:
        """One message; b'' after `stop` or at the end of the descriptor."""

    def reply(self, unique: int, error: int = 0, *parts: Buffer) -> int:
        """0, or the errno with which the kernel refused it (ENOENT: the request is gone)."""

    def reply_soon(self, unique: int, error: int = 0, *parts: Buffer) -> int:
        """`reply` that may wait until `handle` returns: 0 then, whatever the kernel says to it later."""

    def notify(self, message: bytes) -> int:
        """0, or the errno with which the kernel refused it."""

    def control(self, command: int, argument: bytes) -> int:
        """ioctl(2): its result. Raises OSError, EBADF after `close`."""

    def stay(self, long: bool) -> bool:
        """Whether this thread, in `handle`, may make a call that waits; then followed by `leave`. `long`: it mostly
        does wait."""

    def leave(self) -> None: ...
    def is_over(self) -> bool:
        """Whether nobody reads it any more: it has ended, or `stop` was called."""

    def close(self, patience: Seconds) -> bool:
        """False when something was still being written to it after `patience`. Idempotent."""

    def has_spare_buffer(self) -> bool: ...
    def stop(self) -> None: ...
    def interrupt(self) -> None: ...
    def counters(self) -> tuple[int, int]:
        """(requests brought to Python, times a turn was taken from a thread that stayed there)."""
