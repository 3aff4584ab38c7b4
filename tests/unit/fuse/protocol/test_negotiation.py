"""What is agreed on with kernels old and new."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from csi.fuse.own.handshake import Handshake
from csi.fuse.protocol.bodies import Init
from csi.fuse.protocol.constants import NEWEST_MINOR, OLDEST_MINOR, InitFlag
from csi.fuse.protocol.negotiation import (
    CONGESTION_THRESHOLD,
    LARGEST_WRITE,
    MAX_BACKGROUND,
    MOST_PAGES,
    PAGE,
    InitResult,
    VersionNotSupported,
    negotiate,
)

EVERYTHING = (1 << 43) - 1
OF_5_4 = (1 << 26) - 1
"""What Linux 5.4 (7.31) offers; it has no second word of flags."""


def asked(minor: int = 45, flags: int = EVERYTHING) -> Init:
    return Init(7, minor, 1 << 20, flags)


@pytest.mark.parametrize("minor", range(OLDEST_MINOR, NEWEST_MINOR + 1))
def test_every_minor_of_the_range_is_answered_with_itself(minor: int) -> None:
    assert negotiate(asked(minor)).minor == minor


def test_a_kernel_of_the_future_gets_the_newest_minor_there_is_here() -> None:
    assert negotiate(asked(NEWEST_MINOR + 5)).minor == NEWEST_MINOR


@pytest.mark.parametrize(("major", "minor"), [(7, OLDEST_MINOR - 1), (6, 45), (8, 0)])
def test_others_are_refused(major: int, minor: int) -> None:
    with pytest.raises(VersionNotSupported):
        negotiate(Init(major, minor, 0, EVERYTHING))


def test_nothing_is_agreed_on_that_was_not_offered() -> None:
    agreed = negotiate(asked(31, OF_5_4), symlinks_last=True, passthrough=True)

    assert agreed.flags & ~OF_5_4 == 0
    assert agreed.encode()[32:] == bytes(32)  # flags2 and what came after it


@pytest.mark.parametrize(
    "flag",
    [
        InitFlag.ASYNC_READ,
        InitFlag.ASYNC_DIO,
        InitFlag.PARALLEL_DIROPS,
        InitFlag.AUTO_INVAL_DATA,
        InitFlag.DO_READDIRPLUS,
        InitFlag.READDIRPLUS_AUTO,
        InitFlag.ATOMIC_O_TRUNC,
        InitFlag.HAS_RESEND,
        InitFlag.ABORT_ERROR,
        InitFlag.DIRECT_IO_ALLOW_MMAP,
    ],
    ids=lambda flag: flag.name,
)
def test_what_makes_it_fast_or_right_is_wanted(flag: InitFlag) -> None:
    assert negotiate(asked()).has(flag)


@pytest.mark.parametrize(
    "flag",
    [
        InitFlag.POSIX_LOCKS,
        InitFlag.FLOCK_LOCKS,
        InitFlag.WRITEBACK_CACHE,
        InitFlag.EXPLICIT_INVAL_DATA,
        InitFlag.NO_OPEN_SUPPORT,
        InitFlag.NO_OPENDIR_SUPPORT,
        InitFlag.CACHE_SYMLINKS,
        InitFlag.PASSTHROUGH,
        InitFlag.OVER_IO_URING,
    ],
    ids=lambda flag: flag.name,
)
def test_what_would_not_keep_a_promise_is_not(flag: InitFlag) -> None:
    assert not negotiate(asked()).has(flag)


def test_what_depends_on_the_mount_is_agreed_on_where_it_may_be() -> None:
    agreed = negotiate(asked(), symlinks_last=True, bare_names=False, passthrough=True)

    assert agreed.has(InitFlag.CACHE_SYMLINKS)
    assert agreed.has(InitFlag.PASSTHROUGH)
    assert not agreed.has(InitFlag.READDIRPLUS_AUTO)


@pytest.mark.parametrize(
    ("limit", "pages"),
    [
        pytest.param(256, 256, id="as the kernel comes"),
        pytest.param(1024, 1024, id="4 MiB"),
        pytest.param(65535, MOST_PAGES, id="more than is of use"),
        pytest.param(0, 1, id="nonsense"),
    ],
)
def test_requests_are_as_large_as_the_kernel_allows(limit: int, pages: int) -> None:
    agreed = negotiate(asked(), max_pages=limit)

    max_write, pages_told = struct.unpack_from("<I4xH", agreed.encode(), 20)
    assert (agreed.max_pages, pages_told, max_write) == (pages, pages, pages * PAGE)


def test_writes_may_bring_less_than_reads() -> None:
    agreed = negotiate(asked(), max_pages=256, largest_write=64 * 1024)

    assert (agreed.max_pages, agreed.max_write) == (256, 64 * 1024)


def test_a_kernel_without_max_pages_sends_what_it_always_did() -> None:
    assert negotiate(asked(flags=EVERYTHING & ~InitFlag.MAX_PAGES), max_pages=1024).max_write == 32 * PAGE


def test_the_kernel_may_have_many_requests_in_the_background() -> None:
    encoded = negotiate(asked()).encode()

    assert struct.unpack_from("<HH", encoded, 16) == (MAX_BACKGROUND, CONGESTION_THRESHOLD)


@pytest.mark.parametrize(
    ("said", "largest"),
    [
        pytest.param("1024\n", 1024 * PAGE, id="raised"),
        pytest.param(None, 256 * PAGE, id="a kernel before 6.13"),
        pytest.param("many", 256 * PAGE, id="nonsense"),
    ],
)
def test_buffers_are_as_large_as_what_the_kernel_may_send(tmp_path: Path, said: str | None, largest: int) -> None:
    limit = tmp_path / "max_pages_limit"
    if said is not None:
        limit.write_text(said)

    made = Handshake(
        symlinks_last=False,
        bare_names=True,
        passthrough=False,
        largest_write=LARGEST_WRITE,
        resume=None,
        pages_limit=limit,
    )

    assert made.buffer_size == largest


def test_a_successor_has_room_for_what_its_predecessor_agreed_on(tmp_path: Path) -> None:
    agreed = negotiate(asked(), max_pages=1024)

    made = Handshake(
        symlinks_last=False,
        bare_names=True,
        passthrough=False,
        largest_write=LARGEST_WRITE,
        resume=agreed,
        pages_limit=tmp_path / "missing",
    )

    assert made.buffer_size == 1024 * PAGE


@pytest.mark.parametrize("text", ["", "[]", '{"major": 7}', '{"major": "7"}', '{"unknown": 1}'])
def test_what_was_not_written_by_a_session_is_no_agreement(text: str) -> None:
    with pytest.raises(ValueError):
        InitResult.from_json(text)
