"""What the block cache in memory asks of a slower one below it, before and after it asks the store."""

from __future__ import annotations

from typing import Protocol

from csi.oss.store import ObjectVersion


class KeptBlocks(Protocol):
    """Bytes of versions, kept where they outlive this process. Neither call ever raises."""

    def fill(self, version: ObjectVersion, start: int, target: memoryview) -> int:
        """Put the bytes from `start` into `target`, as many from its beginning as are kept and prove whole; how many
        that is."""

    def offer(self, version: ObjectVersion, start: int, data: memoryview) -> None:
        """These bytes came from the store and never change: keep them if there is time and room. Never waits."""

    def whole(self, version: ObjectVersion) -> int | None:
        """A descriptor, the caller's own and for reading only, of a file that is exactly this version; None when not
        all of it is kept and checked now. The file never changes."""
