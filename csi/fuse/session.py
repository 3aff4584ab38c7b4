"""The interface of a kernel session: an open /dev/fuse descriptor being served until the mount ends."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from csi.fuse.protocol.negotiation import InitResult
from csi.fuse.requests import SessionStatistics
from csi.volume.units import Seconds


class KernelSession(Protocol):
    def serve(self) -> None:
        """Answer requests until the mount is gone, the connection is aborted, or `stop` is called."""

    def stop(self) -> None:
        """Make `serve` return soon; callable from any thread and from a signal handler, any number of times."""

    def statistics(self) -> SessionStatistics:
        """Requests answered and under way; from any thread."""

    def wait_for_closes(self, patience: Seconds) -> None:
        """Until no file is being closed or synced, for at most `patience`; from any thread but the session's."""


@runtime_checkable
class Resumable(Protocol):
    """A session that another process can go on with (`resume` of `SessionChoice.open`)."""

    @property
    def agreed(self) -> InitResult | None:
        """What INIT was answered with; None before."""
