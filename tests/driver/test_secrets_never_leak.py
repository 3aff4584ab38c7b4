"""A whole run with secrets that are easy to find: in no log, command line, environment, answer or file afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from csi.v1 import csi_pb2
from tests.support.csi_processes import CsiProcesses, csi_processes
from tests.support.csi_services import publish_request, unpublish_request
from tests.support.emulator import start_emulator

ACCESS_KEY = {"akId": "LTAIFINDMEKEYID0", "akSecret": "find-me-secret-7d1f9c"}
WRONG_KEY = {"akId": "LTAIFINDMEWRONG0", "akSecret": "find-me-wrong-5b2e8a"}
TOKEN = "find-me-service-account-token"
MARKERS = (*ACCESS_KEY.values(), *WRONG_KEY.values(), TOKEN)
SECRET_MARKERS = (ACCESS_KEY["akSecret"], WRONG_KEY["akSecret"], TOKEN)


@dataclass
class Run:
    """What a run left behind to search in. Process data was read while everything was running."""

    log: str = ""
    answers: list[str] = field(default_factory=list)
    command_lines: dict[str, bytes] = field(default_factory=dict)
    environments: dict[str, bytes] = field(default_factory=dict)
    mounts: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    sidecars: int = 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    home = tmp_path_factory.mktemp("leak")
    found = Run()
    keys = {ACCESS_KEY["akId"]: ACCESS_KEY["akSecret"]}
    with start_emulator(tmp_path_factory.mktemp("emulator"), access_keys=keys) as emulator:
        with csi_processes(home) as processes:
            place = {"bucket": emulator.bucket, "url": emulator.endpoint, "fs.jindo.fuse.pod.mem.limit": "256Mi"}
            use(processes, place, home / "target", found)
            found.files = contents(processes.machine.state)
        found.log = processes.log()
    yield found


def use(processes: CsiProcesses, place: dict[str, str], target: Path, found: Run) -> None:
    """Create, publish, use, republish, fail, unpublish, delete."""
    kubelet = {"csi.storage.k8s.io/serviceAccount.tokens": f'{{"sts.aliyuncs.com": {{"token": "{TOKEN}"}}}}'}
    volume = processes.controller.CreateVolume(
        csi_pb2.CreateVolumeRequest(
            name="pvc-leak",
            volume_capabilities=[publish_request(target).volume_capability],
            parameters=place,
            secrets=ACCESS_KEY,
        ),
        timeout=60,
    ).volume
    attributes = {**volume.volume_context, **kubelet}
    good = publish_request(target, volume_id=volume.volume_id, attributes=attributes, secrets=ACCESS_KEY)
    processes.node.NodePublishVolume(good, timeout=60)
    try:
        (target / "file").write_bytes(b"x" * 100_000)
        assert (target / "file").read_bytes() == b"x" * 100_000
        processes.node.NodePublishVolume(good, timeout=60)
        found.sidecars = len(processes.machine.sidecars())
        read_processes(found)
        for wrong in (WRONG_KEY, {"akSecret": WRONG_KEY["akSecret"]}, {"akId": WRONG_KEY["akId"]}):
            found.answers.append(failure(processes, target.with_name("wrong"), attributes, wrong))
        pasted = {**attributes, "fs.oss.accessKeySecret": WRONG_KEY["akSecret"]}
        found.answers.append(failure(processes, target.with_name("wrong"), pasted, ACCESS_KEY))
        condition = csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume.volume_id, volume_path=str(target))
        found.answers.append(str(processes.node.NodeGetVolumeStats(condition, timeout=20)))
    finally:
        processes.node.NodeUnpublishVolume(unpublish_request(target, volume_id=volume.volume_id), timeout=60)
    processes.controller.DeleteVolume(
        csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id, secrets=ACCESS_KEY), timeout=60
    )


def failure(processes: CsiProcesses, target: Path, attributes: dict[str, str], secrets: dict[str, str]) -> str:
    """The words of a publish that must fail."""
    with pytest.raises(grpc.RpcError) as raised:
        processes.node.NodePublishVolume(
            publish_request(target, attributes=attributes, secrets=secrets, volume_id="pv-wrong"), timeout=60
        )
    return f"{raised.value.code()} {raised.value.details()} {raised.value.debug_error_string()}"


def read_processes(found: Run) -> None:
    own = str(os.getpid())
    for pid in (entry for entry in os.listdir("/proc") if entry.isdigit() and entry != own):
        for kind, where in (("cmdline", found.command_lines), ("environ", found.environments)):
            try:
                where[pid] = Path(f"/proc/{pid}/{kind}").read_bytes()
            except OSError:
                continue  # it has ended meanwhile, or is a kernel thread
    found.mounts = Path("/proc/self/mountinfo").read_bytes()


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below `directory`, except the kernel's own below a mounted fusectl."""
    files = [path for path in directory.rglob("*") if path.is_file() and ".connections" not in path.parts]
    return {str(path): path.read_bytes() for path in files}


def places_with(markers: tuple[str, ...], where: dict[str, bytes]) -> list[str]:
    return [name for name, data in where.items() for marker in markers if marker.encode() in data]


def test_the_run_was_a_whole_one(run):
    assert run.sidecars == 1
    assert len(run.answers) == 5
    assert "NodePublishVolume OK" in run.log
    assert "NodePublishVolume UNAUTHENTICATED" in run.log
    assert "DeleteVolume OK" in run.log


@pytest.mark.parametrize("marker", MARKERS)
def test_no_log_holds_a_secret(run, marker):
    assert [line for line in run.log.splitlines() if marker in line] == []


@pytest.mark.parametrize("marker", SECRET_MARKERS)
def test_no_answer_holds_a_secret(run, marker):
    assert [answer for answer in run.answers if marker in answer] == []


def test_no_command_line_holds_a_secret(run):
    assert len(run.command_lines) > 3
    assert places_with(MARKERS, run.command_lines) == []


def test_no_environment_holds_a_secret(run):
    assert len(run.environments) > 3
    assert places_with(MARKERS, run.environments) == []


def test_the_mount_table_holds_no_secret(run):
    assert places_with(MARKERS, {"mountinfo": run.mounts}) == []


def test_nothing_is_left_in_the_state_directory_after_unpublishing(run):
    assert places_with(MARKERS, run.files) == []
    assert [name for name in run.files if "credential" in name or "akSecret" in name] == []
