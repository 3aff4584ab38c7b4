"""One publish, step by step, with the undoing of every step.

Whatever can fail without a mount comes before the
mount, and the mount is made before the sidecar, because only root can make it. When a step fails, those before it are
undone in reverse order, so nothing is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from csi.errors import MountError, OssFuseError
from csi.handover.attendant import Attendant, Attended
from csi.handover.cgroup import CgroupRoom, MemoryCgroup
from csi.handover.connections import FuseConnections
from csi.handover.kernel import MS_NODEV, MS_NOSUID, MS_RDONLY, Kernel
from csi.handover.listener import SidecarListener
from csi.handover.mountinfo import FSTYPE, mount_source
from csi.handover.process import Launcher, SidecarProcess, reap
from csi.handover.state import CREDENTIALS_NAME, SOCKET_NAME, RuntimeDirectory
from csi.handover.types import PublishRequest
from csi.handover.unmount import Unmounter
from csi.handover.wire import VERSION, Mount
from csi.volume.encode import encode_spec, spec_hash
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

_ROOT_MODE: Final = "40000"  # S_IFDIR, as octal text


@dataclass(frozen=True, slots=True)
class Tools:
    """The effects of a publish, shared by all of them."""

    kernel: Kernel
    connections: FuseConnections
    room: CgroupRoom
    launcher: Launcher
    unmounter: Unmounter
    grace: Seconds


class Publication:
    """Used once, by one thread."""

    def __init__(
        self, tools: Tools, request: PublishRequest, target: str, runtime: RuntimeDirectory, name: str
    ) -> None:
        self._tools = tools
        self._request = request
        self._target = target
        self._runtime = runtime
        self._name = name
        self._hash = spec_hash(request.spec)

    def run(self, remaining: Callable[[], Seconds]) -> Attendant:
        """Returns when the volume is served. Raises what `VolumeMounts.publish` says, with nothing left behind."""
        frame = self._frame()
        with contextlib.ExitStack() as undo:
            self._prepare_runtime(undo)
            memory = self._prepare_memory(undo)
            self._prepare_target(undo)
            descriptor = _Descriptor(self._tools.kernel.open_fuse_device())
            undo.callback(descriptor.close)
            minor = self._mount(undo, descriptor.number)
            listener = self._listen(undo)
            process = self._launch(undo, memory)
            attended = Attended(self._request.volume_id, self._hash, process, memory, listener)
            attendant = Attendant(attended, (frame, descriptor.number))
            descriptor.give_away()
            undo.callback(attendant.close)
            attendant.start()
            attendant.wait_ready(remaining())
            self._tools.connections.tune(minor)
            undo.pop_all()
        _log.info(
            "volume %s is mounted at %s, served by sidecar %d", self._request.volume_id, self._target, process.pid
        )
        return attendant

    def _prepare_runtime(self, undo: contextlib.ExitStack) -> None:
        undo.callback(_logged, self._runtime.remove)
        try:
            self._runtime.create()
        except OSError as error:
            raise MountError(
                f"runtime directory {self._runtime.path} cannot be made: {error.strerror}",
                errno=error.errno or 0,
                hint="check that the state directory is writable and its tmpfs is not full",
            ) from error
        self._runtime.credentials.write(self._request.credentials or {})

    def _prepare_memory(self, undo: contextlib.ExitStack) -> MemoryCgroup:
        memory = self._tools.room.create(self._name, self._request.spec.resources.memory_limit)
        undo.callback(_logged, memory.remove)
        undo.callback(_logged, memory.kill)
        self._runtime.note("cgroup", str(memory.path))
        return memory

    def _prepare_target(self, undo: contextlib.ExitStack) -> None:
        try:
            os.mkdir(self._target, 0o750)
        except FileExistsError:
            return
        except OSError as error:
            raise MountError(
                f"target {self._target} cannot be created: {error.strerror}",
                errno=error.errno or 0,
                hint="check that its parent is a writable local directory",
            ) from error
        undo.callback(_logged, lambda: os.rmdir(self._target))

    def _mount(self, undo: contextlib.ExitStack, descriptor: int) -> int:
        flags = MS_NODEV | MS_NOSUID | (MS_RDONLY if self._request.read_only else 0)
        allow_other = ",allow_other" if self._request.spec.arguments.allow_other else ""
        data = f"fd={descriptor},rootmode={_ROOT_MODE},user_id=0,group_id=0,default_permissions{allow_other}"
        source = mount_source(self._request.volume_id, self._hash)
        undo.callback(_logged, lambda: self._tools.unmounter.force(self._target))
        self._tools.kernel.mount(source, self._target, FSTYPE, flags, data)
        layers = self._tools.unmounter.layers(self._target)
        if not layers or layers[-1].source != source:
            raise MountError(
                f"{self._target} was mounted but is not in the mount table",
                hint="mount table and target must be of one mount namespace: do not change root in between",
            )
        return layers[-1].minor

    def _listen(self, undo: contextlib.ExitStack) -> SidecarListener:
        runtime = self._runtime
        listener = SidecarListener(
            runtime.path, SOCKET_NAME, uid=runtime.uid, gid=runtime.gid, kernel=self._tools.kernel
        )
        undo.callback(listener.close)
        return listener

    def _launch(self, undo: contextlib.ExitStack, memory: MemoryCgroup) -> SidecarProcess:
        limit = self._request.spec.resources.memory_limit
        process = self._tools.launcher.launch(self._runtime.path, memory, limit)
        undo.callback(_logged, lambda: reap(process, memory))
        return process

    def _frame(self) -> Mount:
        return Mount(
            version=VERSION,
            volume_id=self._request.volume_id,
            spec_hash=self._hash,
            spec=encode_spec(self._request.spec),
            read_only=self._request.read_only,
            credentials=CREDENTIALS_NAME if self._request.credentials else "",
            memory_limit=self._request.spec.resources.memory_limit,
            grace=self._tools.grace,
        )


class _Descriptor:
    """Closed once, by whoever has it last."""

    def __init__(self, number: int) -> None:
        self.number = number

    def give_away(self) -> int:
        number, self.number = self.number, -1
        return number

    def close(self) -> None:
        if self.number >= 0:
            os.close(self.give_away())


def _logged(step: Callable[[], None]) -> None:
    """Undoing must not hide the error that made it necessary, nor stop the undoing of the rest."""
    try:
        step()
    except (OssFuseError, OSError) as error:
        _log.warning("after a failed publish: %s", error)
