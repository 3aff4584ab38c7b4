"""Which opens name a local file, with a kernel that numbers them."""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi.fs.types import Backing, OpenFile
from csi.fuse.own.passthrough import KernelBackingFiles, Passthrough, may_register
from csi.fuse.protocol.constants import DEV_IOC_BACKING_CLOSE, DEV_IOC_BACKING_OPEN, OpenFlag
from csi.fuse.requests import PassthroughStatistics
from csi.volume.units import FileHandle, InodeNumber

NODE = InodeNumber(5)
PASSED = OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH
DIRECT = PASSED | OpenFlag.DIRECT_IO
ORDINARY = OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH


class Device:
    """Implements `Controlled`: numbers files from 1, or refuses them."""

    def __init__(self) -> None:
        self.registered: dict[int, int] = {}
        self.refusal = 0
        self.asked = 0

    def control(self, command: int, argument: bytes) -> int:
        if command == DEV_IOC_BACKING_CLOSE:
            del self.registered[struct.unpack("<I", argument)[0]]
            return 0
        assert command == DEV_IOC_BACKING_OPEN
        self.asked += 1
        if self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))
        descriptor, flags, padding = struct.unpack("<iIQ", argument)
        assert (flags, padding) == (0, 0)
        self.registered[self.asked] = os.fstat(descriptor).st_ino
        return self.asked


class Cache:
    """Implements `Backed`: `content` is what is wholly on the disk, 0 for nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.touch()
        self.content = 1
        self.given: list[int] = []

    def backing(self, handle: FileHandle) -> Backing | None:
        if not self.content:
            return None
        self.given.append(os.open(self._file, os.O_RDONLY))
        return Backing(self.given[-1], self.content)


class Opens:
    def __init__(self, file: Path) -> None:
        self.device, self.cache = Device(), Cache(file)
        self.passthrough = Passthrough(self.cache, KernelBackingFiles(self.device))

    def open(self, handle: int, *, direct: bool = False, node: InodeNumber = NODE) -> tuple[int, int]:
        flags = OpenFlag.DIRECT_IO | OpenFlag.NOFLUSH if direct else ORDINARY
        return self.passthrough.opened(node, OpenFile(FileHandle(handle), not direct, direct), flags)

    def release(self, *handles: int) -> None:
        for handle in handles:
            self.passthrough.released(FileHandle(handle))


@pytest.fixture
def opens(tmp_path: Path) -> Opens:
    return Opens(tmp_path / "file")


def test_all_opens_of_a_version_name_the_same_file_until_the_last_is_released(opens: Opens) -> None:
    assert (opens.open(1), opens.open(2)) == ((PASSED, 1), (PASSED, 1))
    opens.release(1)
    assert len(opens.device.registered) == 1
    opens.release(2)
    assert opens.device.registered == {}
    assert opens.open(3) == (PASSED, 2)


def test_the_log_says_once_that_files_are_passed(opens: Opens, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        opens.open(1)
        opens.open(2)
        opens.open(3, node=InodeNumber(6))

    assert [record.message for record in caplog.records] == [
        "the kernel reads files that are whole in the disk cache by itself"
    ]


def test_every_descriptor_that_was_given_is_closed(opens: Opens) -> None:
    opens.open(1)
    opens.open(2)

    for descriptor in opens.cache.given:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_nothing_is_passed_through_while_it_is_open_in_another_way(opens: Opens) -> None:
    opens.cache.content = 0
    assert opens.open(1) == (ORDINARY, 0)
    opens.cache.content = 1
    assert opens.open(2) == (ORDINARY, 0)
    opens.release(1)
    assert opens.open(3) == (ORDINARY, 0)
    opens.release(2, 3)
    assert opens.open(4) == (PASSED, 1)


def test_another_version_or_none_is_direct_io_beside_one_that_is_passed_through(opens: Opens) -> None:
    opens.open(1)
    opens.cache.content = 2
    assert opens.open(2) == (DIRECT, 1)
    opens.cache.content = 0
    assert opens.open(3) == (DIRECT, 1)
    assert opens.passthrough.statistics() == PassthroughStatistics(passed=1, direct=2, inodes=1)


def test_direct_io_is_not_passed_through_but_names_the_file_beside_others(opens: Opens) -> None:
    assert opens.open(1, direct=True) == (OpenFlag.DIRECT_IO | OpenFlag.NOFLUSH, 0)
    opens.release(1)
    opens.open(2)
    assert opens.open(3, direct=True) == (DIRECT, 1)


def test_inodes_do_not_concern_each_other(opens: Opens) -> None:
    opens.cache.content = 0
    opens.open(1)
    opens.cache.content = 1
    assert opens.open(2, node=InodeNumber(6)) == (PASSED, 1)


def test_a_release_of_what_is_not_known_is_nothing(opens: Opens) -> None:
    opens.release(99)

    assert opens.passthrough.statistics() == PassthroughStatistics(0, 0, 0)


class Elsewhere:
    """Implements `BackingFiles` as another process may: it takes its time, or has none."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.number = 7
        self.given_back: list[int] = []

    def register(self, descriptor: int) -> int:
        self.asked.set()
        assert self.go_on.wait(20)
        return self.number

    def unregister(self, number: int) -> None:
        self.given_back.append(number)

    def close(self) -> None:
        self.go_on.set()


def test_opens_that_come_while_the_first_finds_out_are_of_its_kind(opens: Opens) -> None:
    elsewhere = Elsewhere()
    opens.passthrough = Passthrough(opens.cache, elsewhere)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(opens.open, 1)
        assert elsewhere.asked.wait(20)
        others = [pool.submit(opens.open, 2), pool.submit(opens.open, 3, direct=True)]
        with pytest.raises(TimeoutError):
            others[0].result(0.05)
        elsewhere.go_on.set()
        assert [one.result(20) for one in (first, *others)] == [(PASSED, 7), (PASSED, 7), (DIRECT, 7)]
    opens.release(1, 3)
    assert elsewhere.given_back == []
    opens.release(2)
    assert elsewhere.given_back == [7]


def test_another_file_is_opened_and_released_meanwhile(opens: Opens) -> None:
    elsewhere = Elsewhere()
    opens.passthrough = Passthrough(opens.cache, elsewhere)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(opens.open, 1)
        assert elsewhere.asked.wait(20)
        opens.cache.content = 0
        assert opens.open(2, node=InodeNumber(6)) == (ORDINARY, 0)
        opens.release(2)
        opens.passthrough.close()
        assert first.result(20) == (PASSED, 7)


def test_a_file_that_nobody_registers_now_is_read_through_the_session_and_the_log_is_silent(
    opens: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = Elsewhere()
    elsewhere.go_on.set()
    elsewhere.number = 0
    opens.passthrough = Passthrough(opens.cache, elsewhere)
    assert (opens.open(1), opens.open(2)) == ((ORDINARY, 0), (ORDINARY, 0))
    opens.release(1, 2)
    elsewhere.number = 8
    assert opens.open(3) == (PASSED, 8)
    assert (elsewhere.given_back, caplog.text) == ([], "")


@pytest.mark.parametrize(
    ("refusal", "asked"),
    [
        pytest.param(errno.EPERM, 1, id="a right is missing"),
        pytest.param(errno.ELOOP, 1, id="the cache lies on overlayfs"),
        pytest.param(errno.ENOMEM, 2, id="this time"),
    ],
)
def test_what_the_kernel_refuses_is_read_through_the_session_and_the_log_says_so(
    opens: Opens, caplog: pytest.LogCaptureFixture, refusal: int, asked: int
) -> None:
    opens.device.refusal = refusal

    with caplog.at_level(logging.WARNING):
        answers = (opens.open(1), opens.open(2, node=InodeNumber(6)))

    assert answers == ((ORDINARY, 0), (ORDINARY, 0))
    assert opens.device.asked == asked
    assert caplog.text.count(os.strerror(refusal)) == 1


@pytest.mark.parametrize(
    ("capabilities", "users", "expected"),
    [
        pytest.param("000001ffffffffff", "0 0 4294967295", True, id="root"),
        pytest.param("0000000000000000", "0 0 4294967295", False, id="nobody"),
        pytest.param("000001ffffffffff", "0 100000 65536", False, id="root of a user namespace"),
    ],
)
def test_only_root_of_the_node_may_register_files(
    tmp_path: Path, capabilities: str, users: str, expected: bool
) -> None:
    (tmp_path / "status").write_text(f"Name:\tpython\nCapEff:\t{capabilities}\n")
    (tmp_path / "uid_map").write_text(f"         {users}\n")

    assert may_register(tmp_path) is expected
