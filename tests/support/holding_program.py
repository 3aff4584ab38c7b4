"""`python -m tests.support.holding_program MOUNT`: has files and directories open, waits, and goes on with them.

It prints `holding` and waits for a line; then one JSON object of what it found. `large` was read for the first MiB of
it, `small` not at all; `many` is a directory that was half read, `here` the working directory, with a `file` that was
only looked at; `new` was being written, and `old` had been rewritten and synced.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable

MIB = 1 << 20


def main() -> None:
    os.chdir(sys.argv[1])
    large, small = os.open("large", os.O_RDONLY), os.open("small", os.O_RDONLY)
    digest = hashlib.md5(os.read(large, MIB), usedforsecurity=False)
    many = os.scandir("many")
    names = [next(many).name for _ in range(10)]
    new = os.open("new", os.O_WRONLY | os.O_CREAT)
    os.write(new, b"x" * MIB)
    old = os.open("old", os.O_RDWR | os.O_TRUNC)
    os.write(old, b"synced")
    os.fsync(old)
    os.stat("here/file")
    os.chdir("here")

    print("holding", flush=True)
    sys.stdin.readline()

    found: dict[str, object] = {"large": os.fstat(large).st_size, "small": os.read(small, MIB).decode()}
    while part := os.read(large, MIB):
        digest.update(part)
    found["md5"] = digest.hexdigest()
    with many:
        names += [entry.name for entry in many]
    found["names"] = sorted(names)
    found["size"] = os.stat("file").st_size
    with open("file") as file:
        found["here"] = file.read()
    found["old"] = [os.pread(old, 100, 0).decode(), error(lambda: os.fsync(old)), error(lambda: os.close(old))]
    found["new"] = [error(lambda: os.write(new, b"more")), error(lambda: os.fsync(new)), error(lambda: os.close(new))]
    os.close(large)
    os.close(small)
    print(json.dumps(found), flush=True)


def error(call: Callable[[], object]) -> str:
    """The name of the errno with which `call` fails; '' when it does not."""
    try:
        call()
    except OSError as failed:
        return errno.errorcode[failed.errno or 0]
    return ""


if __name__ == "__main__":
    main()
