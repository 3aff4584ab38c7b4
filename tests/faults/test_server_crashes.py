"""The OSS server is killed under load and comes back: what was told done is there, what failed was told, nothing hangs
and no remount is needed."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.emulator import RunningEmulator, start_emulator
from tests.support.journal import Expected, content
from tests.support.node import Node
from tests.support.published_volume import Program, program, published_volume, until

KEYS = {"LTAI5tServerCrashes": "secretOfServerCrashes0123456"}
PATIENT = {
    "fs__oss__retry__count": "100",
    "fs__oss__retry__interval__millisecond": "20",
    "fs__oss__blocklet__size__mb": "1",
}
IMPATIENT = {
    "fs__oss__retry__count": "2",
    "fs__oss__retry__interval__millisecond": "20",
    "fs__oss__timeout__millisecond": "1000",
    "fs__oss__connection__timeout__millisecond": "500",
    "fs__oss__blocklet__size__mb": "1",
}
TOLD = {"EHOSTUNREACH", "ETIMEDOUT", "EIO", "ESTALE"}


class Server:
    """One that can be killed and started again on the same port and data."""

    def __init__(self, data: Path, stack: ExitStack) -> None:
        self._data = data
        self._stack = stack
        self.running: RunningEmulator = stack.enter_context(start_emulator(data, access_keys=KEYS))

    def kill(self) -> None:
        self.running.kill()

    def start(self) -> None:
        port = self.running.port
        self.running = self._stack.enter_context(start_emulator(self._data, access_keys=KEYS, port=port))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with ExitStack() as stack:
        yield Server(tmp_path / "emulator", stack)


def listen(writing: Program, expected: Expected, at: dict[int, Callable[[], None]]) -> None:
    """Follow a program to its end, doing what `at` says after that many lines."""
    for number, said in enumerate(writing.lines()):
        expected.take(said)
        if number in at:
            at[number]()
    assert writing.wait() == 0


@pytest.mark.parametrize("manner", ["overwrite", "append", "save", "move_directory", "grow"])
def test_a_short_outage_is_not_seen_by_programs(node: Node, server: Server, manner: str) -> None:
    expected = Expected()
    options = {**PATIENT, **({"fs__oss__append__enable": "true"} if manner == "grow" else {})}
    chance = random.Random(manner)

    def restart() -> None:
        server.kill()
        server.start()

    with published_volume(node, server.running, mode="consistent", **options) as volume:
        rounds = "2" if manner == "move_directory" else "12"
        with program("writing_program", manner, str(volume.path), manner, rounds) as writing:
            listen(writing, expected, {chance.randrange(2, 15): restart, chance.randrange(16, 40): restart})
        assert expected.errors == []
        assert expected.violations(volume.bucket.get) == []
        assert volume.bucket.kept_uploads() == []


@pytest.mark.parametrize("manner", ["overwrite", "append", "save", "move_directory", "grow"])
def test_a_long_outage_is_told_and_over_when_the_server_is_back(node: Node, server: Server, manner: str) -> None:
    expected = Expected()
    options = {**IMPATIENT, **({"fs__oss__append__enable": "true"} if manner == "grow" else {})}
    with published_volume(node, server.running, mode="consistent", **options) as volume:
        with program("writing_program", manner, str(volume.path), f"{manner}-1", "1000") as writing:
            listen(writing, expected, {random.Random(manner).randrange(3, 60): server.kill})
        assert expected.errors and set(expected.errors) <= TOLD
        server.start()
        assert expected.violations(volume.bucket.get) == []

        with program("writing_program", manner, str(volume.path), f"{manner}-2", "3") as writing:
            listen(writing, expected, {})
        assert expected.errors[1:] == []
        assert expected.violations(volume.bucket.get) == []
        until(lambda: volume.bucket.kept_uploads() == [])


def test_reads_go_on_over_an_outage_and_fail_truthfully_over_a_longer_one(node: Node, server: Server) -> None:
    data = content([("read", 24 << 20)])
    with published_volume(node, server.running, mode="consistent", **IMPATIENT) as volume:
        volume.bucket.put("big", data)
        with (volume.path / "big").open("rb", buffering=0) as file:
            found = [file.read(1 << 20)]
            server.kill()
            failure = read_to_the_end(file, found)
            assert failure in (errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EIO)
            server.start()
            assert read_to_the_end(file, found) is None  # the same descriptor goes on
        assert b"".join(found) == data


def read_to_the_end(file, found: list[bytes]) -> int | None:
    """Append what is read to `found`; the errno that ended it."""
    try:
        while piece := file.read(1 << 20):
            found.append(piece)
    except OSError as error:
        return error.errno
    return None
