"""What is wrong with a volume is told by code and by words: the key, the value and the fix; and nothing stays mounted.

Against the real `ossfuse node`, real mounts and an OSS server that really verifies signatures.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest

from csi.driver.server import open_local_mounts
from csi.handover.mountinfo import layers_at, read_mountinfo
from csi.v1 import csi_pb2
from tests.support.csi_processes import OSSFUSE, CsiProcesses, csi_processes
from tests.support.csi_services import csi_services, publish_request, refused, unpublish_request
from tests.support.emulator import RunningEmulator
from tests.support.node import running_node

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LIMIT = {"fs.jindo.fuse.pod.mem.limit": "256Mi"}


@dataclass
class Stack:
    """A node plugin and a bucket. `attributes` and `secrets` are those of a volume that works."""

    processes: CsiProcesses
    emulator: RunningEmulator
    target: Path
    attributes: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def publish(self, target: Path | None = None, **changes: object) -> None:
        arguments: dict = {"attributes": self.attributes, "secrets": self.secrets, **changes}
        self.processes.node.NodePublishVolume(publish_request(target or self.target, **arguments), timeout=60)

    def unpublish(self) -> None:
        self.processes.node.NodeUnpublishVolume(unpublish_request(self.target), timeout=60)

    def condition(self) -> csi_pb2.VolumeCondition:
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id="pv-1", volume_path=str(self.target))
        return self.processes.node.NodeGetVolumeStats(request, timeout=20).volume_condition

    def layers(self) -> int:
        return len(layers_at(read_mountinfo(), str(self.target)))

    def assert_nothing_is_left(self) -> None:
        assert self.layers() == 0
        assert self.processes.machine.sidecars() == []
        assert self.processes.machine.cgroups() == []


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CsiProcesses]:
    with csi_processes(tmp_path_factory.mktemp("bad")) as running:
        yield running


@pytest.fixture
def stack(processes: CsiProcesses, emulator: RunningEmulator, tmp_path: Path) -> Iterator[Stack]:
    secrets = {"akId": emulator.access_key_id, "akSecret": emulator.access_key_secret}
    attributes = {"bucket": emulator.bucket, "url": emulator.endpoint, "path": "/", **LIMIT}
    made = Stack(processes, emulator, tmp_path / "target", attributes, secrets)
    yield made
    if not made.target.is_file():
        made.unpublish()
    made.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modee": "fast"}, ["modee", "did you mean", "mode"]),
        ({"fs.oss.uplaod.thread.concurrency": "4"}, ["fs.oss.uplaod", "fs.oss.upload.thread.concurrency"]),
        ({"fs.jindo.fuse.pod.mem.limit": "1Gb"}, ["fs.jindo.fuse.pod.mem.limit", "1Gb"]),
        ({"fs.jindo.fuse.pod.mem.limit": "64Mi"}, ["fs.jindo.fuse.pod.mem.limit", "64Mi", "128Mi"]),
        ({"fs.oss.upload.thread.concurrency": "many"}, ["fs.oss.upload.thread.concurrency", "many"]),
        ({"uri": "s3://training-data/"}, ["uri", "s3://training-data/", "oss://BUCKET"]),
        ({"uri": "oss://data.cn-hangzhou.oss-dls.aliyuncs.com/"}, ["oss-dls.aliyuncs.com"]),
        ({"bucket": ""}, ["bucket"]),
        ({"url": ""}, ["url", "oss-cn-hangzhou"]),
        ({"mode": "fastest"}, ["mode", "fastest", "fast"]),
        ({"options": "{not json"}, ["options", "JSON"]),
        ({"fs.jindo.args": "-onosuch=1"}, ["fs.jindo.args", "nosuch"]),
        ({"fs.oss.accessKeySecret": "pasted-secret-value"}, ["fs.oss.accessKeySecret", "Secret"]),
        ({"authType": "rrsa"}, ["roleArn", "acs:ram::", "rrsa"]),
        ({"padding": "x" * 2**20}, ["65536"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_attributes_are_refused_with_key_value_and_fix(stack, changes, words):
    attributes = {key: value for key, value in {**stack.attributes, **changes}.items() if value}

    with refused(INVALID, *words) as said:
        stack.publish(attributes=attributes)

    assert "pasted-secret-value" not in said[0]
    assert len(said[0]) < 2100
    assert not stack.target.exists()
    stack.assert_nothing_is_left()


@pytest.mark.parametrize("mode", ["MULTI_NODE_MULTI_WRITER", "SINGLE_NODE_WRITER", "SINGLE_NODE_MULTI_WRITER"])
@pytest.mark.parametrize(
    ("attributes", "flags", "key"),
    [
        ({"fs.jindo.args": "-oro"}, [], "fs.jindo.args"),
        ({"options": '{"fs.jindo.args": "-oattr_timeout=3 -oro"}'}, [], "fs.jindo.args"),
        ({}, ["ro"], "mountOptions"),
    ],
    ids=["args", "options", "mountOptions"],
)
def test_a_read_only_argument_with_a_writing_access_mode_is_refused(stack, attributes, flags, key, mode):
    with refused(INVALID, key, "-oro", mode, "ReadOnlyMany"):
        stack.publish(attributes={**stack.attributes, **attributes}, mode=mode, mount_flags=flags)

    stack.assert_nothing_is_left()


@pytest.mark.parametrize("missing", ["akId", "akSecret"])
def test_half_a_secret_names_the_missing_half(stack, missing):
    secrets = {key: value for key, value in stack.secrets.items() if key != missing}

    with refused(grpc.StatusCode.UNAUTHENTICATED, missing) as said:
        stack.publish(secrets=secrets)

    assert not [value for value in secrets.values() if value in said[0]]
    stack.assert_nothing_is_left()


def test_no_secret_at_all_says_where_to_name_one(stack):
    with refused(grpc.StatusCode.UNAUTHENTICATED, "secrets", "nodePublishSecretRef", "authType: public"):
        stack.publish(secrets={})

    stack.assert_nothing_is_left()


def test_a_wrong_key_names_bucket_endpoint_and_what_to_check(stack):
    wrong = {**stack.secrets, "akSecret": "not-the-secret-of-this-key"}

    with refused(grpc.StatusCode.UNAUTHENTICATED, stack.emulator.bucket, stack.emulator.endpoint, "ecret") as said:
        stack.publish(secrets=wrong)

    assert "not-the-secret-of-this-key" not in said[0]
    stack.assert_nothing_is_left()


def test_an_unknown_key_is_unauthenticated(stack):
    with refused(grpc.StatusCode.UNAUTHENTICATED, "InvalidAccessKeyId"):
        stack.publish(secrets={"akId": "LTAI-unknown-key", "akSecret": "whatever-it-is"})

    stack.assert_nothing_is_left()


def test_a_bucket_that_does_not_exist_is_named(stack):
    with refused(grpc.StatusCode.NOT_FOUND, "no-such-bucket", stack.emulator.endpoint):
        stack.publish(attributes={**stack.attributes, "bucket": "no-such-bucket"})

    stack.assert_nothing_is_left()


def test_an_unreachable_endpoint_is_named(stack):
    with refused(grpc.StatusCode.UNAVAILABLE, "http://127.0.0.1:1"):
        stack.publish(attributes={**stack.attributes, "url": "http://127.0.0.1:1"})

    stack.assert_nothing_is_left()


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/other/"},
        {"fs.jindo.args": "-oattr_timeout=1"},
        {"uid": "1000"},
    ],
    ids=lambda value: next(iter(value)),
)
def test_another_spec_on_one_target_is_refused_and_the_first_stays(stack, changes):
    stack.publish()

    with refused(grpc.StatusCode.ALREADY_EXISTS, str(stack.target), "unpublish"):
        stack.publish(attributes={**stack.attributes, **changes})

    (stack.target / "still").write_text("served")
    assert stack.layers() == 1


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_a_target_that_is_no_directory_is_refused_and_left_alone(stack, tmp_path, kind):
    target = tmp_path / "occupied"
    if kind == "file":
        target.write_text("mine")
    else:
        (tmp_path / "elsewhere").write_text("mine")
        target.symlink_to(tmp_path / "elsewhere")

    with refused(INVALID, str(target)):
        stack.publish(target)

    assert target.read_text() == "mine"
    stack.assert_nothing_is_left()


def test_somebody_elses_mount_on_the_target_is_refused_and_left_alone(stack):
    stack.target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "somebody-elses", str(stack.target)], check=True)
    try:
        with refused(grpc.StatusCode.ALREADY_EXISTS, "somebody-elses", str(stack.target)):
            stack.publish()
        assert stack.layers() == 1
    finally:
        subprocess.run(["umount", str(stack.target)], check=True)


def test_a_dead_sidecar_is_an_abnormal_condition_and_the_next_publish_heals_it(stack):
    stack.publish()
    (stack.target / "before").write_text("1")
    [sidecar] = stack.processes.machine.sidecars()

    os.kill(sidecar, signal.SIGKILL)
    condition = await_abnormal(stack)
    stack.publish()

    assert "sidecar" in condition.message
    assert (stack.target / "before").read_text() == "1"
    assert stack.layers() == 1


def test_a_hung_sidecar_does_not_hold_up_unpublishing(stack):
    stack.publish()
    [sidecar] = stack.processes.machine.sidecars()
    os.kill(sidecar, signal.SIGSTOP)

    stack.unpublish()

    assert not stack.target.exists()
    stack.assert_nothing_is_left()


def test_a_mount_that_was_stacked_twice_is_taken_away_whole(stack):
    stack.publish()
    subprocess.run(["mount", "--bind", str(stack.target), str(stack.target)], check=True)
    assert stack.layers() == 2

    stack.unpublish()

    assert not stack.target.exists()
    stack.assert_nothing_is_left()


def test_a_state_directory_of_two_hundred_characters_works(emulator, tmp_path):
    home = tmp_path / ("d" * 200)
    home.mkdir()
    attributes = {"bucket": emulator.bucket, "url": emulator.endpoint, **LIMIT}
    secrets = {"akId": emulator.access_key_id, "akSecret": emulator.access_key_secret}

    with running_node(home) as node:
        mounts = open_local_mounts(node.state)
        try:
            with csi_services(tmp_path, mounts) as services:
                services.node.NodePublishVolume(publish_request(node.target, attributes=attributes, secrets=secrets))
                listed = subprocess.run(["ls", str(node.target)], capture_output=True, timeout=20, check=False)
                services.node.NodeUnpublishVolume(unpublish_request(node.target))
        finally:
            mounts.close()

    assert listed.returncode == 0, listed.stderr


def test_an_endpoint_of_two_hundred_characters_is_refused_by_name():
    endpoint = f"unix:///{'s' * 200}.sock"

    done = subprocess.run(
        [str(OSSFUSE), "node", "--endpoint", endpoint], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 1
    assert "endpoint" in done.stderr
    assert "107 bytes" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"bucket": "no-such-bucket"}, grpc.StatusCode.NOT_FOUND, "no-such-bucket"),
        ({"url": "http://127.0.0.1:1", "fs.oss.retry.count": "0"}, grpc.StatusCode.UNAVAILABLE, "127.0.0.1:1"),
        ({"pathPattern": "${.PVC.uid}"}, INVALID, "${.PVC.namespace}"),
        ({"pathPattern": "../x"}, INVALID, "pathPattern"),
        ({"onDelete": "destroy"}, INVALID, "retain or delete"),
        ({"mode": "fastest"}, INVALID, "fastest"),
        ({"path": "/.ossfuse/volumes/"}, INVALID, ".ossfuse/"),
    ],
    ids=["bucket", "endpoint", "variable", "climbing", "onDelete", "mode", "records"],
)
def test_a_storage_class_that_cannot_work_is_refused_when_a_claim_is_made(stack, change, code, word):
    request = create(stack, **change)

    with refused(code, word):
        stack.processes.controller.CreateVolume(request, timeout=30)


@pytest.mark.parametrize("secrets", [{}, {"akId": "LTAI-only-the-id"}], ids=["none", "half"])
def test_a_storage_class_without_a_secret_names_what_is_missing(stack, secrets):
    request = create(replace(stack, secrets=secrets))

    with refused(grpc.StatusCode.UNAUTHENTICATED, "ecret"):
        stack.processes.controller.CreateVolume(request, timeout=30)


def create(stack: Stack, **changes: str) -> csi_pb2.CreateVolumeRequest:
    return csi_pb2.CreateVolumeRequest(
        name="pvc-bad",
        volume_capabilities=[publish_request(stack.target).volume_capability],
        parameters={**stack.attributes, **changes},
        secrets=stack.secrets,
    )


def await_abnormal(stack: Stack) -> csi_pb2.VolumeCondition:
    """The condition once the node plugin has seen what happened: it hears of a death by an event of its own."""
    for _ in range(2000):
        condition = stack.condition()
        if condition.abnormal:
            return condition
    raise AssertionError(f"still healthy: {condition.message}")
