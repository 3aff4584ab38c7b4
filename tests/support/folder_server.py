"""`python -m tests.support.folder_server`: serves a local folder (FolderFilesystem) on a descriptor."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading

from csi.fuse.choice import choose
from csi.volume.naming import SESSIONS
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds
from tests.support.folder_filesystem import FolderFilesystem
from tests.support.publishing_folder import PublishingFolder


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--descriptor", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--session", choices=SESSIONS, required=True)
    parser.add_argument("--way", choices=("inline", "threads", "published"), required=True)
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds that names and attributes are trusted")
    parser.add_argument("--held", required=True, help="file that gets what is still held at the end, as JSON")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    chosen = choose(options.session)
    if chosen.name != options.session:
        raise SystemExit(f"the session {options.session} is not built here")
    published = chosen.publish()
    filesystem = (
        PublishingFolder(options.folder, published, timeout=options.timeout)
        if options.way == "published"
        else FolderFilesystem(options.folder, inline=options.way == "inline", timeout=options.timeout)
    )
    session = chosen.open(
        options.descriptor,
        filesystem,
        MountArguments(),
        published,
        workers=4,
        on_started=lambda: print("ready", flush=True),
        stop_grace=Seconds(0.5),
    )
    signal.signal(signal.SIGTERM, lambda *_: session.stop())
    session.serve()
    inodes, handles = filesystem.held()
    with open(options.held, "w", encoding="utf-8") as file:
        json.dump({"inodes": inodes, "handles": handles, "tables": published.statistics().answered}, file)
    return 0


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(9)


if __name__ == "__main__":
    sys.exit(main())
