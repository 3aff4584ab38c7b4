"""A sidecar of a pod ends and kubelet starts it again; the node plugin ends and another one takes over."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from csi.errors import MountError
from csi.handover.kernel import LinuxKernel
from csi.handover.types import IncidentKind
from csi.volume.units import MIB
from tests.support.descriptors import open_files
from tests.support.node import DEADLINE
from tests.support.pods import is_served, request_for, serve
from tests.support.published_volume import SOURCE_ROOT, until


def restart(plugin, pod):
    sidecar = pod.start_sidecar()
    until(lambda: pod.is_ready() and is_served(plugin, pod))
    return sidecar


def forget(pods):
    """The state directory's notes are lost."""
    for path in pods.state.glob("[0-9a-f]*"):
        shutil.rmtree(path)


def ended(plugin, pod):
    condition = plugin.condition("vol-pod", pod.target)
    return condition.abnormal and condition.sidecar_pid is None


# --- the sidecar ---


def test_a_container_sees_the_new_mount_after_the_sidecar_was_killed(pods):
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    application = pod.start_application()
    assert application.ask("hold", "hello.txt") == "held"
    sidecar.kill()
    until(lambda: ended(plugin, pod))
    assert "ended: accesses fail until kubelet has started it again" in plugin.condition("vol-pod", pod.target).message
    assert application.ask("read", "hello.txt") == "ENOTCONN"
    restart(plugin, pod)
    assert application.ask("again") in ("ENOTCONN", "ECONNABORTED")  # what was open is lost
    assert application.ask("read", "hello.txt") == "hello, world"
    assert not plugin.condition("vol-pod", pod.target).abnormal
    until(lambda: pods.reporter.kinds() == [IncidentKind.SIDECAR_ENDED, IncidentKind.SIDECAR_RESTARTED])
    (incident,) = pods.reporter.of(IncidentKind.SIDECAR_RESTARTED)
    assert "files that were open fail with ENOTCONN, files opened from now on work" in incident.message
    assert (incident.container, incident.memory_limit) == ("ossfuse-data", pod.limit)


def test_many_deaths_make_no_more_than_two_layers_and_the_container_sees_each_new_one(pods):
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    application = pod.start_application()
    first = pod.minors()[0]
    for _ in range(4):
        sidecar.kill()
        until(lambda: ended(plugin, pod))
        sidecar = restart(plugin, pod)
        assert application.ask("read", "hello.txt") == "hello, world"
        assert (pod.layers(), pod.minors()[0]) == (2, first)


def test_a_container_started_on_the_second_layer_sees_the_third_as_well_as_an_older_container_does(pods):
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    older = pod.start_application()
    sidecar.kill()
    sidecar = restart(plugin, pod)
    younger = pod.start_application()
    sidecar.kill()
    until(lambda: ended(plugin, pod))
    sidecar = restart(plugin, pod)
    assert older.ask("read", "hello.txt") == "hello, world"
    assert younger.ask("read", "hello.txt") == "hello, world"
    assert pod.layers() == 3
    younger.end()
    sidecar.kill()
    until(lambda: ended(plugin, pod))
    restart(plugin, pod)
    assert older.ask("read", "hello.txt") == "hello, world"
    assert pod.layers() == 2  # nobody follows those in between any more


def test_a_container_started_between_two_sidecars_sees_the_second(pods):
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod).kill()
    until(lambda: ended(plugin, pod))
    application = pod.start_application()
    assert application.ask("list") == "ENOTCONN"
    restart(plugin, pod)
    assert application.ask("list") == "hello.txt"


def test_a_restarted_sidecar_takes_ready_back_before_it_has_the_volume(pods):
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod).kill()
    assert pod.is_ready()
    until(lambda: ended(plugin, pod))
    (attendant,) = plugin._attendants.values()
    attendant._listener.path.unlink()  # nobody can offer it the volume
    pod.start_sidecar()
    until(lambda: not pod.is_ready())


def test_sigterm_ends_it_with_goodbye_and_frees_whoever_waits_without_another_mount(pods):
    """Trap 2a: a job ends at once."""
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    application = pod.start_application()
    application.ask("hold", "hello.txt")
    sidecar.signal(signal.SIGTERM)
    assert sidecar.wait() == 0
    assert "flushed with 28 s" in pods.log()  # the pod's 30 without the 2 to end in
    assert application.ask("again") in ("ENOTCONN", "ECONNABORTED")
    plugin.publish(request_for(pod), DEADLINE)  # kubelet does, until it unpublishes
    assert pod.layers() == 1
    assert pods.reporter.kinds() == []


def test_one_that_said_goodbye_and_is_started_again_is_served_again(pods):
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    application = pod.start_application()
    sidecar.signal(signal.SIGTERM)
    assert sidecar.wait() == 0
    restart(plugin, pod)
    assert application.ask("read", "hello.txt") == "hello, world"


@pytest.mark.parametrize("when", ["before the publish", "while nobody listens", "while it was told nothing"])
def test_sigterm_before_there_is_a_volume_is_an_orderly_end(pods, when):
    plugin, pod, speak = pods.start(), pods.pod(), threading.Event()

    def told(_hello):
        speak.wait(30)

    if when != "before the publish":
        plugin.publish(request_for(pod), DEADLINE)
        (attendant,) = plugin._attendants.values()
        if when == "while nobody listens":
            attendant.close()
        else:
            attendant._hand_over = told
    sidecar = pod.start_sidecar()
    until(lambda: _blocks_sigterm(sidecar.pid))
    if when == "while it was told nothing":
        until(lambda: attendant.situation.connected)
    sidecar.signal(signal.SIGTERM)
    assert sidecar.wait() == 0
    if when == "while it was told nothing":
        speak.set()


def test_one_that_dies_with_the_volume_in_its_hands_before_it_serves_gets_another(pods):
    plugin, pod = pods.start(), pods.pod()
    plugin.publish(request_for(pod, "crashes"), DEADLINE)
    for number in (1, 2, 3):
        assert pod.start_sidecar().wait() == 7
        until(lambda number=number: len(pods.reporter.of(IncidentKind.SIDECAR_ENDED)) == number)
    assert pod.layers() == 2
    assert IncidentKind.SIDECAR_RESTARTED not in pods.reporter.kinds()  # it never served


def test_a_mount_that_cannot_be_made_anew_is_told_and_tried_again(pods):
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod).kill()
    until(lambda: ended(plugin, pod))
    (attendant,) = plugin._attendants.values()
    attendant._around = replace(attendant._around, layers=FullAtFirst(attendant._around.layers))
    restart(plugin, pod)
    assert len(pods.reporter.of(IncidentKind.SIDECAR_FAILED)) == 2
    assert (
        "cannot be mounted again for its restarted sidecar ossfuse-data: no more mounts are allowed; it is tried again"
        in (pods.reporter.of(IncidentKind.SIDECAR_FAILED)[0].message)
    )


class FullAtFirst:
    """Layers of a node whose mount table is full for the first two sidecars."""

    def __init__(self, layers):
        self._layers = layers
        self._refusals = 2

    def renew(self, order):
        if self._refusals:
            self._refusals -= 1
            raise MountError("no more mounts are allowed")
        return self._layers.renew(order)

    def end(self, target):
        self._layers.end(target)

    def minors(self, target):
        return self._layers.minors(target)


# --- the node plugin ---


def test_the_next_node_plugin_hears_the_sidecar_again_and_touches_no_mount(pods):
    first, pod = pods.start(), pods.pod()
    sidecar = serve(first, pod)
    application, minors = pod.start_application(), pod.minors()
    assert application.ask("hold", "hello.txt") == "held"
    first.close()
    assert application.ask("again").startswith("hello, world")  # while no node plugin runs
    second = pods.start()
    until(lambda: is_served(second, pod))
    second.publish(request_for(pod), DEADLINE)
    assert (pod.minors(), pods.located) == (minors, 1)
    assert second.condition("vol-pod", pod.target).sidecar_pid == sidecar.pid
    assert application.ask("again").startswith("hello, world")
    assert pods.reporter.kinds() == []


def test_a_sidecar_that_died_while_no_node_plugin_ran_gets_a_new_layer_from_the_next(pods):
    """Trap 5: the listener of a node plugin that restarted is lost, and a sidecar killed after that was for good."""
    first, pod = pods.start(), pods.pod()
    sidecar = serve(first, pod)
    application = pod.start_application()
    first.close()
    sidecar.kill()
    pod.start_sidecar()
    second = pods.start()
    until(lambda: is_served(second, pod))
    assert application.ask("read", "hello.txt") == "hello, world"
    until(lambda: pods.reporter.kinds() == [IncidentKind.SIDECAR_RESTARTED])


def test_a_volume_published_by_one_node_plugin_is_given_to_its_first_sidecar_by_the_next(pods):
    first, pod = pods.start(), pods.pod()
    first.publish(request_for(pod), DEADLINE)
    first.close()  # and with it the descriptor
    pod.start_sidecar()
    second = pods.start()
    until(lambda: is_served(second, pod))
    assert pod.start_application().ask("read", "hello.txt") == "hello, world"
    assert pods.reporter.kinds() == []  # nothing was ever served before


def test_a_pod_deleted_while_no_node_plugin_ran_is_unpublished_by_the_mount_table_alone(pods):
    first, pod = pods.start(), pods.pod()
    serve(first, pod)
    first.close()
    forget(pods)
    second = pods.start()
    pod.end_containers()
    pod.unmount_shared()
    second.unpublish("vol-pod", pod.target)
    assert (pod.layers(), pod.target.exists()) == (0, False)


def test_a_volume_without_a_note_is_taken_up_by_the_next_publish(pods):
    first, pod = pods.start(), pods.pod()
    sidecar = serve(first, pod)
    first.close()
    forget(pods)
    second = pods.start()
    assert "has no sidecar any more" in second.condition("vol-pod", pod.target).message
    second.publish(request_for(pod, "read-otherwise"), DEADLINE)
    until(lambda: is_served(second, pod))
    assert second.condition("vol-pod", pod.target).sidecar_pid == sidecar.pid


def test_a_publish_of_a_volume_without_a_note_is_fine_though_the_api_server_does_not_know_the_pod(pods):
    first, pod = pods.start(), pods.pod()
    serve(first, pod)
    first.close()
    forget(pods)
    pods.not_injected.add(pod.reference.uid)
    second = pods.start()
    second.publish(request_for(pod), DEADLINE)
    assert pod.layers() == 1


@pytest.mark.parametrize("note", ["", "not json", '{"version": 99}', '{"version": 1}', "[]"])
def test_a_note_that_is_not_understood_is_made_anew(pods, note):
    first, pod = pods.start(), pods.pod()
    serve(first, pod)
    first.close()
    (path,) = pods.state.rglob("publication")
    path.write_text(note)
    second = pods.start()
    second.publish(request_for(pod), DEADLINE)
    until(lambda: is_served(second, pod))
    assert json.loads(next(pods.state.rglob("publication")).read_text())["given"] == "as asked"


def test_no_note_holds_a_secret(pods):
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod)
    kept = b"".join(path.read_bytes() for path in pods.state.glob("[0-9a-f]*/*"))
    assert b"ossfuse-data" in kept
    assert b"s3cr3t-pod-test" not in kept


@pytest.mark.parametrize("notes", ["kept", "lost"])
def test_mounts_of_pods_that_have_ended_are_removed_at_the_start(pods, notes):
    first, gone, there = pods.start(), pods.pod("gone"), pods.pod("there")
    serve(first, gone)
    serve(first, there)
    first.close()
    gone.end_containers()
    gone.unmount_shared()  # as kubelet does once no container runs; it would unpublish, if it had not forgotten the pod
    if notes == "lost":
        forget(pods)
    second = pods.start()
    assert [volume.volume_id for volume in second.published()] == ["vol-there"]
    second.unpublish("vol-gone", gone.target)  # should it come all the same
    gone.remove()


def test_a_volume_of_another_machines_life_is_forgotten(pods):
    """After a reboot the notes may be there, the mounts are not."""
    first, pod = pods.start(), pods.pod()
    first.publish(request_for(pod), DEADLINE)
    first.close()
    LinuxKernel().umount2(str(pod.target), 2)
    second = pods.start()
    assert second._state.names() == []
    serve(second, pod)


def test_a_node_plugin_killed_in_the_middle_of_its_work_is_followed_by_one_that_goes_on(pods):
    pod = pods.pod()
    program = (
        "import sys, time, pickle; from pathlib import Path; from csi.handover.pods.factory import pod_mounts\n"
        "from csi.handover.types import SidecarPlace\n"
        "request, place, state, kubelet = pickle.load(sys.stdin.buffer)\n"
        "class There:\n"
        "    def locate(self, *_): return place\n"
        "    def report(self, *_): pass\n"
        "plugin = pod_mounts(state, lambda *_: None, There(), There(), kubelet); plugin.open()\n"
        "plugin.publish(request, 20.0); print('published', flush=True); time.sleep(1000)\n"
    )
    place = pods.locate(pod.reference, "vol-pod", pod.target)
    doomed = subprocess.Popen(
        [sys.executable, "-c", program], cwd=SOURCE_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    doomed.stdin.write(pickle.dumps((request_for(pod), place, pods.state, pods.kubelet)))
    doomed.stdin.close()
    assert doomed.stdout.readline() == b"published\n"
    pod.start_sidecar()
    until(pod.is_ready)
    application = pod.start_application()
    doomed.kill()
    doomed.wait()
    doomed.stdout.close()
    assert application.ask("read", "hello.txt") == "hello, world"
    plugin = pods.start()
    until(lambda: is_served(plugin, pod))


def test_closing_lets_go_of_everything_but_the_mounts(pods):
    files, threads = open_files(), threading.active_count()
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod)
    plugin.close()
    assert open_files() == files
    until(lambda: threading.active_count() == threads)
    assert pod.layers() == 1
    pods.start()


def test_the_memory_of_a_container_that_was_given_less_counts(pods):
    plugin, pod = pods.start(), pods.pod(limit=96 * MIB)
    located = pods.locate

    def generous(*arguments):
        place = located(*arguments)
        return replace(place, memory_limit=1024 * MIB)

    pods.locate = generous
    serve(plugin, pod)
    assert f"limited to {96 * MIB} bytes of memory by its cgroup, not to {1024 * MIB} as was said" in pods.log()
    assert plugin.condition("vol-pod", pod.target).memory_limit == 96 * MIB


def _blocks_sigterm(pid):
    """Whether the sidecar does for good: unshare(1), which it is at first, and any process that starts another block
    signals for a moment, and a SIGTERM that comes then is lost, because this is PID 1 of its namespace."""
    with open(f"/proc/{pid}/cmdline", "rb") as words:
        if not words.read().startswith(os.fsencode(sys.executable)):
            return False
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        blocked = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk"))
    return blocked == 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1)
