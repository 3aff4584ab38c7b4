"""Other clients replace, remove and append to objects while programs read them through a mount: a program sees a whole
old version, a whole new one, or ESTALE, never bytes of two; and the next open sees what the mode promises."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.emulator import RunningEmulator
from tests.support.node import Node
from tests.support.published_volume import Bucket, Program, program, published_volume
from tests.support.reading_program import versioned

SIZES = (64, 5000, 300_000, 1_500_000, 6_000_000)
MODES = [("consistent", ""), ("consistent", "-odirect_io"), ("custom", "-oattr_timeout=1 -oentry_timeout=1")]


class OtherClient(Protocol):
    def put(self, name: str, number: int, size: int) -> None: ...

    def remove(self, name: str) -> None: ...


class WithOss2:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def put(self, name: str, number: int, size: int) -> None:
        self._bucket.put(name, versioned(number, size))

    def remove(self, name: str) -> None:
        self._bucket.client.delete_object(self._bucket.prefix + name)


class WithJindo:
    def __init__(self, running: Program, prefix: str) -> None:
        self._running = running
        self._prefix = prefix

    def put(self, name: str, number: int, size: int) -> None:
        self._tell(f"put {self._prefix}{name} {number} {size}")

    def remove(self, name: str) -> None:
        self._tell(f"remove {self._prefix}{name}")

    def _tell(self, order: str) -> None:
        self._running.say(order)
        assert (self._running.line() or "").endswith("done")


@contextmanager
def other_client(kind: str, emulator: RunningEmulator, bucket: Bucket, directory: Path) -> Iterator[OtherClient]:
    if kind == "oss2":
        yield WithOss2(bucket)
        return
    settings = {
        "port": emulator.port,
        "bucket": emulator.bucket,
        "access_key_id": emulator.access_key_id,
        "access_key_secret": emulator.access_key_secret,
        "logs": str(directory),
        "signer": 4,
        "region": "",
    }
    with program("jindo_writer") as running:
        running.say(json.dumps(settings))
        yield WithJindo(running, bucket.prefix)


@contextmanager
def readers(path: Path, count: int) -> Iterator[list[Program]]:
    running: list[Program] = []
    try:
        for _ in range(count):
            running.append(Program("reading_program", str(path)))
        assert [one.line() for one in running] == ["ready"] * count
        yield running
    finally:
        for one in running:
            one.end()


@pytest.mark.parametrize("kind", ["oss2", "jindo"])
@pytest.mark.parametrize(("mode", "arguments"), MODES, ids=["consistent", "consistent-direct", "timeouts"])
def test_a_reader_never_sees_two_versions_at_once(
    node: Node, emulator: RunningEmulator, tmp_path: Path, kind: str, mode: str, arguments: str
) -> None:
    chance = random.Random(kind + mode)
    options = {"mode": mode, **({"fs__jindo__args": arguments} if arguments else {})}
    with published_volume(node, emulator, **options) as volume:
        with other_client(kind, emulator, volume.bucket, tmp_path) as client, readers(volume.path / "f", 3) as programs:
            client.put("f", 0, SIZES[-1])
            size = SIZES[-1]
            for number in range(1, 16 if mode == "consistent" else 6):
                held, *others = programs
                held.say("hold")
                assert held.line() == "held"
                for other in others:
                    other.say("read")
                before, size = size, chance.choice(SIZES)
                client.put("f", number, size)  # while they read
                held.say("rest")
                assert held.line() in ("stale", f"whole {number - 1} {before}")
                seen = {other.line() for other in others}
                assert seen <= {"stale", f"whole {number - 1} {before}", f"whole {number} {size}"}
                if mode == "consistent":
                    held.say("read")
                    assert held.line() == f"whole {number} {size}"
                else:  # what was looked up may be used for a while, and must then be told to be stale
                    until_seen(held, f"whole {number} {size}", {"stale", f"whole {number - 1} {before}"})


def until_seen(reader: Program, wanted: str, meanwhile: set[str]) -> None:
    for _ in range(100_000):
        reader.say("read")
        seen = reader.line()
        if seen == wanted:
            return
        assert seen in meanwhile
    raise AssertionError(f"{wanted} was never seen")
