"""`python -m tests.support.successor`: a session that is killed, and one that goes on with its descriptor.

The first one writes what was agreed on to `--agreed`; started again, it resumes with that. What asks for `slow` waits
in the first one, and is answered by the next.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from pathlib import Path

from csi.fuse.native.answers import Answers
from csi.fuse.own.session import OwnSession
from csi.fuse.protocol.negotiation import InitResult
from csi.volume.spec import MountArguments
from tests.support.tree_filesystem import TreeFilesystem


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--descriptor", type=int, required=True)
    parser.add_argument("--agreed", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    agreed: Path = options.agreed
    resume = InitResult.from_json(agreed.read_text()) if agreed.exists() else None

    filesystem = TreeFilesystem(timeout=0.0)
    filesystem.add("hello.txt", b"hello, world\n")
    filesystem.add("slow", b"found\n")
    if resume is not None:
        filesystem.unblock.set()

    def started() -> None:
        if session.agreed is not None and resume is None:
            agreed.write_text(session.agreed.to_json())
        print("ready", flush=True)

    session = OwnSession(
        options.descriptor,
        filesystem,
        MountArguments(),
        answers=Answers(),
        workers=4,
        on_started=started,
        resume=resume,
    )
    threading.Thread(target=_end_with_parent, daemon=True).start()
    session.serve()


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(9)


if __name__ == "__main__":
    main()
