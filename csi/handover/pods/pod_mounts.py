"""Publishing volumes for pods that bring their sidecars: `PodMounts`, the `VolumeMounts` of clusters.

A publish mounts, listens in the tmpfs that the sidecar shares with the node plugin, and returns: the sidecar starts
only afterwards. From then on the volume is in the hands of its attendant, and kubelet's many repetitions of the call
find it published: they bring new credentials and touch nothing else, whatever state the mount is in. Above all they
never mount again, because a pod that has finished is republished too, and never fail for a volume that is published,
because older kubelets take such a failure for a reason to remove the mount. What is published is what the mount table
says; notes in the state directory let another node plugin go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from csi.errors import MountError, OssFuseError, SidecarNotInjected
from csi.handover.condition import without_sidecar
from csi.handover.connections import FuseConnections
from csi.handover.kernel import Kernel
from csi.handover.mountinfo import MountEntry, published_volume
from csi.handover.mounting import KernelSession, Mounter, logged, make_target, mount_frame, mount_order
from csi.handover.mounts import Preflight
from csi.handover.occupancy import Exclusion, conflict, is_volume, refuse_foreign, refuse_others
from csi.handover.pods.attendant import PodAttendant, Surroundings
from csi.handover.pods.condition import pod_condition
from csi.handover.pods.notes import Note, Notes
from csi.handover.pods.shared_directory import SharedDirectory
from csi.handover.state import RuntimeDirectory, StateDirectory, runtime_name
from csi.handover.target import check_target, remove_target_directory, resolved_target
from csi.handover.types import (
    PodReference,
    PublishedVolume,
    PublishRequest,
    SidecarLocator,
    SidecarPlace,
    VolumeCondition,
)
from csi.handover.unmount import Unmounter
from csi.volume.encode import spec_hash
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

_TMPFS_WAIT: Final = Seconds(2.0)
_FAREWELL: Final = Seconds(2.0)
"""Of the pod's grace period, for the sidecar to end in after it has finished its files."""


class PodMounts:
    """`_lock` guards `_attendants`; it is never held during a system call that can wait.

    `open` must be called first, `close` at the end. `kubelet_directory` is where the pods' directories are.
    """

    def __init__(
        self,
        state: StateDirectory,
        *,
        kernel: Kernel,
        connections: FuseConnections,
        unmounter: Unmounter,
        around: Surroundings,
        locator: SidecarLocator,
        preflight: Preflight,
        kubelet_directory: Path,
        entries: Callable[[], Sequence[MountEntry]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._kernel = kernel
        self._connections = connections
        self._unmounter = unmounter
        self._around = around
        self._mounter = Mounter(kernel, unmounter)
        self._locator = locator
        self._preflight = preflight
        self._pods = Path(os.path.realpath(kubelet_directory)) / "pods"
        self._entries = entries
        self._clock = clock
        self._exclusion = Exclusion()
        self._lock = threading.Lock()
        self._attendants: dict[str, PodAttendant] = {}

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
            if not self._published_already(request, target, name):
                self._clear(target, name)
                self._publish_anew(request, target, name, end)

    def unpublish(self, volume_id: str, target: Path) -> None:
        path = resolved_target(target)
        with self._exclusion.of(path):
            refuse_others(path, self._unmounter.layers(path), volume_id)
            self._clear(path, runtime_name(volume_id, path))
            remove_target_directory(path)

    def published(self) -> list[PublishedVolume]:
        found = [volume for entry in self._entries() if (volume := published_volume(entry)) is not None]
        return [volume for volume in found if volume.target.is_relative_to(self._pods)]

    def condition(self, volume_id: str, target: Path) -> VolumeCondition | None:
        path = resolved_target(target)
        if not any(is_volume(entry, volume_id) for entry in self._unmounter.layers(path)):
            return None
        attendant = self._attendant(runtime_name(volume_id, path))
        if attendant is None:
            return without_sidecar(volume_id)
        place, situation = attendant.note.place, attendant.situation
        return pod_condition(
            *(volume_id, place, situation, attendant.pid, time.monotonic(), self._around.silence),
            waits=attendant.waits,
        )

    def given(self, volume_id: str, target: Path) -> str | None:
        path = resolved_target(target)
        if not any(is_volume(entry, volume_id) for entry in self._unmounter.layers(path)):
            return None
        name = runtime_name(volume_id, path)
        attendant = self._attendant(name)
        note = attendant.note if attendant is not None else Notes(self._state.runtime(name)).read()
        return note.given if note is not None else None

    def close(self) -> None:
        with self._lock:
            attendants, self._attendants = self._attendants, {}
        for attendant in attendants.values():
            attendant.close()
        if not self._state.names():
            self._connections.close()
        self._state.close()

    # --- after a restart ---

    def recover(self) -> None:
        """Listen again for the sidecars of every volume that is mounted, and remove what is left of pods that have
        ended. One that cannot be recovered is logged and does not stop the others."""
        volumes = {runtime_name(v.volume_id, str(v.target)): v for v in self.published()}
        for name in sorted({*self._state.names(), *volumes}):
            try:
                self._recover_one(name, volumes.get(name))
            except OssFuseError as error:
                _log.warning("publication %s could not be recovered: %s", name, error)

    def _recover_one(self, name: str, volume: PublishedVolume | None) -> None:
        runtime = self._state.runtime(name)
        if volume is None:
            runtime.remove()
        elif self._has_ended(volume):
            _log.info("removing the mount %s: its pod has ended", volume.target)
            self._clear(str(volume.target), name)
        elif (note := Notes(runtime).read()) is not None:
            self._attend(name, note, Notes(runtime), None)
            _log.info("volume %s at %s: waiting for its sidecar to come back", volume.volume_id, volume.target)
        else:
            _log.info("volume %s at %s: waiting for kubelet to publish it again", volume.volume_id, volume.target)

    def _has_ended(self, volume: PublishedVolume) -> bool:
        """kubelet unmounts the tmpfs of a pod, of which there is one for each sidecar, once no container of it runs. It
        calls for the volume then too, but not if it has forgotten the pod while nobody answered."""
        pod = self._pods / volume.target.relative_to(self._pods).parts[0]
        shared = [
            entry for entry in self._entries() if entry.fstype == "tmpfs" and Path(entry.target).is_relative_to(pod)
        ]
        return not shared

    # --- steps ---

    def _published_already(self, request: PublishRequest, target: str, name: str) -> bool:
        """Raises TargetConflict when something else is there, and nothing else."""
        layers = self._unmounter.layers(target)
        attendant = self._attendant(name)
        if attendant is not None and not attendant.running:
            attendant = None  # it fell over something unforeseen, which is in the log
        if not layers:
            # without fusectl, aborting the connection of a pod that has finished unmounts it too
            return attendant is not None and bool(attendant.situation.farewell)
        refuse_foreign(target, layers)
        note = attendant.note if attendant is not None else Notes(self._state.runtime(name)).read()
        for entry in layers:
            if not is_volume(entry, request.volume_id):
                raise conflict(target, entry, request.volume_id)
        if note is not None and note.given != _asked(request):
            raise conflict(target, layers[-1], request.volume_id)
        try:
            if attendant is None:
                note = self._adopt(request, layers[-1], target, name, note)
            if note is not None and request.credentials is not None:
                self._shared(note.place).write_credentials(request.credentials)
        except OssFuseError as error:
            _log.warning("volume %s at %s was published again, as it is: %s", request.volume_id, target, error)
        return True

    def _publish_anew(self, request: PublishRequest, target: str, name: str, end: float) -> None:
        pod = _pod_of(request)
        place = self._locator.locate(pod, request.volume_id, request.target)
        shared = self._shared(place)
        shared.wait(Seconds(max(0.0, min(_TMPFS_WAIT, end - self._clock()))))
        check_target(target)
        self._preflight(request, Seconds(max(0.1, end - self._clock())))
        runtime = self._state.runtime(name)
        note = _note(request, pod, place, target)
        with contextlib.ExitStack() as undo:
            undo.callback(logged, runtime.remove)
            self._write_note(runtime, note)
            shared.write_credentials(request.credentials or {})
            make_target(target, undo)
            undo.callback(logged, lambda: self._unmounter.force(target))
            session = self._mounter.mount(note.order)
            self._attend(name, note, Notes(runtime), session)
            undo.pop_all()
        _log.info("volume %s is mounted at %s for sidecar %s", request.volume_id, target, place.container)

    def _adopt(
        self, request: PublishRequest, mounted: MountEntry, target: str, name: str, note: Note | None
    ) -> Note | None:
        """Attend a mount that was found without anybody to attend it. Raises OssFuseError."""
        runtime = self._state.runtime(name)
        if note is None:
            pod = _pod_of(request)
            note = _note(request, pod, self._locator.locate(pod, request.volume_id, request.target), target)
            # a newer version may read other defaults out of the same request; the sidecar has what it was given
            volume = published_volume(mounted)
            hashed = volume.spec_hash if volume is not None else note.frame.spec_hash
            order = replace(note.order, source=mounted.source, read_only=mounted.read_only)
            note = replace(note, frame=replace(note.frame, spec_hash=hashed), order=order)
            self._write_note(runtime, note)
        self._attend(name, note, Notes(runtime), None)
        return note

    def _attend(self, name: str, note: Note, notes: Notes, session: KernelSession | None) -> None:
        """Takes `session` over, also when it fails. Raises MountError."""
        with self._lock:
            previous = self._attendants.pop(name, None)
        if previous is not None:
            previous.close()  # its socket has the same name
        try:
            listener = self._shared(note.place).listen()
        except BaseException:
            if session is not None:
                os.close(session.descriptor)
            raise
        attendant = PodAttendant(note, notes, listener, session, self._around)
        attendant.start()
        with self._lock:
            self._attendants[name] = attendant

    def _clear(self, target: str, name: str) -> None:
        """Remove what there is of a volume; what lies in the pod's tmpfs goes with the pod. Raises MountError."""
        with self._lock:
            attendant = self._attendants.pop(name, None)
        if attendant is not None:
            attendant.close()  # first: it must not mount anew what is being unmounted
        self._unmounter.force(target)
        self._state.runtime(name).remove()

    def _write_note(self, runtime: RuntimeDirectory, note: Note) -> None:
        try:
            runtime.create()
            Notes(runtime).write(note)
        except OSError as error:
            raise MountError(
                f"a note about the volume cannot be kept in {runtime.path}: {error.strerror}",
                errno=error.errno or 0,
                hint="check that the state directory is writable and not full",
            ) from error

    def _shared(self, place: SidecarPlace) -> SharedDirectory:
        return SharedDirectory(place, self._kernel, self._entries)

    def _attendant(self, name: str) -> PodAttendant | None:
        with self._lock:
            return self._attendants.get(name)


def _pod_of(request: PublishRequest) -> PodReference:
    if request.pod is None or not request.pod.uid:
        raise SidecarNotInjected(
            f"the request for volume {request.volume_id} names no pod whose sidecar could serve it",
            hint="the CSIDriver object must have podInfoOnMount: true",
        )
    return request.pod


def _note(request: PublishRequest, pod: PodReference, place: SidecarPlace, target: str) -> Note:
    grace = Seconds(max(1.0, place.grace - _FAREWELL))
    frame = mount_frame(request, place.memory_limit, grace)
    return Note(pod, place, _asked(request), frame, mount_order(request, target))


def _asked(request: PublishRequest) -> str:
    """Equal for every repetition of one call."""
    return request.given or f"{spec_hash(request.spec)} {'ro' if request.read_only else 'rw'}"
