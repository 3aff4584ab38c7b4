"""What one sidecar leaves to the next, over descriptors of a device and a journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from csi.fuse.protocol.constants import InitFlag
from csi.fuse.protocol.negotiation import InitResult
from csi.fuse.requests import SessionStatistics
from csi.sidecar.legacy import Legacy, journal_size
from csi.volume.units import GIB, KIB, MIB, Bytes, Seconds
from tests.support.descriptors import open_files

AGREED = InitResult(7, 45, int(InitFlag.ASYNC_READ | InitFlag.HAS_RESEND), 1 << 17, 1 << 20, 16, 16, 12)
SIZE = Bytes(64 * KIB)


class Unlasting:
    """A session of another kind."""

    def serve(self) -> None: ...

    def stop(self) -> None: ...

    def statistics(self) -> SessionStatistics:
        return SessionStatistics({}, 0, "", Seconds(0.0))

    def wait_for_closes(self, patience: Seconds) -> None: ...


class Session(Unlasting):
    def __init__(self, agreed: InitResult | None = AGREED) -> None:
        self.agreed = agreed


@pytest.fixture
def device() -> Iterator[int]:
    before = open_files()
    descriptor = os.open("/dev/null", os.O_RDWR)
    yield descriptor
    os.close(descriptor)
    assert open_files() == before


def test_a_successor_learns_what_was_agreed_with_the_kernel(device: int) -> None:
    first = Legacy(device, -1, SIZE)
    assert first.resume is None
    left = first.bequeath(Session())
    assert left is not None
    kept, journal = map(os.dup, left)
    first.close()

    second = Legacy(kept, journal, SIZE)

    assert second.resume == AGREED
    assert second.size == first.size
    second.close()
    os.close(kept)


@pytest.mark.parametrize(
    "session",
    [
        Unlasting(),
        Session(None),
        Session(replace(AGREED, flags=AGREED.flags | InitFlag.PASSTHROUGH)),
        Session(replace(AGREED, flags=int(InitFlag.ASYNC_READ))),
    ],
    ids=["of another kind", "not agreed yet", "with files that the kernel reads by itself", "of an older kernel"],
)
def test_a_session_that_nobody_can_go_on_with_leaves_nothing(device: int, session: Unlasting) -> None:
    legacy = Legacy(device, -1, SIZE)

    assert legacy.bequeath(session) is None
    legacy.close()


@pytest.mark.parametrize(
    ("limit", "size"), [(128 * MIB, 2 * MIB), (200_000_000, 47 * 64 * KIB), (GIB, 8 * MIB), (MIB, 64 * KIB)]
)
def test_a_journal_takes_little_of_the_memory_limit(limit: int, size: int) -> None:
    assert journal_size(Bytes(limit)) == size


def test_nothing_is_left_once_the_session_is_over(device: int) -> None:
    legacy = Legacy(device, -1, SIZE)
    legacy.end()

    assert legacy.bequeath(Session()) is None
    legacy.close()
