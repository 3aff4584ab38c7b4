"""Publishing volumes on this node: `SidecarMounts`, the implementation of `VolumeMounts` with local sidecars.

What is published is what the mount table says; what this process remembers (attendants) can be lost and is rebuilt by
`recover`. A call that fails leaves nothing of itself behind, a repeated call finds what is there, calls for one target
exclude each other, and no call ever touches one of the mounts: a mount whose sidecar is dead or hung costs a bounded
time and never a stuck thread.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from csi.errors import OssFuseError
from csi.handover.attendant import Attendant, Attended
from csi.handover.cgroup import CgroupRoom, MemoryCgroup
from csi.handover.condition import condition_of, without_sidecar
from csi.handover.connections import FuseConnections
from csi.handover.inheritance import Inheritance
from csi.handover.kernel import Kernel
from csi.handover.listener import SidecarListener
from csi.handover.mountinfo import MountEntry, mount_source, published_volume
from csi.handover.occupancy import Exclusion, conflict, is_volume, refuse_foreign, refuse_others
from csi.handover.process import Launcher, SidecarFinder, SidecarProcess
from csi.handover.publication import Publication, Tools
from csi.handover.removal import Patience, Removal, Served, remove_cgroup
from csi.handover.state import SOCKET_NAME, StateDirectory, runtime_name
from csi.handover.target import check_target, remove_target_directory, resolved_target
from csi.handover.types import PublishedVolume, PublishRequest, VolumeCondition
from csi.handover.unmount import Unmounter
from csi.volume.encode import spec_hash
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

Preflight = Callable[[PublishRequest, Seconds], None]
"""One cheap signed request before anything is mounted; raises StoreError or CredentialsMissing."""


class SidecarMounts:
    """`_lock` guards `_served` and `_waiting`, which is what dead sidecars left whose successors died too, before they
    served; it is never held during a system call that can wait.

    `open` must be called first, `close` at the end. Several instances on one machine need different state directories.
    """

    def __init__(
        self,
        state: StateDirectory,
        *,
        kernel: Kernel,
        connections: FuseConnections,
        room: CgroupRoom,
        launcher: Launcher,
        find: SidecarFinder,
        preflight: Preflight,
        entries: Callable[[], Sequence[MountEntry]],
        patience: Patience = Patience(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        inheritances: Callable[[], Inheritance] | None = None,
    ) -> None:
        """`inheritances`: as in `Tools`, for a caller who publishes a volume again as soon as its sidecar has died."""
        self._state = state
        self._kernel = kernel
        self._connections = connections
        self._room = room
        self._find = find
        self._preflight = preflight
        self._entries = entries
        self._clock = clock
        self._unmounter = Unmounter(kernel, connections, entries)
        self._silence = patience.silence
        self._removal = Removal(self._unmounter, room, patience)
        self._tools = Tools(kernel, connections, room, launcher, self._unmounter, patience.grace, inheritances)
        self._lock = threading.Lock()
        self._served: dict[str, Served] = {}
        self._waiting: dict[str, Inheritance] = {}
        self._exclusion = Exclusion()

    def open(self) -> None:
        """Take the state directory, then `recover`. Raises MountError."""
        self._state.open()
        try:
            self._connections.open()
            self.recover()
        except BaseException:
            self.close()
            raise

    # --- VolumeMounts ---

    def publish(self, request: PublishRequest, deadline: Seconds) -> None:
        end = self._clock() + deadline
        target = resolved_target(request.target)
        with self._exclusion.of(target):
            name = runtime_name(request.volume_id, target)
            if self._published_already(request, target, name):
                return
            dead = self._unmounter.layers(target)
            if not dead:
                self._clear(target, name)
                check_target(target)
            if len(dead) == 1 and (left := self._left(name)) is not None:
                self._go_on(request, target, name, end, left)
                return
            self._preflight(request, Seconds(max(0.1, end - self._clock())))
            if dead:  # it stays until another one takes its place: programs must not find the directory below
                for entry in dead:
                    self._connections.abort(entry.minor)
                self._clear("", name)
            self._publish_anew(request, target, name, end, replacing=bool(dead))

    def unpublish(self, volume_id: str, target: Path, *, remove_target: bool = True) -> None:
        """As `VolumeMounts.unpublish`; a mount point that was somebody's own directory can be left there."""
        path = resolved_target(target)
        with self._exclusion.of(path):
            name = runtime_name(volume_id, path)
            layers = self._unmounter.layers(path)
            refuse_others(path, layers, volume_id)
            with self._lock:
                served = self._served.get(name)
            if layers and served is not None:
                self._removal.finish(path, served)
            self._clear(path, name)
            if remove_target:
                remove_target_directory(path)

    def published(self) -> list[PublishedVolume]:
        names = set(self._state.names())
        found = [volume for entry in self._entries() if (volume := published_volume(entry)) is not None]
        return [volume for volume in found if runtime_name(volume.volume_id, str(volume.target)) in names]

    def condition(self, volume_id: str, target: Path) -> VolumeCondition | None:
        path = resolved_target(target)
        name = runtime_name(volume_id, path)
        with self._lock:
            served = self._served.get(name)
        mounted = any(is_volume(entry, volume_id) for entry in self._unmounter.layers(path))
        if not mounted:
            return None
        if served is None:
            return without_sidecar(volume_id)
        attendant = served.attendant
        condition = condition_of(
            volume_id,
            attendant.situation,
            served.memory,
            served.process.pid,
            attendant.last_words(),
            time.monotonic(),
            self._silence,
        )
        return replace(condition, went_on=attendant.went_on)

    def given(self, volume_id: str, target: Path) -> str | None:
        """None: these are not published for pods."""
        return None

    def close(self) -> None:
        with self._lock:
            served, self._served = self._served, {}
            waiting, self._waiting = self._waiting, {}
        for left in waiting.values():
            left.drop()
        for one in served.values():
            one.attendant.close()
            one.process.close()
        if not self._state.names():
            self._connections.close()
        self._state.close()

    # --- after a restart ---

    def recover(self) -> None:
        """Listen again for the sidecars that went on serving, and clean up after those that did not. Volumes of other
        state directories are left alone. One that cannot be recovered is logged and does not stop the others."""
        volumes = {runtime_name(v.volume_id, str(v.target)): v for v in self.published()}
        for name in self._state.names():
            try:
                volume = volumes.get(name)
                if volume is None or not self._resume(name, volume):
                    _log.info("cleaning up after a sidecar that ended (%s)", volume.target if volume else name)
                    self._clear(str(volume.target) if volume else "", name)
            except OssFuseError as error:
                _log.warning("runtime directory %s could not be recovered: %s", name, error)
        known = {served.memory.path for served in self._served.values()}
        for memory in self._room.leftovers():
            if memory.path not in known:
                remove_cgroup(memory)

    def _resume(self, name: str, volume: PublishedVolume) -> bool:
        runtime = self._state.runtime(name)
        memory = self._room.adopt(runtime.noted("cgroup"))
        process = self._living(memory)
        if memory is None or process is None:
            return False
        listener = SidecarListener(runtime.path, SOCKET_NAME, uid=runtime.uid, gid=runtime.gid, kernel=self._kernel)
        attended = Attended(
            *(volume.volume_id, volume.spec_hash, process, memory, listener, volume.read_only, volume.device_minor)
        )
        attendant = Attendant(attended, None)
        attendant.start()
        with self._lock:
            self._served[name] = Served(attendant, process, memory)
        _log.info("volume %s at %s goes on with sidecar %d", volume.volume_id, volume.target, process.pid)
        return True

    def _living(self, memory: MemoryCgroup | None) -> SidecarProcess | None:
        for pid in memory.pids() if memory is not None else ():
            with contextlib.suppress(OSError):
                process = self._find(pid)
                if process.holds_device():
                    return process
                process.close()  # it was never given the volume: nobody serves the mount
        return None

    # --- steps ---

    def _published_already(self, request: PublishRequest, target: str, name: str) -> bool:
        """Raises TargetConflict when something else is there; False when nothing is, or a dead mount of this volume."""
        layers = self._unmounter.layers(target)
        if not layers:
            return False
        wanted = mount_source(request.volume_id, spec_hash(request.spec))
        refuse_foreign(target, layers)
        for entry in layers:
            if entry.source != wanted or entry.read_only != request.read_only:
                raise conflict(target, entry, request.volume_id)
        with self._lock:
            served = self._served.get(name)
        if (
            len(layers) > 1
            or served is None
            or served.process.poll() is not None
            or served.attendant.situation.farewell
        ):
            _log.warning("volume %s at %s has no living sidecar", request.volume_id, target)
            return False
        if request.credentials is not None:
            self._state.runtime(name).credentials.write(request.credentials)
        return True

    def _left(self, name: str) -> Inheritance | None:
        """What the volume's sidecar, which is dead, left to the next one."""
        with self._lock:
            served, left = self._served.get(name), self._waiting.pop(name, None)
        if left is None:
            return served.attendant.bequeath() if served is not None else None
        if not left.is_over:
            return left
        left.drop()
        return None

    def _go_on(self, request: PublishRequest, target: str, name: str, end: float, left: Inheritance) -> None:
        """Programs wait for it, so nothing is asked of the network before. If it fails they wait on: for the next."""
        try:
            self._clear("", name)
            self._publish_anew(request, target, name, end, replacing=True, inheritance=left)
        except BaseException as error:
            if isinstance(error, OssFuseError) and left.died():
                with self._lock:
                    self._waiting[name] = left
            else:
                left.drop()
            raise

    def _publish_anew(
        self,
        request: PublishRequest,
        target: str,
        name: str,
        end: float,
        *,
        replacing: bool,
        inheritance: Inheritance | None = None,
    ) -> None:
        runtime = self._state.runtime(name)
        publication = Publication(
            *(self._tools, request, target, runtime, name), replacing=replacing, inheritance=inheritance
        )
        attendant = publication.run(lambda: Seconds(max(0.1, end - self._clock())))
        with self._lock:
            self._served[name] = Served(attendant, attendant.attended.process, attendant.attended.memory)

    def _clear(self, target: str, name: str) -> None:
        """Remove every trace of a volume: mounts (without a `target` they stay), processes, cgroup, runtime directory.
        Raises MountError."""
        with self._lock:
            served, left = self._served.pop(name, None), self._waiting.pop(name, None)
        if left is not None:
            left.drop()
        self._removal.clear(target, self._state.runtime(name), served)
