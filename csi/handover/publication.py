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

from csi.errors import MountError
from csi.handover.attendant import Attendant, Attended
from csi.handover.cgroup import CgroupRoom, MemoryCgroup
from csi.handover.connections import FuseConnections
from csi.handover.conversation import Handover
from csi.handover.inheritance import Bequest, Inheritance
from csi.handover.kernel import Kernel
from csi.handover.listener import SidecarListener
from csi.handover.mounting import KernelSession, Mounter, logged, make_target, mount_frame, mount_order
from csi.handover.process import Launcher, SidecarProcess, reap
from csi.handover.state import SOCKET_NAME, RuntimeDirectory
from csi.handover.types import PublishRequest
from csi.handover.unmount import Unmounter
from csi.volume.encode import spec_hash
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """The effects of a publish, shared by all of them."""

    kernel: Kernel
    connections: FuseConnections
    room: CgroupRoom
    launcher: Launcher
    unmounter: Unmounter
    grace: Seconds
    inheritances: Callable[[], Inheritance] | None = None
    """Makes where a sidecar leaves what another one goes on with; None if none would."""


class Publication:
    """Used once, by one thread."""

    def __init__(
        self,
        tools: Tools,
        request: PublishRequest,
        target: str,
        runtime: RuntimeDirectory,
        name: str,
        *,
        replacing: bool = False,
        inheritance: Inheritance | None = None,
    ) -> None:
        """`replacing`: there is a dead mount of the volume, and whatever fails there will be one. `inheritance`: what
        is to be gone on with on that mount, which stays the caller's if this fails."""
        self._replacing = replacing
        self._inheritance = inheritance
        self._tools = tools
        self._request = request
        self._target = target
        self._runtime = runtime
        self._name = name
        self._hash = spec_hash(request.spec)

    def run(self, remaining: Callable[[], Seconds]) -> Attendant:
        """Returns when the volume is served. Raises what `VolumeMounts.publish` says, with nothing left behind."""
        frame = mount_frame(self._request, self._request.spec.resources.memory_limit, self._tools.grace)
        with contextlib.ExitStack() as undo:
            self._prepare_runtime(undo)
            memory = self._prepare_memory(undo)
            if not self._replacing:
                make_target(self._target, undo)
            with contextlib.ExitStack() as ours:  # the descriptors, until the attendant has them
                minor, given, inheritance = self._session(undo, ours)
                listener = self._listen(undo)
                process = self._launch(undo, memory)
                request = self._request
                attended = Attended(
                    *(request.volume_id, self._hash, process, memory, listener, request.read_only, minor)
                )
                attendant = Attendant(attended, Handover(frame, given), inheritance=inheritance)
                ours.pop_all()
            undo.callback(attendant.close)
            if self._inheritance is not None:
                undo.callback(attendant.leave_inheritance)  # it is the caller's again
            attendant.start()
            attendant.wait_ready(remaining())
            self._tools.connections.tune(minor)
            undo.pop_all()
        _log.info(
            "volume %s is mounted at %s, served by sidecar %d", self._request.volume_id, self._target, process.pid
        )
        return attendant

    def _session(
        self, undo: contextlib.ExitStack, ours: contextlib.ExitStack
    ) -> tuple[int, int | Bequest, Inheritance | None]:
        """The number of its connection, what the sidecar gets of it, and where that leaves it to the next."""
        inheritance = self._inheritance
        if inheritance is not None:
            left = self._take(inheritance)
            if left is not None:
                ours.callback(left.close)
                return self._minor(), left, inheritance
        session = self._mount(undo)
        ours.callback(os.close, session.descriptor)
        make = self._tools.inheritances
        return session.minor, session.descriptor, make() if make is not None else None

    def _take(self, inheritance: Inheritance) -> Bequest | None:
        try:
            return inheritance.take()
        except OSError as error:
            raise MountError(
                f"another sidecar cannot go on at {self._target}: {error.strerror}",
                errno=error.errno or 0,
                hint="this process has too many files open: raise its limit",
            ) from error

    def _minor(self) -> int:
        layers = self._tools.unmounter.layers(self._target)
        if not layers:
            raise MountError(f"{self._target} was unmounted while its sidecar was followed by another", hint="mount it")
        return layers[-1].minor

    def _prepare_runtime(self, undo: contextlib.ExitStack) -> None:
        undo.callback(logged, self._runtime.remove)
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
        undo.callback(logged, memory.remove)
        undo.callback(logged, memory.kill)
        self._runtime.note("cgroup", str(memory.path))
        return memory

    def _mount(self, undo: contextlib.ExitStack) -> KernelSession:
        if not self._replacing:
            undo.callback(logged, lambda: self._tools.unmounter.force(self._target))
        mounter = Mounter(self._tools.kernel, self._tools.unmounter)
        return mounter.mount(mount_order(self._request, self._target), replacing=self._replacing)

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
        undo.callback(logged, lambda: reap(process, memory))
        return process
