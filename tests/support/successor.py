"""`python -m tests.support.successor`: a session that is killed, and one that goes on with its descriptor.

The first one writes what was agreed on to `--agreed`; started again, it resumes with that. It serves a small tree, in
which what asks for `slow` waits in the first one and is answered by the next; or, with `--volume` (a JSON file with the
attributes that a PersistentVolume would have), a bucket, whose open files are noted in the journal `--journal`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from pathlib import Path

from csi.data.couriers import Couriers
from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.fs.filesystem import Filesystem
from csi.fs.journal import Journal
from csi.fs.published import LARGEST
from csi.fuse.native.answers import Answers
from csi.fuse.own.session import OwnSession
from csi.fuse.protocol.negotiation import InitResult
from csi.fuse.served import ServedFilesystem
from csi.oss.client import OssClient
from csi.oss.credentials import SecretDirectory
from csi.volume.parse import parse_volume
from csi.volume.spec import MountArguments
from csi.volume.units import MIB, Bytes
from tests.support.tree_filesystem import TreeFilesystem


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--descriptor", type=int, required=True)
    parser.add_argument("--agreed", type=Path, required=True)
    parser.add_argument("--volume", type=Path)
    parser.add_argument("--credentials", default="")
    parser.add_argument("--journal", type=int)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    agreed: Path = options.agreed
    resume = InitResult.from_json(agreed.read_text()) if agreed.exists() else None

    answers, arguments = Answers(), MountArguments()
    filesystem: ServedFilesystem
    if options.volume is None:
        filesystem = tree(is_first=resume is None)
    else:
        filesystem, arguments = bucket(options, answers)

    def started() -> None:
        if session.agreed is not None and resume is None:
            agreed.write_text(session.agreed.to_json())
        print("ready", flush=True)

    session = OwnSession(
        options.descriptor,
        filesystem,
        arguments,
        answers=answers,
        workers=4,
        on_started=started,
        resume=resume,
    )
    threading.Thread(target=_end_with_parent, daemon=True).start()
    session.serve()


def tree(*, is_first: bool) -> TreeFilesystem:
    filesystem = TreeFilesystem(timeout=0.0)
    filesystem.add("hello.txt", b"hello, world\n")
    filesystem.add("slow", b"found\n")
    if not is_first:
        filesystem.unblock.set()
    return filesystem


def bucket(options: argparse.Namespace, answers: Answers) -> tuple[Filesystem, MountArguments]:
    """As `csi/sidecar/assemble.py` does it, with a journal."""
    spec = parse_volume(json.loads(options.volume.read_text()), cpu_count=2).spec
    ledger = MemoryLedger(Bytes(64 * MIB))
    store = OssClient(spec.location, spec.http, spec.write, SecretDirectory(options.credentials), lines=4)
    lines = store.lines(LARGEST)
    if lines is not None:
        answers.couriers = Couriers(answers, lines, ledger)
    engine = DataEngine(store, read=spec.read, write=spec.write, ledger=ledger, published=answers)
    filesystem = Filesystem(
        store,
        engine,
        prefix=spec.location.prefix,
        arguments=spec.arguments,
        write=spec.write,
        published=answers,
        journal=Journal(options.journal),
    )
    return filesystem, spec.arguments


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(9)


if __name__ == "__main__":
    main()
