"""Making the mount of a volume: the directory, the kernel session, and the frame that tells a sidecar what it is."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from csi.errors import MountError, OssFuseError
from csi.handover.kernel import MS_NODEV, MS_NOSUID, MS_RDONLY, Kernel
from csi.handover.mountinfo import FSTYPE, mount_source
from csi.handover.state import CREDENTIALS_NAME
from csi.handover.types import PublishRequest
from csi.handover.unmount import Unmounter
from csi.handover.wire import VERSION, Mount
from csi.volume.encode import encode_spec, spec_hash
from csi.volume.units import Bytes, Seconds

_log = logging.getLogger(__name__)

_Attach = Callable[[str, str, str, int, str], None]
"""`Kernel.mount`, or what takes its place."""

_ROOT_MODE: Final = "40000"  # S_IFDIR, as octal text


@dataclass(frozen=True, slots=True)
class MountOrder:
    """What mount(2) is told."""

    source: str
    target: str
    read_only: bool
    allow_other: bool


@dataclass(frozen=True, slots=True)
class KernelSession:
    """A mounted FUSE connection: the caller owns `descriptor`; `minor` is the connection's number."""

    descriptor: int
    minor: int


def mount_order(request: PublishRequest, target: str) -> MountOrder:
    source = mount_source(request.volume_id, spec_hash(request.spec))
    return MountOrder(source, target, request.read_only, request.spec.arguments.allow_other)


def mount_frame(request: PublishRequest, memory_limit: Bytes, grace: Seconds) -> Mount:
    """What a sidecar limited to `memory_limit` is told about the volume of `request`; it holds no secret."""
    return Mount(
        version=VERSION,
        volume_id=request.volume_id,
        spec_hash=spec_hash(request.spec),
        spec=encode_spec(request.spec),
        read_only=request.read_only,
        credentials=CREDENTIALS_NAME if request.credentials else "",
        memory_limit=memory_limit,
        grace=grace,
    )


class Mounter:
    """Stateless; one thread per target at a time."""

    def __init__(self, kernel: Kernel, unmounter: Unmounter) -> None:
        self._kernel = kernel
        self._unmounter = unmounter

    def mount(self, order: MountOrder, *, replacing: bool = False) -> KernelSession:
        """A fresh session, on top of whatever is mounted there, or with `replacing` in the place of mounts of ours that
        nobody serves. Raises MountError; the descriptor is closed then, and what of the mount may have been made is the
        caller's to remove."""
        if replacing:
            try:
                return self._session(order, self._exchange)
            except MountError as error:
                _log.info("for a moment nothing is mounted: %s", error)
                self._unmounter.force(order.target)
        return self._session(order, self._kernel.mount)

    def _exchange(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        """So that nobody finds the directory below in between; where the kernel can."""
        while len(self._unmounter.layers(target)) > 1:
            self._unmounter.take_off(target)
        self._kernel.mount_beneath(source, target, fstype, flags, data)
        self._unmounter.take_off(target)

    def _session(self, order: MountOrder, attach: _Attach) -> KernelSession:
        descriptor = self._kernel.open_fuse_device()
        try:
            return KernelSession(descriptor, self._attach(order, descriptor, attach))
        except BaseException:
            os.close(descriptor)
            raise

    def _attach(self, order: MountOrder, descriptor: int, attach: _Attach) -> int:
        flags = MS_NODEV | MS_NOSUID | (MS_RDONLY if order.read_only else 0)
        allow_other = ",allow_other" if order.allow_other else ""
        data = f"fd={descriptor},rootmode={_ROOT_MODE},user_id=0,group_id=0,default_permissions{allow_other}"
        before = {entry.mount_id for entry in self._unmounter.layers(order.target)}
        attach(order.source, order.target, FSTYPE, flags, data)
        layers = self._unmounter.layers(order.target)
        if not layers or layers[-1].source != order.source or layers[-1].mount_id in before:
            raise MountError(
                f"{order.target} was mounted but is not in the mount table",
                hint="mount table and target must be of one mount namespace: do not change root in between",
            )
        return layers[-1].minor


def make_target(target: str, undo: contextlib.ExitStack) -> None:
    """Make the mount point if it is not there; `undo` removes one that was made. Raises MountError."""
    try:
        os.mkdir(target, 0o750)
    except FileExistsError:
        return
    except OSError as error:
        raise MountError(
            f"target {target} cannot be created: {error.strerror}",
            errno=error.errno or 0,
            hint="check that its parent is a writable local directory",
        ) from error
    undo.callback(logged, lambda: os.rmdir(target))


def logged(step: Callable[[], object]) -> None:
    """Undoing must not hide the error that made it necessary, nor stop the undoing of the rest."""
    try:
        step()
    except (OssFuseError, OSError) as error:
        _log.warning("after a failed publish: %s", error)
