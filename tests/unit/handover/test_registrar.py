"""What a node plugin registers with the kernel in the name of a sidecar, and above all what it does not."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from csi.handover import registrar as under_test
from csi.handover.channel import Channel
from csi.handover.registrar import LinuxKernelFiles, Registrar
from csi.handover.wire import Message, Register, Registered, Unregister
from csi.volume.units import Seconds
from tests.support.descriptors import open_files
from tests.support.pretend_kernel_files import PretendKernelFiles

SOON = Seconds(5.0)


class Desk:
    """A registrar, and a sidecar of this process's user that stands before it. `device` is /dev/fuse, not mounted."""

    def __init__(self, directory: Path) -> None:
        self.files = PretendKernelFiles()
        self.now = 0.0
        self.made = 0
        self.minors = {45}
        self.file = directory / "block"
        self.file.write_bytes(b"cached")
        self._stack = ExitStack()
        self.sidecar, self.plugin = (Channel(end) for end in socket.socketpair())
        self._stack.callback(self.sidecar.close)
        self._stack.callback(self.plugin.close)
        self.device = self.opened("/dev/fuse", os.O_RDWR)
        self.registrar = self.registrar_of(read_only=True)

    def registrar_of(self, *, read_only: bool) -> Registrar:
        return Registrar(
            "vol", read_only=read_only, minors=lambda: self.minors, files=self.files, clock=lambda: self.now
        )

    def opened(self, path: str | Path, flags: int) -> int:
        descriptor = os.open(path, flags)
        self._stack.callback(os.close, descriptor)
        return descriptor

    def register(self, file: int | None = None, device: int | None = None) -> Message:
        file = self.opened(self.file, os.O_RDONLY) if file is None else file
        return self._say(Register(7), self.device if device is None else device, file)

    def unregister(self, number: int, device: int | None = None) -> Message:
        return self._say(Unregister(8, number), self.device if device is None else device)

    def _say(self, message: Register | Unregister, *descriptors: int) -> Message:
        self.registrar.serve(self.plugin, message, descriptors)
        received = self.sidecar.receive(SOON)
        assert received is not None
        return received.message

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    before = open_files()
    desk = Desk(tmp_path)
    yield desk
    desk.close()
    assert open_files() == before


def test_a_file_of_the_sidecars_own_is_registered_until_it_is_given_back(desk: Desk) -> None:
    assert desk.register() == Registered(7, number=1)
    assert desk.files.registered == {1: desk.file.stat().st_ino}
    assert desk.unregister(1) == Registered(8)
    assert desk.files.registered == {}


def test_what_an_earlier_node_plugin_has_registered_is_given_back_too(desk: Desk) -> None:
    desk.files.registered[33] = 1
    assert desk.unregister(33) == Registered(8)
    assert desk.files.registered == {}


# --- what is refused ---


def path_only(desk: Desk) -> int:
    return desk.opened(desk.file, os.O_PATH)


def path_only_of_another(desk: Desk) -> int:
    return desk.opened("/etc/shadow", os.O_PATH)


def written(desk: Desk) -> int:
    return desk.opened(desk.file, os.O_RDWR)


def write_only(desk: Desk) -> int:
    return desk.opened(desk.file, os.O_WRONLY)


def directory(desk: Desk) -> int:
    return desk.opened(desk.file.parent, os.O_RDONLY)


def device_of_zeros(desk: Desk) -> int:
    return desk.opened("/dev/zero", os.O_RDONLY)


@pytest.mark.parametrize(
    ("offer", "number", "reason"),
    [
        pytest.param(path_only, errno.EPERM, "O_PATH", id="a file that may not be readable"),
        pytest.param(path_only_of_another, errno.EPERM, "O_PATH", id="a file that is not readable"),
        pytest.param(written, errno.EINVAL, "reading alone", id="a file open for writing too"),
        pytest.param(write_only, errno.EINVAL, "reading alone", id="a file open for writing"),
        pytest.param(directory, errno.EINVAL, "not a regular file", id="a directory"),
        pytest.param(device_of_zeros, errno.EINVAL, "not a regular file", id="a device"),
    ],
)
def test_a_descriptor_that_is_not_of_a_file_open_for_reading_is_refused(
    desk: Desk, caplog: pytest.LogCaptureFixture, offer: Callable[[Desk], int], number: int, reason: str
) -> None:
    assert desk.register(offer(desk)) == Registered(7, error=number)
    assert desk.files.registered == {}
    assert reason in caplog.text


def test_a_file_of_another_user_is_refused(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody else has opened for the sidecar. The files of a test are of the user as which it connects."""
    really = os.fstat

    def of_another(descriptor: int) -> os.stat_result:
        found = really(descriptor)
        return os.stat_result((*found[:4], 4711, *found[5:])) if stat.S_ISREG(found.st_mode) else found

    monkeypatch.setattr(os, "fstat", of_another)
    assert desk.register() == Registered(7, error=errno.EPERM)
    assert f"belongs to user 4711, the sidecar is user {os.getuid()}" in caplog.text


def test_a_device_that_is_not_of_fuse_is_refused(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    null, file = desk.opened("/dev/null", os.O_RDWR), desk.opened(desk.file, os.O_RDONLY)
    assert desk.register(device=null) == Registered(7, error=errno.EINVAL)
    assert desk.register(device=file) == Registered(7, error=errno.EINVAL)
    assert desk.unregister(1, device=null) == Registered(8, error=errno.EINVAL)
    assert "not /dev/fuse" in caplog.text


@pytest.mark.parametrize(
    ("connection", "answer"),
    [
        pytest.param("45", Registered(7, number=1), id="of this volume"),
        pytest.param("46", Registered(7, error=errno.EPERM), id="of another mount"),
    ],
)
def test_a_device_of_another_mount_is_refused_where_the_kernel_tells(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, connection: str, answer: Registered
) -> None:
    """Such as one that a program mounted for writing in a user namespace of its own."""
    monkeypatch.setattr(under_test, "_fields", lambda _descriptor: {"fuse_connection": connection})
    assert desk.register() == answer


def test_of_a_volume_that_can_be_written_nothing_is_registered(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.registrar = desk.registrar_of(read_only=False)
    assert desk.register() == Registered(7, error=errno.EPERM)
    assert "not mounted read-only" in caplog.text
    assert not desk.registrar.is_willing


def test_more_files_than_a_sidecar_may_have_are_refused_until_one_is_given_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "_MOST", 2)
    answers = [desk.register(), desk.register(), desk.register()]
    assert answers == [Registered(7, 1), Registered(7, 2), Registered(7, error=errno.EMFILE)]
    desk.unregister(2)
    assert desk.register() == Registered(7, number=3)


def test_a_new_kernel_session_begins_with_no_files(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_MOST", 1)
    desk.register()
    desk.registrar.begin()
    assert desk.register() == Registered(7, number=2)


def test_what_the_kernel_refuses_is_answered_with_its_errno(desk: Desk) -> None:
    desk.files.refusal = errno.ELOOP
    assert desk.register() == Registered(7, error=errno.ELOOP)
    assert desk.unregister(5) == Registered(8, error=errno.ELOOP)


def test_a_sidecar_that_asks_again_and_again_fills_no_log(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    null = desk.opened("/dev/null", os.O_RDWR)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            desk.register(device=null)
        desk.now = 11.0
        desk.register(device=null)
    assert len(caplog.records) == 2


# --- the rest ---


def test_a_number_that_nobody_will_hear_of_is_given_back(desk: Desk) -> None:
    file = desk.opened(desk.file, os.O_RDONLY)
    desk.sidecar.close()
    with pytest.raises(BrokenPipeError):
        desk.registrar.serve(desk.plugin, Register(1), (desk.device, file))
    assert desk.files.registered == {}


def test_nobody_is_invited_where_the_kernel_would_refuse(desk: Desk) -> None:
    assert desk.registrar.is_willing
    desk.files.allowed = False
    assert not desk.registrar.is_willing


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        pytest.param("0 0 4294967295", True, id="root of the node"),
        pytest.param("0 100000 65536", False, id="root of a user namespace"),
    ],
)
def test_only_root_of_the_first_user_namespace_may_register(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: str, expected: bool
) -> None:
    (tmp_path / "uid_map").write_text(f"         {users}\n")
    monkeypatch.setattr(under_test, "_SELF", tmp_path)
    assert LinuxKernelFiles().may() is expected
