"""A sidecar whose volume is a small tree in memory: everything of csi/sidecar except the rooms below the session.

Run by path with `python -I`, as the node plugin runs the real one. The bucket's name says how it should behave:
`refuses` (FAILED), `silent` (never READY), `crashes` (ends at once), `hoards` (uses memory until it is killed),
`swells` (the same, at the first look at hello.txt), `lingers` (does not finish when asked).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import os
import threading

from csi.errors import CredentialsMissing
from csi.fuse.own.passthrough import Registrar
from csi.fuse.pyfuse3_session import Pyfuse3Session
from csi.handover.wire import Mount
from csi.sidecar.health import Activity
from csi.sidecar.legacy import Legacy
from csi.sidecar.main import Means, main
from csi.sidecar.openers import Informant
from csi.volume.encode import decode_spec
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds
from tests.support.tree_filesystem import TreeFilesystem


class SwellingTree(TreeFilesystem):
    def lookup_cached(self, parent: int, name: bytes) -> object:
        if name == b"hello.txt":
            hoard()
        return super().lookup_cached(parent, name)


def hoard() -> None:
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 20)))


class TreeVolume:
    def __init__(self, behaviour: str, descriptor: int, on_started: Callable[[], None]) -> None:
        filesystem = SwellingTree() if behaviour == "swells" else TreeFilesystem()
        filesystem.add("hello.txt", b"hello, world\n")
        self.filesystem = filesystem
        self.behaviour = behaviour
        self.session = Pyfuse3Session(descriptor, filesystem, MountArguments(), workers=4, on_started=on_started)

    def activity(self) -> Activity:
        now = self.session.statistics()
        return Activity(len(self.filesystem.handles), now.in_flight, now.oldest_age, {"session": now})

    def flush(self, grace: Seconds) -> None:
        if self.behaviour == "lingers":
            threading.Event().wait()
        print(f"flushed with {grace:g} s", file=sys.stderr, flush=True)

    def bequeath(self) -> None:
        """Nobody can go on with it."""

    def close(self) -> None:
        self.filesystem.unblock.set()


def assemble(
    volume: Mount,
    descriptor: int,
    credentials: str,
    on_started: Callable[[], None],
    informant: Informant | None = None,
    *,
    wanted: str = "",
    registrar: Registrar | None = None,
    legacy: Legacy | None = None,
) -> TreeVolume:
    behaviour = decode_spec(volume.spec).location.bucket
    if behaviour == "refuses":
        raise CredentialsMissing("the stand-in has no credentials", hint="give it some")
    if behaviour == "crashes":
        os._exit(7)
    if behaviour == "silent":
        threading.Event().wait()
    if behaviour == "hoards":
        hoard()
    if credentials:
        names = sorted(name for name in os.listdir(credentials) if not name.startswith(".."))
        size = sum(len(Path(credentials, name).read_bytes()) for name in names)
        print(f"credentials {names} of {size} bytes", file=sys.stderr, flush=True)
    return TreeVolume(behaviour, descriptor, on_started)


if __name__ == "__main__":
    sys.exit(main(load=lambda: Means(assemble)))
