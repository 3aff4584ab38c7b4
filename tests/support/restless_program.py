"""`python -m tests.support.restless_program DIRECTORY WORK`: goes on with its work until a line comes, and says after
each piece of it what came of it: `done`, the name of an errno, or what was wrong.

`read` reads the files of the directory, which hold their name again and again, `list` lists it, `write` makes a file in
the directory above it, anew each time, and reads it.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

SIZE = 300_000
FILES = 40


def content(name: str) -> bytes:
    return name.encode() * (SIZE // len(name))


class Works:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written = directory.parent / f"written-by-{os.getpid()}"

    def read(self, number: int) -> bool:
        name = f"{number % FILES:05}"
        with (self._directory / name).open("rb", buffering=0) as file:
            found = b"".join(iter(lambda: file.read(20_000), b""))
            return found == content(name) and os.fstat(file.fileno()).st_size == len(found)

    def list(self, number: int) -> bool:
        return sorted(os.listdir(self._directory)) == [f"{each:05}" for each in range(FILES)]

    def write(self, number: int) -> bool:
        data = content(f"{number:05}")
        self._written.write_bytes(data)
        return self._written.read_bytes() == data


def main() -> None:
    work: Callable[[int], bool] = getattr(Works(Path(sys.argv[1])), sys.argv[2])
    for number in count():
        try:
            said = "done" if work(number) else f"{number} is wrong"
        except OSError as error:
            said = errno.errorcode[error.errno or 0]
        print(said, flush=True)
        if select.select([sys.stdin], [], [], 0)[0]:
            return


if __name__ == "__main__":
    main()
