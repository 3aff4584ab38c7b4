"""A program that reads one file again and again while others replace it, and tells what it has seen.

`python -m tests.support.reading_program FILE`. A version of the file is `versioned(NUMBER, SIZE)`, 64 bytes or more.
It says `ready`, then for each line it is given reads once and answers with one line: `whole NUMBER SIZE`, `stale`
(ESTALE in the middle, everything until then being of one version), `absent`, or `MIXED` and what was wrong. `hold`
opens the file and reads its beginning, `rest` reads on with that descriptor; anything else opens, reads and closes.
"""

from __future__ import annotations

import errno
import os
import sys

_UNIT = 4096


def versioned(number: int, size: int) -> bytes:
    """Bytes that tell at every offset which version they are of, and where they belong."""
    units = (
        f"{number:08d} {size:011d} {start:011d}\n".encode().ljust(64, b".") * 64 for start in range(0, size, _UNIT)
    )
    return b"".join(units)[:size]


class Reader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._data = b""

    def answer(self, order: str) -> str:
        try:
            if order == "rest":
                return self._rest()
            self._descriptor = os.open(self._path, os.O_RDONLY)
            self._data = os.read(self._descriptor, 3 * _UNIT)
            if order == "hold":
                return "held"
            return self._rest()
        except FileNotFoundError:
            return "absent"
        except OSError as error:
            if error.errno != errno.ESTALE:
                return f"MIXED? {errno.errorcode.get(error.errno or 0)}"
            return "stale" if self._is_beginning() else f"MIXED {len(self._data)} bytes before ESTALE"
        finally:
            if order != "hold" and self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _rest(self) -> str:
        while piece := os.read(self._descriptor, 100_000):
            self._data += piece
        if not self._data:
            return "MIXED nothing"
        number, size = self._says()
        if self._data != versioned(number, size):
            return f"MIXED {len(self._data)} bytes where version {number} has {size}"
        return f"whole {number} {size}"

    def _is_beginning(self) -> bool:
        if not self._data:
            return True
        return versioned(*self._says()).startswith(self._data)

    def _says(self) -> tuple[int, int]:
        return int(self._data[:8]), int(self._data[9:20])


def main(path: str) -> None:
    reader = Reader(path)
    print("ready", flush=True)
    for order in sys.stdin:
        print(reader.answer(order.strip()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
