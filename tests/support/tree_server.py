"""`python -m tests.support.tree_server`: serves a TreeFilesystem with some files in it on a descriptor."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from csi import errors
from csi.fuse.choice import OWN, choose
from csi.fuse.protocol import replies
from csi.volume.naming import SESSIONS
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds
from tests.support.backed_tree import BackedTree
from tests.support.forgetful_tree import ForgetfulTree
from tests.support.tree_filesystem import TreeFilesystem

_UNKNOWN_NOTIFICATION = 99


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--descriptor", type=int, required=True)
    parser.add_argument("--threads-only", action="store_true")
    parser.add_argument("--backed", type=Path, help="serve the files of this directory; see backed_tree.py")
    parser.add_argument("--forgetful", choices=["inodes", "names"], help="what the kernel can be asked to forget")
    parser.add_argument("--failing-flush", action="store_true")
    parser.add_argument("--failing-start", action="store_true")
    parser.add_argument("--arguments", default="{}", help="fields of MountArguments as JSON")
    parser.add_argument("--session", choices=SESSIONS, default=OWN)
    parser.add_argument("--calls", help="file that gets the filesystem's call counters as JSON at the end")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)

    inline = not options.threads_only
    filesystem = BackedTree(options.backed, inline=inline) if options.backed else TreeFilesystem(inline=inline)
    if options.forgetful:
        filesystem = ForgetfulTree(inline=inline)
    if options.forgetful == "names":  # as a kernel before 6.18 answers
        replies.prune = lambda inodes: replies.HEADER.pack(replies.HEADER.size, _UNKNOWN_NOTIFICATION, 0)
    if not options.backed:
        _fill(filesystem)
    if options.failing_flush:
        filesystem.flush_error = errors.PermissionDenied(
            "no", status=403, code="AccessDenied", request_id="R1", key="k"
        )

    def started() -> None:
        if options.failing_start:
            raise OSError("nobody to tell")
        print("ready", flush=True)

    arguments = MountArguments(**json.loads(options.arguments))
    chosen = choose(options.session)
    session = chosen.open(
        options.descriptor,
        filesystem,
        arguments,
        chosen.publish(),
        workers=8,
        on_started=started,
        stop_grace=Seconds(0.5),
    )
    signal.signal(signal.SIGTERM, lambda *_: session.stop())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        session.serve()
    finally:
        filesystem.unblock.set()
        if options.calls:
            with open(options.calls, "w", encoding="utf-8") as file:
                json.dump({**filesystem.calls, "handles": len(filesystem.handles)}, file)
    return 0


def _fill(filesystem: TreeFilesystem) -> None:
    filesystem.add("hello.txt", b"hello, world\n")
    filesystem.add("big.bin", bytes(range(256)) * 8192)
    for number in range(3000):
        filesystem.add(f"many/entry-{number:05d}", b"x" * (number % 7))
    filesystem.add("half/a", b"a")
    filesystem.add("half/unlistable", b"")


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(9)


if __name__ == "__main__":
    sys.exit(main())
