from __future__ import annotations

import errno
import os

import pytest

from csi.errors import MountError
from csi.handover.mounting import Mounter, MountOrder
from csi.handover.pods.layers import Layers
from csi.handover.unmount import Unmounter
from tests.support.descriptors import open_files
from tests.support.fake_kernel import FakeKernel

ORDER = MountOrder("ossfuse:vol#hash", "/t", False, True)


class Connections:
    unreachable = False

    def __init__(self):
        self.aborted = []

    def abort(self, minor):
        self.aborted.append(minor)
        return True


@pytest.fixture
def stage():
    class Stage:
        kernel = FakeKernel()
        connections = Connections()
        followed = ()

        def __init__(self):
            unmounter = Unmounter(self.kernel, self.connections, self.kernel.entries)
            self.layers = Layers(
                Mounter(self.kernel, unmounter), unmounter, self.connections, lambda minor, _: minor in self.followed
            )

    return Stage()


def test_a_first_session_is_a_mount_on_the_bare_target(stage):
    session = stage.layers.renew(ORDER)
    assert stage.layers.minors("/t") == [session.minor]
    assert stage.connections.aborted == []


def test_the_first_stays_and_only_the_last_is_above_it(stage):
    minors = [stage.layers.renew(ORDER).minor for _ in range(4)]
    assert stage.layers.minors("/t") == [minors[0], minors[3]]


def test_whatever_was_there_is_aborted_before_it_is_followed(stage):
    first = stage.layers.renew(ORDER).minor
    second = stage.layers.renew(ORDER).minor
    assert stage.connections.aborted == [first]
    stage.layers.renew(ORDER)
    assert stage.connections.aborted == [first, first, second]


def test_one_that_a_container_follows_stays(stage):
    minors = [stage.layers.renew(ORDER).minor for _ in range(2)]
    stage.followed = (minors[1],)
    minors += [stage.layers.renew(ORDER).minor for _ in range(2)]
    assert stage.layers.minors("/t") == [minors[0], minors[1], minors[3]]


def test_many_of_them_are_told_in_the_log(stage, caplog):
    stage.followed = range(1000)
    for _ in range(9):
        stage.layers.renew(ORDER)
    assert "/t has 8 mounts one upon another: restart the pod" in caplog.text


def test_mounts_of_others_are_not_aborted(stage):
    stage.kernel.mount("server:/export", "/t", "nfs", 0, "")
    stage.layers.end("/t")
    assert stage.connections.aborted == []


def test_a_mount_that_is_refused_is_an_error_and_the_first_is_still_there(stage):
    first = stage.layers.renew(ORDER).minor
    stage.kernel.refuse = {"mount": [errno.ENOSPC]}
    stage.kernel.open_fuse_device = lambda: os.open(os.devnull, os.O_RDWR)
    before = open_files()
    with pytest.raises(MountError):
        stage.layers.renew(ORDER)
    assert open_files() == before
    assert stage.layers.minors("/t") == [first]
