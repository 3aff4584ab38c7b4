from __future__ import annotations

import os
import select
import socket
import stat

import pytest

from csi.errors import MountError
from csi.handover.channel import Peer
from csi.handover.kernel import LinuxKernel
from csi.handover.listener import SidecarListener
from csi.handover.wire import Hello
from tests.support.descriptors import open_files
from tests.support.fake_kernel import FakeKernel
from tests.support.pretend_sidecar import SOON, PretendSidecar


@pytest.fixture(params=["open_tree", "directory"])
def kernel(request):
    return LinuxKernel() if request.param == "open_tree" else FakeKernel()


def listen(directory, kernel, uid=None):
    return SidecarListener(directory, "s", uid=os.getuid() if uid is None else uid, gid=os.getgid(), kernel=kernel)


def accept(listener):
    assert select.select([listener], [], [], SOON)[0]
    return listener.accept()


def test_a_sidecar_of_the_right_user_is_heard(tmp_path, kernel):
    listener = listen(tmp_path, kernel)
    sidecar = PretendSidecar(tmp_path).hello()
    channel = accept(listener)
    assert channel.receive(SOON).message == Hello(1, os.getpid())
    for closable in (sidecar, channel, listener):
        closable.close()


def test_a_path_of_200_characters_and_more_works(tmp_path, kernel):
    directory = tmp_path / ("d" * 100) / ("e" * 120)
    directory.mkdir(parents=True)
    assert len(str(directory / "s")) > 220
    listener = listen(directory, kernel)
    sidecar = PretendSidecar(directory).hello()
    channel = accept(listener)
    assert channel is not None
    for closable in (sidecar, channel, listener):
        closable.close()


def test_the_socket_is_for_its_owner_only(tmp_path, kernel):
    listener = listen(tmp_path, kernel)
    found = os.lstat(tmp_path / "s")
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.getuid()
    listener.close()
    listener.close()
    assert not (tmp_path / "s").exists()


def test_another_user_is_closed_unheard(tmp_path, kernel, caplog):
    listener = listen(tmp_path, kernel)
    listener._uid = os.getuid() + 1
    sidecar = PretendSidecar(tmp_path)
    assert accept(listener) is None
    assert sidecar.channel.receive(SOON) is None
    assert f"from uid {os.getuid()} (pid {os.getpid()}) refused" in caplog.text
    sidecar.close()
    listener.close()


def test_a_stale_socket_is_replaced(tmp_path, kernel):
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "s"))
    stale.close()
    listener = listen(tmp_path, kernel)
    PretendSidecar(tmp_path).close()
    listener.close()


def test_a_file_that_is_no_socket_is_not_removed(tmp_path, kernel):
    (tmp_path / "s").write_text("precious")
    with pytest.raises(MountError, match="cannot listen on"):
        listen(tmp_path, kernel)
    assert (tmp_path / "s").read_text() == "precious"


def test_nobody_there_is_none(tmp_path, kernel):
    listener = listen(tmp_path, kernel)
    assert listener.accept() is None
    listener.close()


def test_a_failed_listener_leaves_no_descriptor_open(tmp_path, kernel):
    (tmp_path / "s").mkdir()
    before = open_files()
    with pytest.raises(MountError):
        listen(tmp_path, kernel)
    assert open_files() == before


def test_where_users_tell_nothing_any_of_them_is_heard_and_can_be_looked_at(tmp_path, kernel):
    listener = SidecarListener(tmp_path, "s", uid=os.getuid() + 1, gid=os.getgid(), kernel=kernel, any_user=True)
    sidecar = PretendSidecar(tmp_path).hello()
    channel = accept(listener)
    assert channel.peer == Peer(os.getpid(), os.getuid(), os.getgid())
    for closable in (sidecar, channel, listener):
        closable.close()
