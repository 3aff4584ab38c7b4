"""What must be true of every file after something broke, from what a program said before and after each step.

`Expected` is the promise of docs/semantics.md ("an object is its old or its new version, and close and fsync told the
truth") as a set of allowed contents for every file; the lines of `tests/support/writing_program.py` move it along.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Piece = tuple[str, int]
"""A tag and a size: bytes that occur nowhere else. A content is a sequence of pieces; None is 'not there'."""
Pieces = Sequence[Piece]


def content(pieces: Pieces) -> bytes:
    return b"".join(_stretch(tag, size) for tag, size in pieces)


def _stretch(tag: str, size: int) -> bytes:
    seed = hashlib.sha256(tag.encode()).digest()
    # a block of 16 KiB repeated under a running number: fast to make, and no two blocks are alike
    block = seed * 512
    blocks = [number.to_bytes(8, "big") + block[8:] for number in range(-(-size // len(block)))]
    return b"".join(blocks)[:size]


@dataclass
class Fate:
    """One file: `allowed` contents, and for each of `growing` every prefix of it of at least so many bytes."""

    allowed: list[bytes | None] = field(default_factory=lambda: [None])
    growing: list[tuple[bytes, int]] = field(default_factory=list)

    def admits(self, found: bytes | None) -> bool:
        if found in self.allowed:
            return True
        return found is not None and any(
            len(found) >= least and whole.startswith(found) for whole, least in self.growing
        )

    def describe(self, found: bytes | None) -> str:
        sizes = [None if data is None else len(data) for data in self.allowed]
        growth = "".join(f" or {least} to {len(whole)} bytes of what was growing" for whole, least in self.growing)
        is_there = "nothing" if found is None else f"{len(found)} bytes starting {found[:16].hex()}"
        return f"{is_there}, where there may be {sizes}{growth}"


class Expected:
    """`take` one line of the program after another; `violations` of what is there then."""

    def __init__(self) -> None:
        self.files: dict[str, Fate] = {}
        self.moves: list[tuple[str, str, bytes]] = []
        self.errors: list[str] = []
        self.wrong: list[str] = []

    def take(self, line: str) -> None:
        said = json.loads(line)
        match said.pop("event"):
            case "step":
                pass
            case "error":
                self.errors.append(said["name"])
            case "wrong":
                self.wrong.append(said["what"])
            case "begin":
                self._fate(said["name"]).allowed.append(_content_or_none(said["pieces"]))
            case "done":
                self.files[said["name"]] = Fate([_content_or_none(said["pieces"])])
            case "grow":
                fate = self._fate(said["name"])
                if said["synced"]:
                    fate.allowed, fate.growing = [], []
                fate.growing.append((content(said["pieces"]), said["synced"]))
            case "move":
                for source, target, pieces in said["moves"]:
                    data = content(pieces)
                    self._fate(source).allowed.append(None)
                    self._fate(target).allowed.append(data)
                    self.moves.append((source, target, data))
            case "moved":
                for source, target, pieces in said["moves"]:
                    self.files[source] = Fate([None])
                    self.files[target] = Fate([content(pieces)])
                self.moves = []
            case other:
                raise AssertionError(f"unknown event {other}")

    def violations(self, read: Callable[[str], bytes | None]) -> list[str]:
        """Of the promise, in what `read` says is there; afterwards that is what is expected."""
        found = {name: read(name) for name in self.files}
        wrong = [
            f"{name}: {fate.describe(found[name])}" for name, fate in self.files.items() if not fate.admits(found[name])
        ]
        wrong += [
            f"neither {source} nor {target} has what was moved"
            for source, target, data in self.moves
            if data not in (found[source], found[target])
        ]
        self.files = {name: Fate([data]) for name, data in found.items() if data is not None}
        self.moves = []
        return self.wrong + wrong

    def _fate(self, name: str) -> Fate:
        return self.files.setdefault(name, Fate())


def _content_or_none(pieces: Pieces | None) -> bytes | None:
    return None if pieces is None else content(pieces)
