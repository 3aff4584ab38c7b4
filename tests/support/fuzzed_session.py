"""Our own kernel session served with nonsense, from the descriptor on.

A SOCK_SEQPACKET socket stands for /dev/fuse: one message a read, one a write. Every message gets one answer of the
right form, or none where the protocol has none, and after it the session still answers an ordinary question.

`python -m tests.support.fuzzed_session PASSES MESSAGES` sends the same messages again and again and prints the memory.
"""

from __future__ import annotations

import itertools
import logging
import random
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Sequence

from csi.fuse.native.answers import Answers
from csi.fuse.own.session import OwnSession
from csi.fuse.protocol.constants import InitFlag, Opcode
from csi.fuse.protocol.negotiation import InitResult
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds
from tests.support.answering_filesystem import AnsweringFilesystem
from tests.support.recorded_fuse import messages

_PATIENCE = 20.0
_LARGEST = 64 * 1024
_ANSWER_ROOM = 2 << 20
_TOGETHER = 8
_MOST_ERRNO = 511  # the kernel takes no other
_UNANSWERED = {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.NOTIFY_REPLY}
_QUESTION = struct.Struct("<IIQQIIIHHIIQ")
_HEADER = struct.Struct("<IIQ")
_ANSWER = struct.Struct("<IiQ")


class Fuzzed:
    """A session that serves a socket. `send` judges what it does with a message: AssertionError when it is wrong."""

    def __init__(self) -> None:
        logging.disable(logging.CRITICAL)
        self._kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._kernel.settimeout(_PATIENCE)
        self._unique = 0
        self._interrupts: set[int] = set()  # may be answered, any time: "say it again"
        answers = Answers()
        flags = int(InitFlag.SETXATTR_EXT | InitFlag.MAX_PAGES | InitFlag.INIT_EXT)
        self._session = OwnSession(
            device.detach(),
            AnsweringFilesystem(answers),
            MountArguments(),
            answers=answers,
            workers=2,
            on_started=lambda: None,
            resume=InitResult(7, 45, flags, 1 << 17, _LARGEST, 16, 16, 12),
            stop_grace=Seconds(1.0),
        )
        self._thread = threading.Thread(target=self._session.serve, daemon=True)
        self._thread.start()
        self._kernel.recv(_ANSWER_ROOM)  # the question for requests of before

    def close(self) -> None:
        self._kernel.close()
        self._thread.join(_PATIENCE)
        assert not self._thread.is_alive(), "the session does not end with its descriptor"

    def send(self, data: bytes) -> None:
        """`data` from its opcode on, as one message of that length with a number that is new."""
        self.send_together([data])

    def send_together(self, several: Sequence[bytes]) -> None:
        """All of them before any answer is looked at: the session's threads meet."""
        sent = [self._prepared(data) for data in several if data]
        for message, _ in sent:
            self._kernel.send(message)
        self._unique += 2
        self._kernel.send(_QUESTION.pack(56, Opcode.GETATTR, self._unique, 2, 0, 0, 1, 0, 0, 0, 0, 0))
        waited_for = {self._unique} | {expected for _, expected in sent if expected}
        while waited_for:
            try:
                waited_for.discard(self._judged(waited_for))
            except TimeoutError:
                texts = " ".join(message.hex() for message, _ in sent)
                raise AssertionError(f"no answer to one of {texts}, or to what was asked after") from None

    def _prepared(self, data: bytes) -> tuple[bytes, int]:
        """The message, and the number whose answer must come; 0 when none must."""
        if len(data) < 40:
            return data, 0  # without a header nobody can be answered
        _, opcode, given = _HEADER.unpack_from(data)
        self._unique += 2
        resent = given & 1 << 63
        unique = self._unique | resent
        message = _HEADER.pack(len(data), opcode, unique) + data[_HEADER.size :]
        if given & 7 == 7:  # sometimes it says another length than it has
            message = struct.pack("<I", len(data) + given % 100) + message[4:]
        if opcode == Opcode.INTERRUPT:
            self._interrupts.add(unique)
        return message, 0 if opcode in _UNANSWERED or opcode == Opcode.INTERRUPT else unique

    def _judged(self, waited_for: set[int]) -> int:
        answer = self._kernel.recv(_ANSWER_ROOM)
        length, error, unique = _ANSWER.unpack_from(answer)
        assert length == len(answer), f"an answer of {len(answer)} bytes says {length}"
        assert -_MOST_ERRNO <= error <= 0, f"errno {error}"
        assert not error or length == _ANSWER.size, "an error with a body"
        assert unique in waited_for | self._interrupts, f"nobody asked {unique:#x}"
        self._interrupts.discard(unique)
        return int(unique)


def mutated(source: random.Random) -> Iterator[bytes]:
    """Recorded messages with a few bytes of others or of chance in them, without end."""
    recorded = [message.data for message in messages() if message.is_request]
    while True:
        message = bytearray(source.choice(recorded))
        for _ in range(source.randrange(4)):
            begin = source.randrange(4, len(message) + 1)
            piece = source.choice((source.randbytes(8), source.choice(recorded)[40:48], bytes(8), b"\xff" * 8))
            message[begin : begin + source.randrange(9)] = piece[: source.randrange(9)]
        yield bytes(message)


def resident() -> int:
    """VmRSS, bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:"))


def grow(passes: int, count: int) -> None:
    fuzzed = Fuzzed()
    for _ in range(passes):
        source = mutated(random.Random(4))
        for _ in range(count // _TOGETHER):
            fuzzed.send_together(list(itertools.islice(source, _TOGETHER)))
        print(resident(), flush=True)
    fuzzed.close()


if __name__ == "__main__":
    grow(int(sys.argv[1]), int(sys.argv[2]))
