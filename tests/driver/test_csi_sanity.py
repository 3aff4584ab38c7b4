"""The official csi-sanity against the real processes, real mounts and an OSS server: every test it has for us.

No test is skipped by a flag. What csi-sanity leaves out by itself are the tests of calls that this driver does not
advertise, each group with the reason here; a capability that is advertised and yet skipped fails this test.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.csi_processes import csi_processes
from tests.support.emulator import RunningEmulator

SANITY = Path(__file__).resolve().parents[2] / ".cache" / "go" / "csi-sanity-v5.4.0"

NOT_ADVERTISED = {
    "GetCapacity not supported": "an object store has no capacity to tell",
    "ListVolumes not supported": "the call carries no Secret, and without one no bucket can be asked",
    "ControllerPublishVolume not supported": "a bucket needs no attaching",
    "Controller Publish, UnpublishVolume not supported": "a bucket needs no attaching",
    "ControllerUnpublishVolume not supported": "a bucket needs no attaching",
    "Snapshot not supported": "OSS has no snapshots of a prefix",
    "CreateSnapshot not supported": "OSS has no snapshots of a prefix",
    "DeleteSnapshot not supported": "OSS has no snapshots of a prefix",
    "ListSnapshots not supported": "OSS has no snapshots of a prefix",
    "GroupControllerService not supported": "OSS has no snapshots of a prefix",
    "Volume Cloning not supported": "copying a prefix takes longer than a call may",
    "Modify volume not supported": "a volume's options are fixed when it is mounted",
    "Modify Volume not supported": "a volume's options are fixed when it is mounted",
    "ControllerModifyVolume not supported": "a volume's options are fixed when it is mounted",
    "ControllerExpandVolume not supported": "a prefix has no size that could grow",
    "NodeExpandVolume not supported": "a prefix has no size that could grow",
    "NodeStageVolume not supported": "each pod has a sidecar of its own; nothing is shared on the node",
    "NodeUnstageVolume not supported": "each pod has a sidecar of its own; nothing is shared on the node",
}


@dataclass(frozen=True)
class Spec:
    name: str
    state: str
    reason: str


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, emulator_process: RunningEmulator
) -> tuple[list[Spec], str, subprocess.CompletedProcess[str]]:
    """All specs, the log of both processes, and the program's own outcome."""
    assert SANITY.is_file(), f"{SANITY} is missing: run tools/go-tools.sh, which builds it"
    home = tmp_path_factory.mktemp("sanity")
    bucket = emulator_process.create_bucket()
    secret = {"akId": emulator_process.access_key_id, "akSecret": emulator_process.access_key_secret}
    calls = ("CreateVolume", "DeleteVolume", "ControllerValidateVolumeCapabilities", "NodePublishVolume")
    secrets, parameters, report = home / "secrets.yaml", home / "parameters.yaml", home / "report.json"
    secrets.write_text(json.dumps({f"{call}Secret": secret for call in calls}))
    parameters.write_text(
        json.dumps(
            {
                "bucket": bucket,
                "url": emulator_process.endpoint,
                "pathPattern": "volumes/${.PV.name}",
                "onDelete": "delete",
                "fs.jindo.fuse.pod.mem.limit": "256Mi",
            }
        )
    )
    with csi_processes(home) as processes:
        outcome = subprocess.run(
            [
                *(str(SANITY), "-csi.endpoint", f"unix://{processes.node_socket}"),
                *("-csi.controllerendpoint", f"unix://{processes.controller_socket}"),
                *("-csi.mountdir", str(home / "mount"), "-csi.stagingdir", str(home / "staging")),
                *("-csi.secrets", str(secrets), "-csi.testvolumeparameters", str(parameters)),
                *("-ginkgo.json-report", str(report), "-ginkgo.no-color"),
            ],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    found = [
        Spec(
            " ".join([*(entry["ContainerHierarchyTexts"] or []), entry["LeafNodeText"]]),
            entry["State"],
            entry.get("Failure", {}).get("Message", ""),
        )
        for suite in json.loads(report.read_text())
        for entry in suite["SpecReports"]
        if entry["LeafNodeType"] == "It"
    ]
    return found, processes.log(), outcome


def test_every_test_of_csi_sanity_passes(run):
    specs, _, outcome = run

    assert [spec for spec in specs if spec.state not in {"passed", "skipped", "pending"}] == []
    assert outcome.returncode == 0, outcome.stdout[-4000:]
    assert len([spec for spec in specs if spec.state == "passed"]) >= 30


def test_nothing_is_skipped_but_what_this_driver_does_not_advertise(run):
    specs, _, _ = run

    assert [spec for spec in specs if spec.state == "skipped" and spec.reason not in NOT_ADVERTISED] == []


def test_what_csi_sanity_itself_has_disabled_is_one_test(run):
    specs, _, _ = run

    pending = [spec.name for spec in specs if spec.state == "pending"]
    assert len(pending) == 1
    assert "pagination should detect volumes added between pages" in pending[0]


def test_the_services_log_no_unexpected_error_while_csi_sanity_runs(run):
    _, log, _ = run

    assert "failed unexpectedly" not in log
    assert "Traceback" not in log
