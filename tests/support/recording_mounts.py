"""A `VolumeMounts` that mounts nothing: it remembers what it was asked for, and does what a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from csi.errors import TargetConflict
from csi.handover.types import PublishedVolume, PublishRequest, VolumeCondition
from csi.volume.units import Bytes, Seconds


class Gate:
    """A `before` that holds the named operations until the gate is opened (at the latest after 30 seconds)."""

    def __init__(self, *operations: str) -> None:
        self._operations = operations
        self._arrivals = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self, operation: str, target: Path) -> None:
        if not self._operations or operation in self._operations:
            self._arrivals.release()
            self._opened.wait(30)

    def wait_for(self, arrivals: int) -> None:
        for _ in range(arrivals):
            assert self._arrivals.acquire(timeout=20)

    def open(self) -> None:
        self._opened.set()


@dataclass
class RecordingMounts:
    """`before` is called with (operation, target) on the worker thread and may raise or block."""

    before: Callable[[str, Path], None] | None = None
    conditions: dict[Path, VolumeCondition] = field(default_factory=dict)
    requests: list[PublishRequest] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._published: dict[Path, PublishRequest] = {}

    def publish(self, request: PublishRequest, deadline: Seconds) -> None:
        self._enter("publish", request.target)
        with self._lock:
            self.requests.append(request)
            self.deadlines.append(deadline)
            found = self._published.get(request.target)
            if found is not None and (found.volume_id, found.spec, found.read_only) != (
                request.volume_id,
                request.spec,
                request.read_only,
            ):
                raise TargetConflict(f"{request.target} holds something else", hint="unpublish it first")
            self._published[request.target] = request
            request.target.mkdir(exist_ok=True)

    def unpublish(self, volume_id: str, target: Path) -> None:
        self._enter("unpublish", target)
        with self._lock:
            if self._published.pop(target, None) is not None:
                target.rmdir()

    def published(self) -> list[PublishedVolume]:
        with self._lock:
            return [
                PublishedVolume(found.volume_id, str(hash(found.spec)), target, 1, found.read_only)
                for target, found in self._published.items()
            ]

    def condition(self, volume_id: str, target: Path) -> VolumeCondition | None:
        self._enter("condition", target)
        with self._lock:
            found = self._published.get(target)
        if found is None or found.volume_id != volume_id:
            return None
        healthy = VolumeCondition(False, "the volume is served", 1, Bytes(2**30), Bytes(2**27))
        return self.conditions.get(target, healthy)

    def given(self, volume_id: str, target: Path) -> str | None:
        with self._lock:
            found = self._published.get(target)
        return found.given if found is not None and found.volume_id == volume_id else None

    def close(self) -> None:
        self.closed = True

    def _enter(self, operation: str, target: Path) -> None:
        if self.before is not None:
            self.before(operation, target)
