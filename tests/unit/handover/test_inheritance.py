from __future__ import annotations

import os

import pytest

from csi.handover.inheritance import WAIT, Bequest, Inheritance
from csi.volume.units import Seconds


class Stage:
    """What is kept are the ends of pipes."""

    def __init__(self):
        self.now = 100.0
        self.inheritance = Inheritance(clock=lambda: self.now)
        self.watched = []

    def serve(self):
        """A sidecar lasts."""
        ends = [os.pipe(), os.pipe()]
        self.watched = [watched for watched, _ in ends]
        self.inheritance.keep(Bequest(*(kept for _, kept in ends)))

    def is_kept(self):
        return [not _at_end(watched) for watched in self.watched]

    def go_on(self):
        """A successor takes what is left, and lasts."""
        left = self.inheritance.take()
        assert left is not None
        self.inheritance.keep(left)


def _at_end(watched):
    os.set_blocking(watched, False)
    try:
        return os.read(watched, 1) == b""
    except BlockingIOError:
        return False


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.inheritance.drop()
    assert not any(stage.is_kept())
    for watched in stage.watched:
        os.close(watched)


def test_nothing_is_left_by_one_that_never_served(stage):
    assert not stage.inheritance.died()
    assert stage.inheritance.take() is None
    assert stage.inheritance.left is None


def test_nothing_can_be_taken_of_one_that_lives(stage):
    stage.serve()
    assert stage.inheritance.take() is None
    assert stage.inheritance.left is None
    assert stage.is_kept() == [True, True]


def test_who_uses_the_volume_waits_for_a_while_after_a_death(stage):
    stage.serve()
    stage.now += 60
    assert stage.inheritance.died()
    stage.now += 40
    assert stage.inheritance.died()  # said twice
    assert (stage.inheritance.left, stage.inheritance.is_over) == (Seconds(WAIT - 40), False)
    stage.now += 6
    assert (stage.inheritance.left, stage.inheritance.is_over) == (0.0, True)


def test_a_successor_has_as_long_for_its_start(stage):
    stage.serve()
    stage.now += 60
    stage.inheritance.died()
    stage.now += 44
    left = stage.inheritance.take()
    stage.now += 44
    assert not stage.inheritance.is_over
    left.close()
    stage.now += 2
    assert stage.inheritance.is_over


def test_one_that_goes_on_leaves_it_to_another(stage):
    stage.serve()
    for _ in range(10):
        stage.now += 5
        assert stage.inheritance.died()
        stage.go_on()
        assert stage.inheritance.left is None
    assert stage.is_kept() == [True, True]


def test_nobody_waits_for_a_successor_when_one_after_the_other_dies_at_once(stage):
    stage.serve()
    stage.now += 60
    assert stage.inheritance.died()
    for _ in range(9):
        stage.go_on()
        stage.now += 0.1
        assert stage.inheritance.died()
    stage.go_on()
    stage.now += 0.1
    assert not stage.inheritance.died()
    assert stage.is_kept() == [False, False]


def test_one_that_dies_before_it_serves_counts_as_one_that_died_at_once(stage):
    stage.serve()
    stage.now += 60
    assert stage.inheritance.died()
    for _ in range(9):
        stage.inheritance.take().close()
        stage.now += 20
        assert stage.inheritance.died()
    stage.inheritance.take().close()
    assert not stage.inheritance.died()


def test_a_successor_that_did_not_get_it_may_come_again(stage):
    stage.serve()
    stage.inheritance.died()
    stage.inheritance.take().close()
    assert stage.inheritance.take() is None
    stage.inheritance.give_back()
    stage.inheritance.take().close()


def test_one_that_serves_is_not_waited_for_although_it_left_nothing_itself(stage):
    stage.serve()
    stage.now += 60
    stage.inheritance.died()
    stage.inheritance.take().close()
    stage.inheritance.serves()
    stage.now += 100
    assert stage.inheritance.left is None
    assert stage.is_kept() == [True, True]
    assert stage.inheritance.died()


def test_it_is_given_up_when_none_of_many_serves_for_long(stage):
    stage.serve()
    stage.now += 60
    began = stage.now
    while stage.inheritance.died() and not stage.inheritance.is_over:
        stage.now += 20
        if stage.inheritance.is_over:
            break
        stage.go_on()
        stage.now += 5
        assert stage.now - began < 1000
    assert stage.now - began == pytest.approx(300, abs=25)


def test_what_a_sidecar_leaves_has_to_be_a_device_and_memory(tmp_path):
    memory, device, other = os.memfd_create("j"), os.open("/dev/fuse", os.O_RDWR), os.open(tmp_path, os.O_RDONLY)
    file = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    pipe = os.pipe()
    assert Bequest(device, memory).is_one()
    assert [Bequest(one, memory).is_one() for one in (other, file, memory, *pipe)] == [False] * 5
    assert [Bequest(device, one).is_one() for one in (other, device, *pipe)] == [False] * 4
    for descriptor in (memory, device, other, file, *pipe):
        os.close(descriptor)
