"""What `tests/support/record_fuse.py` recorded of a real kernel (6.18, protocol 7.45), by session, step and opcode."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RECORDING = Path(__file__).parents[1] / "unit/fuse/protocol/recorded.txt"
OLD, ALL = "7.31", "all"
"""The sessions: a server of 7.31, and one that accepted nearly all the kernel offers."""


@dataclass(frozen=True, slots=True)
class Message:
    """`opcode` of an answer is that of its request; 0 for a notification."""

    session: str
    step: str
    is_request: bool
    opcode: int
    data: bytes

    @property
    def extended(self) -> bool:
        """SETXATTR has its longer form in this session."""
        return self.session == ALL


def messages() -> Iterator[Message]:
    opcodes: dict[tuple[str, int], int] = {}
    for line in RECORDING.read_text().splitlines():
        if line.startswith("#"):
            continue
        session, step, direction, text = line.split()
        data = bytes.fromhex(text)
        unique = struct.unpack_from("<Q", data, 8)[0]
        is_request = direction == ">"
        if is_request:
            opcodes[session, unique] = struct.unpack_from("<I", data, 4)[0]
        yield Message(session, step, is_request, opcodes.get((session, unique), 0), data)


def requests(session: str, step: str, opcode: int) -> list[bytes]:
    return [m.data for m in messages() if m.is_request and (m.session, m.step, m.opcode) == (session, step, opcode)]


def answers(session: str, step: str, opcode: int) -> list[bytes]:
    return [m.data for m in messages() if not m.is_request and (m.session, m.step, m.opcode) == (session, step, opcode)]
