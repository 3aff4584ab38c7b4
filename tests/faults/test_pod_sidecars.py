"""What breaks around a sidecar in a pod, with programs in containers that use the volume at that moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.handover.pods.pod_mounts import PodMounts
from csi.handover.types import IncidentKind, PublishRequest
from csi.sidecar.questions import ABSENCE
from csi.volume.parse import parse_volume
from csi.volume.units import MIB
from tests.support.emulator import RunningEmulator
from tests.support.ending_programs import BEGINNING, CLOSED, KILLED, WRITTEN
from tests.support.node import DEADLINE
from tests.support.pods import (
    REAL,
    SILENCE,
    Application,
    Pod,
    PodNode,
    Sidecar,
    is_served,
    request_for,
    running_pod_node,
    serve,
)
from tests.support.published_volume import Bucket, until

LOST = ("ENOTCONN", "ECONNABORTED")


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[PodNode]:
    with running_pod_node(tmp_path) as node:
        yield node


def message_of(plugin: PodMounts, pod: Pod) -> str:
    condition = plugin.condition(f"vol-{pod.reference.name}", pod.target)
    assert condition is not None
    return condition.message if condition.abnormal else ""


def restart(plugin: PodMounts, pod: Pod, entry: Path = REAL) -> Sidecar:
    sidecar = pod.start_sidecar(entry)
    until(lambda: pod.is_ready() and is_served(plugin, pod))
    return sidecar


def real_request(pod: Pod, emulator: RunningEmulator, **attributes: str) -> PublishRequest:
    given = {"bucket": emulator.bucket, "url": emulator.endpoint, "path": "/data/", **attributes}
    secret = {"akId": emulator.access_key_id, "akSecret": emulator.access_key_secret}
    return request_for(pod, spec=parse_volume(given, cpu_count=2).spec, credentials=secret)


def serve_real(plugin: PodMounts, pod: Pod, emulator: RunningEmulator, **attributes: str) -> Sidecar:
    plugin.publish(real_request(pod, emulator, **attributes), DEADLINE)
    return restart(plugin, pod)


# --- hung ---


def test_a_stopped_sidecar_is_told_once_and_again_only_after_it_was_well(pods: PodNode) -> None:
    plugin, pod = pods.start(silence=SILENCE), pods.pod()
    sidecar = serve(plugin, pod)
    for times in (1, 2):
        sidecar.signal(signal.SIGSTOP)
        until(lambda times=times: len(pods.reporter.told) == times)  # type: ignore[misc]
        incident = pods.reporter.told[-1][1]
        assert incident.kind is IncidentKind.VOLUME_DEGRADED
        assert "requests to the volume wait; it is stopped (SIGSTOP)" in incident.message
        assert "has not answered for" in message_of(plugin, pod)
        time.sleep(2 * SILENCE)  # it is not told over and over
        assert len(pods.reporter.told) == times
        sidecar.signal(signal.SIGCONT)
        until(lambda: not message_of(plugin, pod))


def test_a_program_that_waits_for_a_stopped_sidecar_is_freed_by_the_end_of_the_sidecar(pods: PodNode) -> None:
    """Trap 2: a held copy of the descriptor left it unkillable, and the pod Terminating."""
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    application = pod.start_application()
    assert application.ask("hold", "hello.txt") == "held"
    sidecar.signal(signal.SIGSTOP)
    application.say("again")
    until(application.waits)
    plugin.publish(request_for(pod), DEADLINE)
    sidecar.kill()  # kubelet, at the end of the grace period
    assert application.answer() in LOST
    application.end()


def test_unpublishing_frees_a_program_that_waits_for_a_sidecar_that_is_still_there(pods: PodNode) -> None:
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    application = pod.start_application()
    application.ask("hold", "hello.txt")
    sidecar.signal(signal.SIGSTOP)
    application.say("again")
    until(application.waits)
    plugin.unpublish("vol-pod", pod.target)
    assert application.answer() in LOST
    assert (pod.layers(), pod.target.exists()) == (0, False)


def test_a_sidecar_that_has_the_volume_and_does_not_serve_it_is_told_and_its_end_frees_whoever_waits(
    pods: PodNode,
) -> None:
    plugin, pod = pods.start(silence=SILENCE), pods.pod()
    plugin.publish(request_for(pod, "silent"), DEADLINE)
    sidecar = pod.start_sidecar()
    until(lambda: IncidentKind.VOLUME_DEGRADED in pods.reporter.kinds())
    application = pod.start_application()
    application.say("list")
    sidecar.kill()
    assert application.answer() in LOST
    assert not pod.is_ready()


# --- killed ---


def test_a_sidecar_killed_for_memory_is_told_and_the_next_one_serves(pods: PodNode) -> None:
    plugin, pod = pods.start(), pods.pod(limit=96 * MIB)
    sidecar = serve(plugin, pod, "swells")
    application = pod.start_application()
    assert application.ask("read", "hello.txt") in LOST
    assert sidecar.wait() != 0
    assert pod.cgroup.oom_kills() > 0
    until(lambda: IncidentKind.SIDECAR_ENDED in pods.reporter.kinds())
    restart(plugin, pod, entry=Path(__file__).parents[1] / "support" / "stand_in_sidecar.py")
    assert application.ask("list") == "hello.txt"  # the request that killed it is not sent again


def test_programs_notice_nothing_but_a_pause_when_a_sidecar_is_killed_and_started_again(
    pods: PodNode, emulator: RunningEmulator
) -> None:
    plugin, pod, bucket = pods.start(), pods.pod(limit=256 * MIB), Bucket(emulator)
    bucket.put("held", b"as it was")
    sidecar = serve_real(plugin, pod, emulator)
    application, other = pod.start_application(), pod.start_application()
    assert other.ask("hold", "held") == "held"
    for number in range(3):
        assert application.ask("write", f"before-{number}", "x" * 1000) == "1000"
        sidecar.kill()
        until(lambda: "ended: accesses wait" in message_of(plugin, pod))
        application.say("write", f"meanwhile-{number}", "x" * 100)
        other.say("again")
        sidecar = restart(plugin, pod)
        assert application.answer() == "100"
        assert other.answer() == "as it was"
        assert application.ask("write", f"after-{number}", "y" * 1000) == "1000"
        assert application.ask("read", f"before-{number}") == "x" * 1000
    written = {f"{when}-{number}" for when in ("before", "meanwhile", "after") for number in range(3)}
    assert bucket.names() == {*written, "held"}
    assert pods.reporter.kinds() == [IncidentKind.SIDECAR_ENDED, IncidentKind.SIDECAR_RESTARTED] * 3
    assert pod.layers() == 1


def with_a_file_held(pods: PodNode, emulator: RunningEmulator) -> tuple[PodMounts, Pod, Sidecar, Application]:
    """A program has `held` open, which says `as it was`."""
    plugin, pod = pods.start(), pods.pod(limit=256 * MIB)
    Bucket(emulator).put("held", b"as it was")
    sidecar = serve_real(plugin, pod, emulator)
    application = pod.start_application()
    assert application.ask("hold", "held") == "held"
    return plugin, pod, sidecar, application


def test_a_node_plugin_that_comes_later_keeps_what_a_sidecar_leaves_too(
    pods: PodNode, emulator: RunningEmulator
) -> None:
    plugin, pod, sidecar, application = with_a_file_held(pods, emulator)
    plugin.close()
    plugin = pods.start()
    until(lambda: is_served(plugin, pod))
    sidecar.kill()
    application.say("again")
    restart(plugin, pod)
    assert application.answer() == "as it was"
    assert pod.layers() == 1


def test_who_waits_for_another_sidecar_that_does_not_come_is_told_when_the_volume_is_taken_away(
    pods: PodNode, emulator: RunningEmulator
) -> None:
    plugin, pod, sidecar, application = with_a_file_held(pods, emulator)
    sidecar.kill()
    application.say("again")
    until(lambda: "ended: accesses wait" in message_of(plugin, pod))
    until(application.waits)
    plugin.unpublish("vol-pod", pod.target)
    assert application.answer() in LOST
    assert (pod.layers(), pod.target.exists()) == (0, False)


def test_a_sidecar_and_the_node_plugin_killed_at_once_come_back_in_either_order(
    pods: PodNode, emulator: RunningEmulator
) -> None:
    plugin, pod = pods.start(), pods.pod(limit=256 * MIB)
    sidecar = serve_real(plugin, pod, emulator)
    application = pod.start_application()
    for plugin_first in (True, False):
        plugin.close()
        sidecar.kill()
        if plugin_first:
            plugin = pods.start()
            sidecar = pod.start_sidecar(REAL)
        else:
            sidecar = pod.start_sidecar(REAL)
            plugin = pods.start()
        until(lambda plugin=plugin: is_served(plugin, pod))  # type: ignore[misc]
        assert application.ask("list") == ""


# --- told to go ---


def test_what_is_open_for_writing_at_sigterm_is_an_object_afterwards(pods: PodNode, emulator: RunningEmulator) -> None:
    plugin, pod, bucket = pods.start(), pods.pod(limit=256 * MIB), Bucket(emulator)
    sidecar = serve_real(plugin, pod, emulator)
    file = os.open(pod.target / "open.bin", os.O_WRONLY | os.O_CREAT)
    os.write(file, b"z" * 3_000_000)
    sidecar.signal(signal.SIGTERM)
    assert sidecar.wait() == 0
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.write(file, b"more")
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.close(file)
    assert bucket.get("open.bin") == b"z" * 3_000_000
    plugin.publish(real_request(pod, emulator), DEADLINE)
    assert (pod.layers(), pods.reporter.kinds()) == (1, [])


def test_new_credentials_are_used_by_a_sidecar_that_runs_and_by_one_that_comes_later(
    pods: PodNode, emulator: RunningEmulator
) -> None:
    plugin, pod = pods.start(), pods.pod(limit=256 * MIB)
    request = real_request(pod, emulator)
    temporary = emulator.issue_token().pairs()
    plugin.publish(request_for(pod, spec=request.spec, credentials=temporary), DEADLINE)
    sidecar = restart(plugin, pod)
    application = pod.start_application()
    assert application.ask("write", "one", "1") == "1"
    plugin.publish(request, DEADLINE)
    emulator.expire_tokens()
    assert application.ask("write", "two", "2") == "1"
    sidecar.kill()
    restart(plugin, pod)
    assert application.ask("list") == "one,two"


def test_the_memory_that_is_nearly_used_up_is_told(pods: PodNode) -> None:
    plugin, pod = pods.start(), pods.pod(limit=96 * MIB)
    serve(plugin, pod)
    assert IncidentKind.MEMORY_HIGH not in pods.reporter.kinds()
    used = plugin.condition("vol-pod", pod.target).memory_used  # type: ignore[union-attr]
    assert used is not None
    limit = pod.cgroup.path / ("memory.max" if (pod.cgroup.path / "memory.max").exists() else "memory.limit_in_bytes")
    limit.write_text(str(int(used * 1.03)))
    until(lambda: IncidentKind.MEMORY_HIGH in pods.reporter.kinds())
    (incident,) = pods.reporter.of(IncidentKind.MEMORY_HIGH)
    assert "if it is killed for memory, set fs.jindo.fuse.pod.mem.limit higher" in incident.message


# --- killed programs ---


@contextlib.contextmanager
def container(pod: Pod, code: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A container of the pod whose first process is `code`; killing what is given kills the container."""
    with subprocess.Popen(
        pod.command(
            *("unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child"),
            *(sys.executable, "-c", f"{BEGINNING}\n{code}", str(pod.target / name)),
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def kill_when_written(pod: Pod, code: str, name: str) -> None:
    with container(pod, code, name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"


def test_a_killed_container_leaves_no_half_object(pods: PodNode, emulator: RunningEmulator) -> None:
    plugin, pod = pods.start(), pods.pod()
    serve_real(plugin, pod, emulator)
    for number, code in enumerate(KILLED.values()):
        kill_when_written(pod, code, f"killed-{number}")
        until(lambda number=number: f"'killed-{number}' was not written" in pods.log())  # type: ignore[misc]
    assert Bucket(emulator).names() == set()


def test_a_container_that_ends_closes_its_files(pods: PodNode, emulator: RunningEmulator) -> None:
    plugin, pod = pods.start(), pods.pod()
    serve_real(plugin, pod, emulator)
    for number, how in enumerate(("closed", "ended without a close", "ended by a thread that did not open")):
        with container(pod, CLOSED[how], f"closed-{number}") as process:
            process.wait(60)
        assert Bucket(emulator).get(f"closed-{number}") == WRITTEN


def test_a_program_killed_while_the_node_plugin_is_replaced_leaves_no_half_object(
    pods: PodNode, emulator: RunningEmulator
) -> None:
    """Before its successor is there, and then: the successor has seen none of these programs live."""
    plugin, pod = pods.start(), pods.pod()
    serve_real(plugin, pod, emulator)
    with container(pod, KILLED["killed"], "before") as before, container(pod, KILLED["killed"], "after") as after:
        for process in (before, after):
            assert process.stdout is not None
            assert process.stdout.readline() == b"written\n"
        plugin.close()
        before.kill()
        until(lambda: "the node plugin is gone" in pods.log())
        with container(pod, CLOSED["closed"], "closed") as closed:
            again = pods.start()
            until(lambda: is_served(again, pod))
            after.kill()
            closed.wait(60)
        for name in ("before", "after"):
            until(lambda name=name: f"{name!r} was not written" in pods.log())  # type: ignore[misc]
    assert Bucket(emulator).names() == {"closed"}


def test_who_goes_on_living_closes_without_a_node_plugin(pods: PodNode, emulator: RunningEmulator) -> None:
    """Nobody is waited for, who may not come."""
    plugin, pod = pods.start(), pods.pod()
    serve_real(plugin, pod, emulator)
    with container(pod, "write(); tell(); read(); os.close(file); tell(); read()", "closed") as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        plugin.close()
        until(lambda: "the node plugin is gone" in pods.log())
        process.stdin.write(b"\n")
        process.stdin.flush()
        until(lambda: Bucket(emulator).get("closed") == WRITTEN, timeout=ABSENCE / 2)


def test_the_last_of_a_container_that_share_a_file_was_killed_too(pods: PodNode, emulator: RunningEmulator) -> None:
    plugin, pod = pods.start(), pods.pod()
    serve_real(plugin, pod, emulator)
    kill_when_written(pod, "write(); forked(time.sleep, 60); wait()", "shared")
    until(lambda: "'shared' was not written" in pods.log())
    assert Bucket(emulator).names() == set()
