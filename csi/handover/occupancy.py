"""Who has a target: the calls that exclude each other there, and the mounts of others that must be left alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from csi.errors import OperationPending, TargetConflict
from csi.handover.mountinfo import MountEntry, published_volume


class Exclusion:
    """`_lock` guards `_busy`; it is held for moments only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    @contextlib.contextmanager
    def of(self, target: str) -> Iterator[None]:
        """One call at a time for `target`. Raises OperationPending for a second one."""
        with self._lock:
            if target in self._busy:
                raise OperationPending(
                    f"another call for {target} is under way", hint="wait for it; the same call can be made again"
                )
            self._busy.add(target)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(target)


def is_volume(entry: MountEntry, volume_id: str) -> bool:
    volume = published_volume(entry)
    return volume is not None and volume.volume_id == volume_id


def refuse_foreign(target: str, layers: Sequence[MountEntry]) -> None:
    """Before publishing. Raises TargetConflict when something is mounted on `target` that is not ours."""
    for entry in layers:
        if published_volume(entry) is None:
            raise TargetConflict(
                f"{target} already holds {_describe(entry)}", hint="unmount it, or publish to another path"
            )


def conflict(target: str, entry: MountEntry, volume_id: str) -> TargetConflict:
    """`entry` is ours, but not what shall be published as `volume_id`."""
    what = "volume" if not is_volume(entry, volume_id) else "options"
    access = "read-only" if entry.read_only else "writable"
    return TargetConflict(
        f"{target} is published already with different {what}: it holds {entry.source} ({access})",
        hint="unpublish it first",
    )


def refuse_others(target: str, layers: Sequence[MountEntry], volume_id: str) -> None:
    """Before unpublishing. Raises TargetConflict when `target` holds mounts, and none of them is `volume_id`'s."""
    others = [entry for entry in layers if not is_volume(entry, volume_id)]
    if others and len(others) == len(layers):
        raise TargetConflict(
            f"{target} holds {_describe(others[-1])}, not volume {volume_id}",
            hint="unmount it by hand if it is not wanted",
        )


def _describe(entry: MountEntry) -> str:
    return f"a mount of type {entry.fstype} from {entry.source}"
