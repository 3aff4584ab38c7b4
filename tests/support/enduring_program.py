"""A program that has all sorts of things open, waits for a line, and says what has become of each.

`python -m tests.support.enduring_program DIRECTORY`. The directory has `large`, `small` and `inside/small`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path


def outcome(act: Callable[[], object]) -> object:
    try:
        return act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def main(directory: str) -> None:
    root = Path(directory)
    large, small = (os.open(root / name, os.O_RDONLY) for name in ("large", "small"))
    mapping = mmap.mmap(large, 0, mmap.MAP_SHARED, mmap.PROT_READ)
    fcntl.flock(small, fcntl.LOCK_EX)
    listed = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    os.chdir(root / "inside")
    new = os.open(root / "new", os.O_WRONLY | os.O_CREAT)
    os.write(new, b"lost")
    old = os.open(root / "small", os.O_RDWR)
    print("ready", flush=True)
    sys.stdin.readline()
    size = os.fstat(large).st_size
    found = {
        "read": outcome(lambda: os.pread(large, 10, size - 10).decode()),
        "read small": outcome(lambda: os.pread(small, 100, 0).decode()),
        "mapping": outcome(mapping[size // 2 : size // 2 + 10].decode),
        "working directory": outcome(lambda: Path("small").read_text()),
        "listing": outcome(lambda: sorted(os.listdir(listed))),
        "lock": outcome(lambda: fcntl.flock(os.open(root / "small", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)),
        "write": outcome(lambda: os.write(new, b"more")),
        "fsync": outcome(lambda: os.fsync(new)),
        "close": outcome(lambda: os.close(new)),
        "write unwritten": outcome(lambda: os.write(old, b"more")),
        "read unwritten": outcome(lambda: os.pread(old, 100, 0).decode()),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
