from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from csi.errors import MountError
from csi.handover.channel import Peer
from csi.handover.fates import is_shown_ending
from csi.handover.inheritance import Bequest
from csi.handover.listener import SidecarListener
from csi.handover.mounting import KernelSession, MountOrder
from csi.handover.pods.attendant import PodAttendant, Surroundings
from csi.handover.pods.notes import Note
from csi.handover.pods.peers import NODE_IPC_NAMESPACE
from csi.handover.types import IncidentKind, PodReference, SidecarPlace
from csi.handover.wire import (
    Answer,
    Answering,
    Bye,
    Failed,
    Health,
    Heritage,
    Identified,
    Keeping,
    Lasting,
    Mount,
    Passing,
    Question,
    Ready,
    Session,
)
from csi.volume.units import MIB, Bytes, Seconds
from tests.support.descriptors import open_files
from tests.support.fake_kernel import FakeKernel
from tests.support.pods import Reporter
from tests.support.pretend_kernel_files import PretendKernelFiles
from tests.support.pretend_sidecar import PretendProcess, PretendSidecar
from tests.support.published_volume import until

NOTE = Note(
    pod=PodReference("uid-1", "trainer", "default"),
    place=SidecarPlace("ossfuse-data", Path("/shared"), Bytes(512 * MIB), Seconds(30.0)),
    given="as asked",
    frame=Mount(1, "vol", "hash", "{}", False, "credentials", 512 * MIB, 28.0),
    order=MountOrder("ossfuse:vol#hash", "/t", False, True),
)
OF_POD = "0::/kubepods/poduid-1/8f3a\n"


class Layers:
    """Sessions are ends of pipes; `watched` are the other ends, at end of file once nobody holds the session."""

    def __init__(self):
        self.ended = 0
        self.watched = []
        self.refuse = None

    def renew(self, order):
        if self.refuse is not None:
            raise self.refuse
        watched, given = os.pipe()
        self.watched.append(watched)
        return KernelSession(given, 40 + len(self.watched))

    def end(self, _target):
        self.ended += 1

    def minors(self, _target):
        return [40 + len(self.watched)]


class Connections:
    def __init__(self):
        self.tuned = []

    def tune(self, minor):
        self.tuned.append(minor)


class Remembered:
    def __init__(self, served=False):
        self.served = served

    def mark_served(self):
        self.served = True


class Stage:
    """An attendant whose sidecars are connections of the test; each `sidecar()` may be another process."""

    def __init__(self, directory):
        self.directory = directory
        self.layers, self.connections, self.reporter = Layers(), Connections(), Reporter()
        self.notes = Remembered()
        self.membership = OF_POD
        self.namespaces = {}
        self.found = []
        self.kept = []
        self.closables = []

    def attend(self, *, fresh=True, silence=60.0, start_limit=60.0, session="", note=NOTE, patience=60.0):
        listener = SidecarListener(
            self.directory, "s", uid=os.getuid(), gid=os.getgid(), kernel=FakeKernel(), any_user=True
        )
        around = Surroundings(
            self.layers,
            self.connections,
            self.reporter,
            self.find,
            lambda _pid: self.membership,
            lambda pid: self.namespaces.get(pid, NODE_IPC_NAMESPACE),
            Seconds(silence),
            Seconds(start_limit),
            session,
            PretendKernelFiles(),
            Seconds(patience),
        )
        session = self.layers.renew(NOTE.order) if fresh else None
        attendant = PodAttendant(note, self.notes, listener, session, around)
        attendant.start()
        self.closables.append(attendant)
        return attendant

    def find(self, pid):
        self.found.append(PretendProcess(pid))
        return self.found[-1]

    def sidecar(self):
        sidecar = PretendSidecar(self.directory)
        self.closables.insert(0, sidecar)
        return sidecar

    def serve(self):
        sidecar = self.sidecar().hello()
        assert sidecar.hear() == NOTE.frame
        sidecar.say(Ready())
        return sidecar

    def close(self):
        for closable in self.closables:
            closable.close()
        for process in self.found:
            process.close()
        for watched in self.layers.watched + self.kept:
            assert os.read(watched, 1) == b""
            os.close(watched)


@pytest.fixture
def stage(tmp_path):
    before = open_files()
    stage = Stage(tmp_path)
    yield stage
    stage.close()
    until(lambda: open_files() == before)  # a thread that ends closes its own


def test_the_first_sidecar_gets_the_session_of_the_publish_and_no_copy_is_kept(stage):
    attendant = stage.attend()
    sidecar = stage.sidecar().hello()
    assert sidecar.hear() == NOTE.frame
    assert os.read(stage.layers.watched[0], 1) == b""  # before it is ready
    sidecar.say(Ready())
    until(lambda: attendant.situation.ready and stage.connections.tuned == [41])
    assert (attendant.pid, stage.notes.served, stage.reporter.told) == (os.getpid(), True, [])


def test_a_process_that_comes_again_for_the_volume_gets_a_session_nobody_had(stage):
    stage.attend()
    stage.serve().close()
    stage.serve()
    until(lambda: len(stage.connections.tuned) == 2)
    assert stage.connections.tuned == [41, 42]


def test_a_death_is_told_and_the_session_ended(stage):
    attendant = stage.attend()
    sidecar = stage.serve()
    until(lambda: attendant.situation.ready)
    stage.found[0].end(0)
    until(lambda: attendant.situation.ended and stage.layers.ended == 1)
    assert stage.reporter.kinds() == [IncidentKind.SIDECAR_ENDED]
    assert attendant.pid is None
    sidecar.close()


def test_a_successor_that_is_there_before_the_news_of_the_death_is_served(stage):
    attendant = stage.attend()
    sidecar = stage.serve()
    until(lambda: attendant.situation.ready)
    stage.found[0].status = 0  # ended, and its pidfd has not been seen yet
    sidecar.close()
    until(lambda: not attendant.situation.connected)
    stage.serve()
    until(lambda: stage.reporter.kinds() == [IncidentKind.SIDECAR_ENDED, IncidentKind.SIDECAR_RESTARTED])
    assert not attendant.situation.ended


def test_a_death_after_goodbye_is_not_told_and_frees_whoever_waits_at_once(stage):
    attendant = stage.attend()
    sidecar = stage.serve()
    sidecar.say(Bye("SIGTERM"))
    sidecar.close()
    until(lambda: stage.layers.ended == 1)
    stage.found[0].end(0)
    until(lambda: attendant.situation.ended)
    assert (stage.layers.ended, stage.reporter.told) == (1, [])


def test_a_death_after_a_refusal_is_told_once(stage):
    attendant = stage.attend()
    sidecar = stage.sidecar().hello()
    sidecar.hear()
    sidecar.say(Failed("X", "no key", "give one"))
    until(lambda: attendant.situation.failure is not None)
    stage.found[0].end(1)
    until(lambda: attendant.situation.ended)
    assert stage.reporter.kinds() == [IncidentKind.SIDECAR_FAILED]


def test_a_process_that_connected_and_died_before_it_asked_leaves_the_session_for_the_next(stage):
    attendant = stage.attend()
    sidecar = stage.sidecar()
    until(lambda: attendant.situation.connected)
    sidecar.close()
    stage.found[0].end(9)
    until(lambda: attendant.situation.ended)
    assert (stage.layers.ended, stage.reporter.told) == (0, [])
    stage.serve()
    until(lambda: attendant.situation.ready)
    assert stage.connections.tuned == [41]


def test_a_connection_lost_and_made_again_changes_nothing(stage):
    attendant = stage.attend()
    stage.serve().close()
    until(lambda: attendant.situation.ready and not attendant.situation.connected)
    stage.sidecar().hello(resume=True, volume_id="vol", spec_hash="hash").say(Ready(), Health(1, 2, 3, 0.5))
    until(lambda: attendant.situation.health is not None)
    assert (stage.layers.ended, stage.reporter.told, len(stage.found)) == (0, [], 1)


def test_after_a_restart_of_the_node_plugin_a_sidecar_comes_back_or_comes_anew(stage):
    stage.notes.served = True
    attendant = stage.attend(fresh=False)
    assert not attendant.situation.ready
    back = stage.sidecar().hello(resume=True, volume_id="vol", spec_hash="hash").say(Ready())
    until(lambda: attendant.situation.ready)
    assert stage.reporter.told == []
    back.close()
    stage.found[0].end(0)
    until(lambda: attendant.situation.ended)
    stage.serve()
    until(lambda: stage.reporter.kinds() == [IncidentKind.SIDECAR_ENDED, IncidentKind.SIDECAR_RESTARTED])


def test_a_session_that_cannot_be_made_is_told_and_the_sidecar_turned_away(stage):
    stage.layers.refuse = MountError("full", hint="raise fs.mount-max")
    stage.attend(fresh=False)
    assert stage.sidecar().hello().hear() is None
    (incident,) = stage.reporter.of(IncidentKind.SIDECAR_FAILED)
    assert "full; raise fs.mount-max; it is tried again" in incident.message
    stage.layers.refuse = None
    stage.serve()


def test_a_process_of_nowhere_or_another_pod_is_turned_away(stage):
    attendant = stage.attend()
    stage.membership = OF_POD.replace("uid-1", "uid-2")
    assert stage.sidecar().hear() == Bye(f"process {os.getpid()} does not belong to pod uid-1")
    assert "hostPID: true" in attendant._refusal(Peer(0, 65534, 65534))
    attendant._around = replace(attendant._around, find=_gone)
    assert attendant._refusal(Peer(5, 65534, 65534)) == "process 5 has ended"
    attendant._around = replace(attendant._around, find=stage.find, membership=_gone)
    assert attendant._refusal(Peer(5, 65534, 65534)) == "process 5 does not belong to pod uid-1"


def test_silence_is_told_once_and_again_after_a_word(stage):
    attendant = stage.attend(silence=0.2)
    sidecar = stage.serve()
    until(lambda: stage.reporter.kinds() == [IncidentKind.VOLUME_DEGRADED])
    sidecar.say(Health(1, 2, 3, 0.5))
    until(lambda: len(stage.reporter.told) == 2)
    assert attendant.situation.ready


def test_one_that_talks_but_does_not_serve_is_told(stage):
    stage.attend(start_limit=0.2)
    sidecar = stage.sidecar().hello()
    assert sidecar.hear() == NOTE.frame
    until(lambda: stage.reporter.kinds() == [IncidentKind.VOLUME_DEGRADED])
    assert "and does not serve it" in stage.reporter.told[0][1].message


def test_memory_that_is_nearly_used_up_is_told(stage):
    stage.attend()
    sidecar = stage.serve()
    sidecar.say(Health(1, 2, 3, 0.5, working_set=500 * MIB))
    until(lambda: stage.reporter.kinds() == [IncidentKind.MEMORY_HIGH])


def test_closing_before_anybody_came_closes_the_session(stage):
    attendant = stage.attend()
    attendant.close()
    attendant.close()
    assert os.read(stage.layers.watched[0], 1) == b""
    assert not (stage.directory / "s").exists()


def _gone(_pid):
    raise ProcessLookupError


# --- what serves ---


def test_a_sidecar_that_chooses_is_told_what_is_to_serve_the_volume(stage):
    stage.attend(session="pyfuse3")
    sidecar = stage.sidecar().hello(chooses=True)
    assert (sidecar.hear(), sidecar.hear()) == (Session("pyfuse3"), NOTE.frame)


def test_where_nothing_is_demanded_nothing_is_said(stage):
    stage.attend()
    assert stage.sidecar().hello(chooses=True).hear() == NOTE.frame


def test_a_sidecar_that_is_too_old_to_choose_gets_its_volume_and_the_log_says_so(stage, caplog):
    stage.attend(session="pyfuse3")
    assert stage.sidecar().hello().hear() == NOTE.frame
    assert "too old to be told that pyfuse3" in caplog.text


# --- files that the kernel reads itself ---


def test_a_sidecar_of_a_volume_that_is_mounted_read_only_may_have_files_registered(stage):
    note = replace(NOTE, order=replace(NOTE.order, read_only=True))
    attendant = stage.attend(note=note, session="own")
    first = stage.sidecar().hello(passes=True, chooses=True)
    assert [first.hear() for _ in range(3)] == [Session("own"), Passing(), NOTE.frame]
    first.close()
    until(lambda: not attendant.situation.connected)
    assert stage.sidecar().hello(resume=True, volume_id="vol", spec_hash="hash", passes=True).hear() == Passing()


def test_one_of_a_volume_that_can_be_written_hears_nothing_of_that(stage):
    stage.attend()
    assert stage.sidecar().hello(passes=True).hear() == NOTE.frame


# --- what one sidecar leaves to the next ---


@pytest.fixture(autouse=True)
def _pipes_will_do(monkeypatch):
    """They show when they are closed."""
    monkeypatch.setattr(Bequest, "is_one", lambda self: True)


def serve_lasting(stage, *heard):
    """A sidecar that lasts, and the ends that show whether what it leaves is kept."""
    sidecar = stage.sidecar().hello(lasts=True)
    assert [sidecar.hear() for _ in range(len(heard) + 2)] == [Keeping(), *heard, NOTE.frame]
    watched = []
    given = []
    for _ in range(2):
        watched_end, given_end = os.pipe()
        watched.append(watched_end)
        given.append(given_end)
    sidecar.channel.send(Lasting(), given)
    for end in given:
        os.close(end)
    sidecar.say(Ready())
    stage.kept += watched
    return sidecar, watched


def die(stage, attendant, sidecar):
    until(lambda: attendant.situation.ready)
    stage.found[-1].end(0)
    until(lambda: attendant.situation.ended)
    sidecar.close()
    until(lambda: not attendant.situation.connected)


def test_a_successor_goes_on_with_what_the_dead_one_left(stage):
    attendant = stage.attend()
    sidecar, _ = serve_lasting(stage)
    die(stage, attendant, sidecar)
    assert stage.layers.ended == 0
    (ended,) = stage.reporter.of(IncidentKind.SIDECAR_ENDED)
    assert "accesses to the volume wait until kubelet has started it again" in ended.message
    serve_lasting(stage, Heritage())
    until(lambda: stage.reporter.kinds() == [IncidentKind.SIDECAR_ENDED, IncidentKind.SIDECAR_RESTARTED])
    (restarted,) = stage.reporter.of(IncidentKind.SIDECAR_RESTARTED)
    assert "programs go on with what they have open" in restarted.message
    assert (stage.layers.ended, stage.connections.tuned) == (0, [41, 41])


def test_a_successor_that_dies_before_it_serves_leaves_it_to_the_next(stage):
    attendant = stage.attend()
    sidecar, _ = serve_lasting(stage)
    die(stage, attendant, sidecar)
    successor = stage.sidecar().hello(lasts=True)
    assert [successor.hear() for _ in range(3)] == [Keeping(), Heritage(), NOTE.frame]
    successor.say(Failed("X", "no key", "give one"))
    until(lambda: attendant.situation.failure is not None)
    stage.found[-1].end(1)
    until(lambda: attendant.situation.ended)
    assert stage.layers.ended == 0
    successor.close()
    until(lambda: not attendant.situation.connected)
    serve_lasting(stage, Heritage())
    until(lambda: attendant.situation.ready)


def test_one_that_cannot_go_on_gets_a_session_nobody_had_and_nobody_waits_for_the_old_one(stage):
    attendant = stage.attend()
    sidecar, watched = serve_lasting(stage)
    die(stage, attendant, sidecar)
    stage.serve()
    until(lambda: stage.connections.tuned == [41, 42])
    assert [os.read(end, 1) for end in watched] == [b"", b""]
    (restarted,) = stage.reporter.of(IncidentKind.SIDECAR_RESTARTED)
    assert "files that were open fail with ENOTCONN" in restarted.message


def test_a_successor_that_serves_is_not_waited_for_even_if_it_leaves_nothing(stage):
    attendant = stage.attend(patience=0.3)
    sidecar, _ = serve_lasting(stage)
    die(stage, attendant, sidecar)
    successor = stage.sidecar().hello(lasts=True)
    assert [successor.hear() for _ in range(3)] == [Keeping(), Heritage(), NOTE.frame]
    successor.say(Ready())
    until(lambda: len(stage.connections.tuned) == 2)
    assert attendant._left.left is None
    assert not attendant.waits


def test_nobody_waits_longer_than_for_a_while_and_that_is_told(stage):
    attendant = stage.attend(patience=0.2)
    sidecar, watched = serve_lasting(stage)
    die(stage, attendant, sidecar)
    until(lambda: stage.layers.ended == 1)
    waiting, given_up = (incident.message for incident in stage.reporter.of(IncidentKind.SIDECAR_ENDED))
    assert "accesses to the volume wait" in waiting
    assert "accesses to the volume fail" in given_up
    assert [os.read(end, 1) for end in watched] == [b"", b""]


def test_goodbye_leaves_nothing(stage):
    attendant = stage.attend()
    sidecar, watched = serve_lasting(stage)
    until(lambda: attendant.situation.ready)
    sidecar.say(Bye("SIGTERM"))
    sidecar.close()
    until(lambda: stage.layers.ended == 1)
    assert [os.read(end, 1) for end in watched] == [b"", b""]


# --- what it asks ---


def test_a_sidecar_learns_of_processes_of_its_own_pod_only(stage):
    stage.attend()
    sidecar = stage.sidecar().hello(asks=True)
    assert (sidecar.hear(), sidecar.hear()) == (NOTE.frame, Answering())
    sidecar.say(Question(1, os.getpid(), 0))
    told = sidecar.hear()
    assert told == Answer(1, os.getpid(), told.started)
    assert told.started > 0
    stage.membership = "0::/kubepods/poduid-2/8f3a\n"
    assert sidecar.say(Question(2, os.getpid(), 0)).hear() == Answer(2)


def test_a_sidecar_that_watches_gets_the_status_of_the_process_with_the_answer(stage):
    stage.attend()
    sidecar = stage.sidecar().hello(asks=True, watches=True)
    assert (sidecar.hear(), sidecar.hear()) == (NOTE.frame, Answering())
    received = sidecar.say(Question(1, os.getpid(), 0)).channel.receive(Seconds(20.0))
    started = received.message.started
    assert received.message == Identified(1, os.getpid(), started)
    assert is_shown_ending(received.descriptor, started) is False
    received.close()
    assert sidecar.say(Question(2, os.getpid(), started)).hear() == Answer(2)
    stage.membership = "0::/kubepods/poduid-2/8f3a\n"
    assert sidecar.say(Question(3, os.getpid(), 0)).hear() == Answer(3)


@pytest.mark.parametrize(
    ("namespaces", "told"),
    [
        ({7: "ipc:[2]", "sidecar": "ipc:[2]"}, True),
        ({7: "ipc:[3]", "sidecar": "ipc:[2]"}, False),
        ({}, False),  # hostIPC: everybody is in the node's own
    ],
    ids=["of the pod", "of another", "of the node"],
)
def test_a_process_without_a_cgroup_is_known_by_the_namespace_that_its_pod_shares(stage, namespaces, told):
    """cgroup v1 shows a process that is exiting as one of no group."""
    attendant = stage.attend()
    sidecar = stage.sidecar().hello(asks=True)
    assert (sidecar.hear(), sidecar.hear()) == (NOTE.frame, Answering())
    stage.namespaces = {attendant.pid if who == "sidecar" else who: name for who, name in namespaces.items()}
    stage.membership = "4:memory:/\n0::/\n"
    assert attendant._may_tell(7) is told
