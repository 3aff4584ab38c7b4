from __future__ import annotations

import errno
import os
import socket

import pytest

from csi.errors import DeadlineExceeded, SidecarFailed
from csi.handover.attendant import Attendant, Attended
from csi.handover.cgroup import MemoryCgroup
from csi.handover.conversation import Handover
from csi.handover.inheritance import Bequest, Inheritance
from csi.handover.listener import SidecarListener
from csi.handover.wire import (
    Answer,
    Answering,
    Bye,
    Drain,
    Failed,
    Health,
    Heritage,
    Keeping,
    Lasting,
    Mount,
    Passing,
    Question,
    Ready,
    Register,
    Registered,
    Unregister,
    encode,
)
from csi.volume.units import Seconds
from tests.support.descriptors import open_files
from tests.support.fake_kernel import FakeKernel
from tests.support.pretend_kernel_files import PretendKernelFiles
from tests.support.pretend_sidecar import SOON, PretendProcess, PretendSidecar

MOUNT = Mount(1, "vol", "hash", "{}", False, "credentials", 256 << 20, 30.0)


class Stage:
    """An attendant in a directory of its own, with a descriptor to give away that the test can watch."""

    def __init__(self, directory):
        self.directory = directory
        self.cgroup = directory / "cgroup"
        self.cgroup.mkdir()
        self.process = PretendProcess()
        self.files = PretendKernelFiles()
        self.closables = []

    def attend(self, *, handover=True, read_only=True, patience=0.0):
        runtime = self.directory / "runtime"
        runtime.mkdir(exist_ok=True)
        listener = SidecarListener(runtime, "s", uid=os.getuid(), gid=os.getgid(), kernel=FakeKernel())
        attended = Attended("vol", "hash", self.process, MemoryCgroup(self.cgroup, 2), listener, read_only, 45)
        self.watched, given = os.pipe()
        if not handover:
            os.close(given)
        self.inheritance = Inheritance(patience) if patience else None
        attendant = Attendant(
            attended, Handover(MOUNT, given) if handover else None, self.files, inheritance=self.inheritance
        )
        attendant.start()
        self.closables.append(attendant)
        return attendant

    def sidecar(self):
        sidecar = PretendSidecar(self.directory / "runtime")
        self.closables.insert(0, sidecar)
        return sidecar

    def kill_for_memory(self):
        (self.cgroup / "memory.max").write_text(str(256 << 20))
        (self.cgroup / "memory.events").write_text("oom_kill 1\n")
        self.process.end(-9)

    def nobody_holds_the_descriptor(self):
        return os.read(self.watched, 1) == b""  # end of file: the last writing end is closed

    def close(self):
        for closable in self.closables:
            closable.close()
        self.process.close()
        os.close(self.watched)


@pytest.fixture
def stage(tmp_path):
    before = open_files()
    stage = Stage(tmp_path)
    yield stage
    stage.close()
    assert open_files() == before


def until(attendant, condition):
    with attendant._changed:
        assert attendant._changed.wait_for(lambda: condition(attendant._situation), SOON)
        return attendant._situation


def test_a_sidecar_gets_the_volume_and_becomes_ready(stage):
    attendant = stage.attend()
    sidecar = stage.sidecar().hello()
    assert sidecar.hear() == MOUNT
    sidecar.say(Ready())
    attendant.wait_ready(SOON)
    assert attendant.situation.connected


def test_the_node_plugin_keeps_no_copy_of_the_descriptor_after_ready(stage):
    attendant = stage.attend()
    stage.sidecar().hello().say(Ready()).hear()
    attendant.wait_ready(SOON)
    assert stage.nobody_holds_the_descriptor()


def test_a_refusal_is_an_error_with_the_sidecars_words(stage):
    attendant = stage.attend()
    stage.sidecar().hello().say(Failed("BucketNotFound", "no bucket named x", "create it")).hear()
    with pytest.raises(SidecarFailed, match="refused the volume: no bucket named x; create it"):
        attendant.wait_ready(SOON)
    assert stage.nobody_holds_the_descriptor()


def test_a_sidecar_that_dies_before_it_is_ready_is_an_error_with_its_status(stage):
    attendant = stage.attend()
    stage.process.end(7)
    with pytest.raises(SidecarFailed, match="ended before it was ready with exit status 7") as caught:
        attendant.wait_ready(SOON)
    assert not caught.value.oom
    assert stage.nobody_holds_the_descriptor()


def test_a_sidecar_killed_for_memory_is_an_error_that_names_limit_and_key(stage):
    attendant = stage.attend()
    stage.kill_for_memory()
    with pytest.raises(SidecarFailed, match=r"limit of 256Mi; raise fs\.jindo\.fuse\.pod\.mem\.limit") as caught:
        attendant.wait_ready(SOON)
    assert caught.value.oom


def test_a_sidecar_that_says_nothing_runs_into_the_deadline(stage):
    attendant = stage.attend()
    stage.sidecar().hello()
    with pytest.raises(DeadlineExceeded, match="was not ready after"):
        attendant.wait_ready(Seconds(0.05))


def test_last_words_are_heard_before_the_death(stage):
    attendant = stage.attend()
    stage.sidecar().hello().say(Failed("X", "the reason", ""), Bye("leaving"))
    stage.process.end(1)
    situation = until(attendant, lambda now: now.ended)
    assert situation.failure == Failed("X", "the reason", "")
    assert situation.farewell == "leaving"


def test_a_second_sidecar_is_turned_away(stage):
    stage.attend()
    first = stage.sidecar().hello()
    assert first.hear() == MOUNT
    second = stage.sidecar()
    assert second.hear() == Bye("this volume has a sidecar already")
    assert second.hear() is None


def test_a_process_that_is_not_the_sidecar_is_turned_away(stage):
    stage.process.pid = 1
    stage.attend()
    stranger = stage.sidecar()
    assert stranger.hear() == Bye(f"process {os.getpid()} is not the sidecar of this volume")


@pytest.mark.parametrize(
    "fields",
    [
        {"resume": True, "volume_id": "other", "spec_hash": "hash"},
        {"resume": True, "volume_id": "vol", "spec_hash": "other"},
    ],
    ids=["another volume", "other options"],
)
def test_a_greeting_that_does_not_fit_ends_the_connection(stage, fields):
    attendant = stage.attend()
    assert stage.sidecar().hello(**fields).hear() is None
    assert not attendant.situation.ready


def test_a_sidecar_of_another_version_is_told_so_and_given_nothing(stage):
    attendant = stage.attend()
    stranger = stage.sidecar().hello(version=2)
    assert stranger.hear() == Bye("the sidecar speaks version 2, this node plugin 1")
    assert stranger.hear() is None
    assert not attendant.situation.ready


def test_garbage_ends_the_connection_and_a_proper_sidecar_still_gets_in(stage):
    stage.attend()
    rude = stage.sidecar()
    rude.channel._socket.send(b"GET / HTTP/1.1\r\n\r\n")
    assert rude.hear() is None
    assert stage.sidecar().hello().hear() == MOUNT


def test_the_descriptor_is_given_away_once_ready_is_said(stage):
    attendant = stage.attend()
    first = stage.sidecar().hello().say(Ready())
    assert first.hear() == MOUNT
    attendant.wait_ready(SOON)
    first.close()
    until(attendant, lambda now: not now.connected)
    assert stage.sidecar().hello().hear() is None


def test_a_sidecar_that_lost_the_connection_may_come_back(stage):
    attendant = stage.attend()
    first = stage.sidecar().hello().say(Ready())
    first.hear()
    attendant.wait_ready(SOON)
    first.close()
    until(attendant, lambda now: not now.connected)
    stage.sidecar().hello(resume=True, volume_id="vol", spec_hash="hash").say(Health(1, 2, 3, 0.5))
    assert until(attendant, lambda now: now.health is not None).health == Health(1, 2, 3, 0.5)


def test_a_sidecar_found_running_is_ready_and_may_come_back(stage):
    attendant = stage.attend(handover=False)
    attendant.wait_ready(SOON)
    stage.sidecar().hello(resume=True, volume_id="vol", spec_hash="hash").say(Health(1, 2, 3, 0.5))
    until(attendant, lambda now: now.health is not None and now.connected)


def test_a_sidecar_is_asked_to_leave(stage):
    attendant = stage.attend()
    sidecar = stage.sidecar().hello().say(Ready())
    sidecar.hear()
    attendant.wait_ready(SOON)
    assert attendant.drain(Seconds(12.0))
    assert sidecar.hear() == Drain(12.0)


def test_nobody_can_be_asked_to_leave_when_nobody_is_connected(stage):
    assert not stage.attend().drain(Seconds(1.0))


def test_the_end_of_the_process_is_noticed(stage):
    attendant = stage.attend()
    assert not attendant.wait_ended(Seconds(0.01))
    stage.process.end(-15)
    assert attendant.wait_ended(SOON)
    assert attendant.last_words() == ", killed by signal 15"


def test_closing_lets_go_of_everything(stage):
    attendant = stage.attend()
    sidecar = stage.sidecar().hello()
    assert sidecar.hear() == MOUNT
    attendant.close()
    attendant.close()
    assert sidecar.hear() is None
    assert stage.nobody_holds_the_descriptor()
    assert not (stage.directory / "runtime" / "s").exists()


def test_one_that_was_never_started_can_be_closed(stage):
    attendant = stage.attend()
    attendant.close()
    fresh = Attendant(attendant.attended, None)
    fresh.close()


def test_a_sidecar_that_asks_is_answered(stage):
    stage.attend()
    sidecar = stage.sidecar().hello(asks=True)
    assert sidecar.hear() == MOUNT
    assert sidecar.hear() == Answering()
    sidecar.say(Question(5, os.getpid(), 0))
    told = sidecar.hear()
    assert (told.serial, told.process) == (5, os.getpid())
    sidecar.say(Question(6, told.process, told.started))
    assert sidecar.hear() == Answer(6)


def test_a_sidecar_that_comes_back_and_asks_is_answered(stage):
    stage.attend(handover=False)
    sidecar = stage.sidecar().hello(resume=True, volume_id="vol", spec_hash="hash", asks=True)
    assert sidecar.hear() == Answering()


def test_a_sidecar_of_an_older_version_hears_nothing_it_does_not_know(stage):
    attendant = stage.attend()
    sidecar = stage.sidecar().hello()
    assert sidecar.hear() == MOUNT
    sidecar.say(Ready())
    until(attendant, lambda now: now.ready)
    attendant.drain(Seconds(3.0))
    assert sidecar.hear() == Drain(3.0)


# --- files that the kernel reads itself ---


def test_a_sidecar_that_passes_files_is_told_so_before_the_volume_and_when_it_comes_back(stage):
    attendant = stage.attend()
    first = stage.sidecar().hello(passes=True)
    assert (first.hear(), first.hear()) == (Passing(), MOUNT)
    first.close()
    until(attendant, lambda now: not now.connected)
    assert stage.sidecar().hello(resume=True, volume_id="vol", spec_hash="hash", passes=True).hear() == Passing()


@pytest.mark.parametrize(
    ("read_only", "allowed"), [(False, True), (True, False)], ids=["it can be written", "the kernel would refuse"]
)
def test_where_nothing_is_passed_nothing_is_said_of_it(stage, read_only, allowed):
    stage.files.allowed = allowed
    stage.attend(read_only=read_only)
    assert stage.sidecar().hello(passes=True).hear() == MOUNT


def test_what_comes_behind_nonsense_is_closed(stage):
    stage.attend()
    sidecar = stage.sidecar().hello()
    assert sidecar.hear() == MOUNT
    with open(__file__, "rb") as file:
        data = encode(Drain(1.0)) + encode(Register(1))
        socket.send_fds(sidecar.channel._socket, [data], [file.fileno(), file.fileno()])
    assert sidecar.hear() is None  # and the fixture looks for descriptors that are left


def test_a_file_is_registered_and_given_back_and_no_descriptor_of_it_or_of_the_device_kept(stage):
    stage.attend()
    sidecar = stage.sidecar().hello(passes=True)
    assert (sidecar.hear(), sidecar.hear()) == (Passing(), MOUNT)
    device, file = os.open("/dev/fuse", os.O_RDWR), os.open(__file__, os.O_RDONLY)
    sidecar.say(Question(1, os.getpid(), 0)).hear()  # the volume's own descriptor is closed by now
    before = open_files()
    sidecar.channel.send(Register(1), (device, file))
    assert sidecar.hear() == Registered(1, number=1)
    sidecar.channel.send(Unregister(2, 1), (device,))
    assert sidecar.hear() == Registered(2)
    sidecar.channel.send(Register(3), (file, file))
    assert sidecar.hear() == Registered(3, error=errno.EINVAL)
    sidecar.say(Question(2, os.getpid(), 0)).hear()  # and what came before it is done with
    assert open_files() == before
    os.close(device)
    os.close(file)


# --- what it leaves to the next one ---


@pytest.fixture(autouse=True)
def _pipes_will_do(monkeypatch):
    """They show when they are closed."""
    monkeypatch.setattr(Bequest, "is_one", lambda self: True)


def leave(stage, sidecar):
    """The sidecar says what it leaves; the ends that show whether somebody keeps it."""
    device, kept = os.pipe()
    journal, noted = os.pipe()
    sidecar.channel.send(Lasting(), (kept, noted))
    os.close(kept)
    os.close(noted)
    return device, journal


def nobody_keeps(*ends):
    return all(os.read(end, 1) == b"" for end in ends) and [os.close(end) for end in ends]


def test_only_a_sidecar_that_lasts_is_told_that_what_it_leaves_is_kept(stage):
    stage.attend(patience=60.0)
    assert stage.sidecar().hello().hear() == MOUNT


def test_where_nobody_goes_on_nothing_is_kept(stage):
    stage.attend()
    sidecar = stage.sidecar().hello(lasts=True)
    assert sidecar.hear() == MOUNT
    ends = leave(stage, sidecar)
    assert nobody_keeps(*ends)
    assert sidecar.hear() is None  # it said what nobody had asked for


def test_what_a_dead_sidecar_left_is_there_for_the_next_one(stage):
    attendant = stage.attend(patience=60.0)
    sidecar = stage.sidecar().hello(lasts=True)
    assert (sidecar.hear(), sidecar.hear()) == (Keeping(), MOUNT)
    ends = leave(stage, sidecar)
    sidecar.say(Ready())
    attendant.wait_ready(SOON)
    assert attendant.bequeath() is None  # it lives
    stage.process.end(-9)
    until(attendant, lambda now: now.ended)
    inheritance = attendant.bequeath()
    assert inheritance is stage.inheritance
    attendant.close()
    left = inheritance.take()
    assert [os.fstat(left.device).st_ino, os.fstat(left.journal).st_ino] == [os.fstat(end).st_ino for end in ends]
    left.close()
    inheritance.drop()
    assert nobody_keeps(*ends)


def test_the_next_one_gets_the_journal_before_the_volume(stage):
    journal, noted = os.pipe()
    runtime = stage.directory / "runtime"
    attendant = stage.attend(handover=False)
    attendant.close()
    attended = attendant.attended
    listener = SidecarListener(runtime, "s", uid=os.getuid(), gid=os.getgid(), kernel=FakeKernel())
    device, kept = os.pipe()
    going_on = Attendant(
        Attended("vol", "hash", stage.process, attended.memory, listener, True, 45),
        Handover(MOUNT, Bequest(kept, noted)),
        stage.files,
        inheritance=Inheritance(Seconds(60.0)),
    )
    going_on.start()
    stage.closables.append(going_on)
    sidecar = stage.sidecar().hello(lasts=True)
    assert [sidecar.hear() for _ in range(3)] == [Keeping(), Heritage(), MOUNT]
    assert going_on.went_on
    assert nobody_keeps(device, journal)


def test_a_sidecar_that_cannot_go_on_gets_nothing_of_what_was_left(stage):
    journal, noted = os.pipe()
    device, kept = os.pipe()
    attendant = stage.attend(handover=False)
    attendant._handover = Handover(MOUNT, Bequest(kept, noted))
    attendant.went_on = True
    assert stage.sidecar().hello().hear() is None
    attendant.close()
    assert nobody_keeps(device, journal)


def test_what_is_of_no_use_is_closed_and_the_sidecar_stays(stage, monkeypatch):
    monkeypatch.setattr(Bequest, "is_one", lambda self: False)
    attendant = stage.attend(patience=60.0)
    sidecar = stage.sidecar().hello(lasts=True)
    ends = leave(stage, sidecar)
    assert nobody_keeps(*ends)
    sidecar.say(Ready())
    attendant.wait_ready(SOON)


def test_what_nobody_comes_for_in_time_is_given_up(stage):
    attendant = stage.attend(patience=0.05)
    sidecar = stage.sidecar().hello(lasts=True)
    ends = leave(stage, sidecar)
    sidecar.say(Ready())
    attendant.wait_ready(SOON)
    stage.process.end(-9)
    assert nobody_keeps(*ends)


def test_a_sidecar_that_said_goodbye_leaves_nothing(stage):
    attendant = stage.attend(patience=60.0)
    sidecar = stage.sidecar().hello(lasts=True)
    ends = leave(stage, sidecar)
    sidecar.say(Ready(), Bye("the mount is gone"))
    until(attendant, lambda now: now.farewell)
    stage.process.end(0)
    until(attendant, lambda now: now.ended)
    assert attendant.bequeath() is None
    assert nobody_keeps(*ends)


def test_one_that_comes_back_is_asked_for_it_again(stage):
    attendant = stage.attend(handover=False, patience=60.0)
    sidecar = stage.sidecar().hello(resume=True, volume_id="vol", spec_hash="hash", lasts=True)
    assert sidecar.hear() == Keeping()
    ends = leave(stage, sidecar)
    sidecar.say(Ready())
    attendant.wait_ready(SOON)
    attendant.close()
    assert nobody_keeps(*ends)
