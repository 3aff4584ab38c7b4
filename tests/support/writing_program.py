"""A program that writes files in one of several manners and tells every step before it is taken and after it is done.

`python -m tests.support.writing_program MANNER DIRECTORY SEED ROUNDS`. One line of JSON for each event (`journal.py`
understands them). It ends at the first error, which it tells, unless `--go-on` is given: then it counts the file as
being in its old or its new state and takes the next.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.journal import content

KIB, MIB = 1 << 10, 1 << 20
SIZES = (0, 1, 100, 70 * KIB, 300 * KIB + 7, MIB, 2 * MIB + 1, 4 * MIB + 123)
CHUNKS = (4 * KIB, 100_000, MIB)


class Writing:
    def __init__(self, directory: Path, seed: str) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.seed = seed
        self.serial = 0

    # --- manners: each carries out one round ---

    def overwrite(self) -> None:
        """Old files and new ones get another content, sometimes with an fsync in the middle."""
        name = f"file-{self.random.randrange(4)}"
        piece = self.piece()
        self.tell("begin", name=name, pieces=[piece])
        descriptor = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with closing(descriptor) as close:
            data = content([piece])
            cut = len(data) // 2 if self.random.random() < 0.3 else 0
            if cut:
                self.write(descriptor, data[:cut])
                # what an fsync makes an object of may be there from then on
                self.tell("grow", name=name, pieces=[piece], synced=0)
                os.fsync(descriptor)
                self.tell("grow", name=name, pieces=[piece], synced=cut)
            self.write(descriptor, data[cut:])
            close()
        self.tell("done", name=name, pieces=[piece])
        self.read_back(name, data)

    def append(self) -> None:
        """A file grows by `>>`, one piece each time it is opened."""
        name = f"log-{self.seed}-{self.serial}"
        pieces = []
        for _ in range(3):
            piece = self.piece()
            self.tell("begin", name=name, pieces=[*pieces, piece])
            descriptor = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with closing(descriptor) as close:
                self.write(descriptor, content([piece]))
                close()
            pieces.append(piece)
            self.tell("done", name=name, pieces=pieces)
        self.read_back(name, content(pieces))

    def grow(self) -> None:
        """Append mode: the object grows while it is written, is truncated, and grows again."""
        name = f"stream-{self.seed}-{self.serial % 3}"
        piece = self.piece()
        data = content([piece])
        self.tell("begin", name=name, pieces=None)  # the old object goes before the new one comes
        self.tell("grow", name=name, pieces=[piece], synced=0)
        descriptor = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with closing(descriptor) as close:
            cut = len(data) // 2
            self.write(descriptor, data[:cut])
            os.fsync(descriptor)
            self.tell("grow", name=name, pieces=[piece], synced=cut)
            self.write(descriptor, data[cut:])
            close()
        self.tell("done", name=name, pieces=[piece])
        self.read_back(name, data)

    def save(self) -> None:
        """A temporary file, then a rename over the file: how checkpoints and editors save."""
        name = f"checkpoint-{self.random.randrange(3)}"
        temporary = f"{name}.tmp-{self.seed}-{self.serial}"
        piece = self.piece()
        self.tell("begin", name=temporary, pieces=[piece])
        descriptor = os.open(self.directory / temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with closing(descriptor) as close:
            self.write(descriptor, content([piece]))
            close()
        self.tell("done", name=temporary, pieces=[piece])
        self.tell("move", moves=[[temporary, name, [piece]]])
        os.rename(self.directory / temporary, self.directory / name)
        self.tell("moved", moves=[[temporary, name, [piece]]])
        self.read_back(name, content([piece]))

    def move_directory(self) -> None:
        """A directory with twelve files takes another name, three times."""
        home = f"tree-{self.seed}-{self.serial}-0"
        os.makedirs(self.directory / home / "deep")
        pieces = {}
        for number in range(12):
            name = f"deep/{number}" if number % 2 else f"{number}"
            pieces[name] = [self.piece(largest=300 * KIB)]
            self.tell("begin", name=f"{home}/{name}", pieces=pieces[name])
            (self.directory / home / name).write_bytes(content(pieces[name]))
            self.tell("done", name=f"{home}/{name}", pieces=pieces[name])
        for number in range(1, 4):
            other = f"{home[:-1]}{number}"
            moves = [[f"{home}/{name}", f"{other}/{name}", pieces[name]] for name in pieces]
            self.tell("move", moves=moves)
            os.rename(self.directory / home, self.directory / other)
            self.tell("moved", moves=moves)
            home = other

    def read(self) -> None:
        """Files another client made, whose names are their tags and end with their sizes: whole, or here and there."""
        names = sorted(os.listdir(self.directory))
        name = self.random.choice(names)
        expected = content([(name, int(name.rpartition("-")[2]))])
        with open(self.directory / name, "rb", buffering=0) as file:
            if self.random.random() < 0.5:
                position = 0
                while piece := file.read(self.random.choice(CHUNKS)):
                    self.compare(name, position, piece, expected)
                    position += len(piece)
                self.compare(name, position, b"", expected[position:])
            for _ in range(4):
                position = self.random.randrange(len(expected) + 1)
                piece = os.pread(file.fileno(), 70_000, position)
                self.compare(name, position, piece, expected[: position + 70_000])

    # --- their parts ---

    def piece(self, largest: int = SIZES[-1]) -> tuple[str, int]:
        self.serial += 1
        size = self.random.choice([size for size in SIZES if size <= largest])
        return f"{self.seed}-{self.serial}", size

    def write(self, descriptor: int, data: bytes) -> None:
        chunk = self.random.choice(CHUNKS)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view[:chunk]) :]  # short when the mount dies in the middle of it
            self.tell("step")

    def compare(self, name: str, position: int, found: bytes, expected: bytes) -> None:
        """`found` was read at `position`; a read may only be short at the end of what is `expected`."""
        if found != expected[position : position + len(found)] or (not found and position < len(expected)):
            self.tell("wrong", what=f"{name}: {len(found)} bytes at {position} are not what was written")
        self.tell("step")

    def read_back(self, name: str, expected: bytes) -> None:
        """What was closed is what is read."""
        found = (self.directory / name).read_bytes()
        if found != expected:
            self.tell("wrong", what=f"{name}: {len(found)} bytes read back are not the {len(expected)} written")

    def tell(self, event: str, **values: object) -> None:
        os.write(1, json.dumps({"event": event, **values}).encode() + b"\n")


class closing:  # noqa: N801 - reads like contextlib.closing
    """Close a descriptor exactly once, whatever happens; the block may do it itself to hear what close(2) says."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> Callable[[], None]:
        return self.close

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        except OSError:
            if _[0] is None:
                raise

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def main(manner: str, directory: str, seed: str, rounds: str, *flags: str) -> None:
    writing = Writing(Path(directory), seed)
    carry_out = getattr(writing, manner)
    for _ in range(int(rounds)):
        try:
            carry_out()
        except OSError as error:
            writing.tell("error", name=errno.errorcode.get(error.errno or 0, str(error)))
            if "--go-on" not in flags:
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
