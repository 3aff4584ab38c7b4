"""`python -m benchmarks.session.server`: one of our sessions serving the tree, with a spinning thread on request.

Says "ready" on stdout once INIT is answered. Lines on stdin: "spin" starts one thread that computes in pure Python and
never waits, "rest" ends it; each is answered by "done". The end of stdin ends the process.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from benchmarks.session.tree import MemoryTree
from csi.fuse.choice import choose
from csi.volume.naming import SESSIONS
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds

ARGUMENTS = MountArguments(
    entry_timeout=Seconds(0.0), attr_timeout=Seconds(0.0), negative_timeout=Seconds(0.0), xattrs=False
)
"""The kernel keeps no names, so that it asks for each, and no listings; as with the C program, there are no extended
attributes, so that it does not ask for one before every write."""

WORKERS = 8
"""Threads of a session for what may block; here nothing does."""


class Spinner:
    """A thread as a listing being parsed is for the others: it gives the GIL up only when asked to."""

    def __init__(self) -> None:
        self._resting = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self.turns = 0

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._resting.set()
        self._thread.join()

    def _spin(self) -> None:
        resting = self._resting.is_set
        while not resting():
            self.turns += 1


def obey() -> None:
    spinner: Spinner | None = None
    for line in sys.stdin:
        if line == "spin\n" and spinner is None:
            spinner = Spinner()
            spinner.start()
        elif line == "rest\n" and spinner is not None:
            spinner.end()
            spinner = None
        print("done", flush=True)
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--descriptor", type=int, required=True)
    parser.add_argument("--session", choices=SESSIONS, required=True)
    parser.add_argument("--copying", type=Path, required=True, help="copying.c as a library")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)

    def started() -> None:
        print("ready", flush=True)
        threading.Thread(target=obey, daemon=True).start()

    chosen = choose(options.session)
    published = chosen.publish()
    tree = MemoryTree(options.copying, published, chosen.tails(published))
    session = chosen.open(options.descriptor, tree, ARGUMENTS, published, workers=WORKERS, on_started=started)
    signal.signal(signal.SIGTERM, lambda *_: session.stop())
    session.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
