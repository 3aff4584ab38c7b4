"""`python -m tests.support.volume_server`: serves one volume on a descriptor with everything a sidecar has.

What is left out is the hand-over (socket, rights, cgroup), which has tests of its own: the volume is read from a JSON
file with the attributes a PersistentVolume would have.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading

from csi.errors import OssFuseError
from csi.fuse.choice import choose
from csi.handover.fates import Answerer, is_ending
from csi.handover.wire import Answer, Mount, Question
from csi.sidecar.assemble import assemble
from csi.volume.encode import encode_spec
from csi.volume.naming import SESSIONS
from csi.volume.parse import parse_volume
from csi.volume.units import Seconds

_CPUS = 2


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--descriptor", type=int, required=True)
    parser.add_argument("--volume", required=True, help="JSON file with attributes and read_only")
    parser.add_argument("--credentials", required=True, help="directory with the files of a Secret")
    parser.add_argument("--session", choices=SESSIONS, default=SESSIONS[0])
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    sys.setswitchinterval(0.0005)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    with open(options.volume, encoding="utf-8") as file:
        volume = json.load(file)
    parsed = parse_volume(volume["attributes"], cpu_count=_CPUS, read_only=volume["read_only"])
    frame = Mount(
        version=1,
        volume_id="test",
        spec_hash="",
        spec=encode_spec(parsed.spec),
        read_only=volume["read_only"],
        credentials="",
        memory_limit=parsed.spec.resources.memory_limit,
        grace=20.0,
    )
    served = assemble(
        frame,
        options.descriptor,
        options.credentials,
        lambda: print("ready", flush=True),
        Informed(),
        environ={},
        session=choose(options.session),
    )
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=leave, daemon=True).start())

    def leave() -> None:
        _flush()
        served.session.stop()

    def _flush() -> None:
        try:
            served.flush(Seconds(20.0))
        except OssFuseError as error:
            print(f"not finished: {error}", file=sys.stderr)

    try:
        served.session.serve()
    finally:
        _flush()
        served.close()
    return 0


class Informed:
    """An informant that needs no node plugin: this process is as privileged."""

    def __init__(self) -> None:
        self._answerer = Answerer(lambda pid: True)
        self._lock = threading.Lock()

    def ask(self, pid: int, started: int, inode: int = 0) -> Answered:
        with self._lock:
            return Answered(self._answerer.answer(Question(0, pid, started, inode)))

    def is_ending(self, process: int, started: int) -> bool | None:
        return is_ending(process, started)


class Answered:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def wait(self, timeout: Seconds) -> Answer:
        return self._answer


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(9)


if __name__ == "__main__":
    sys.exit(main())
