"""The node plugin is killed at random moments: programs notice nothing, and the next one brings every volume to the
state it is asked for."""

from __future__ import annotations

import random
import time

import grpc
import pytest

from tests.support.csi_processes import NodePlugin, node_plugin
from tests.support.csi_services import publish_request, unpublish_request
from tests.support.emulator import RunningEmulator
from tests.support.journal import Expected
from tests.support.node import Node, run_bounded
from tests.support.published_volume import Bucket, program

PATIENT = 60


def request_for(node: Node, emulator: RunningEmulator):
    attributes = {"bucket": emulator.bucket, "url": emulator.endpoint, "path": "/data/", "mode": "consistent"}
    secrets = {"akId": emulator.access_key_id, "akSecret": emulator.access_key_secret}
    return publish_request(node.target, attributes=attributes, secrets=secrets)


def killed_during(plugin: NodePlugin, call: grpc.Future, delay: float) -> None:
    """Kill the plugin `delay` seconds after a call was made, whether that has ended or not."""
    time.sleep(delay)  # not to wait for something: any moment will do
    plugin.kill()
    call.exception(timeout=PATIENT)


def test_programs_go_on_while_node_plugins_are_killed_and_follow_one_another(
    node: Node, emulator: RunningEmulator
) -> None:
    request = request_for(node, emulator)
    expected = Expected()
    with node_plugin(node.home, node) as first:
        first.stub.NodePublishVolume(request, timeout=PATIENT)
        sidecars = node.sidecars()
        with program("writing_program", "save", str(node.target), "steady", "60") as writing:
            expected.take(writing.line() or "")
            first.kill()
            for _ in range(2):
                with node_plugin(node.home, node) as next_one:
                    next_one.stub.NodePublishVolume(request, timeout=PATIENT)  # kubelet repeats it
                    next_one.kill()
            for said in writing.lines():
                expected.take(said)
            assert writing.wait() == 0
    assert expected.errors == []
    assert expected.violations(Bucket(emulator).get) == []
    assert node.sidecars() == sidecars
    with node_plugin(node.home, node) as last:
        last.stub.NodeUnpublishVolume(unpublish_request(node.target), timeout=PATIENT)


@pytest.mark.parametrize("seed", range(6))
def test_publish_and_unpublish_converge_after_a_kill_in_the_middle(
    node: Node, emulator: RunningEmulator, seed: int
) -> None:
    request = request_for(node, emulator)
    Bucket(emulator).put("there", b"still here")
    chance = random.Random(seed)
    with node_plugin(node.home, node) as plugin:
        killed_during(plugin, plugin.stub.NodePublishVolume.future(request, timeout=PATIENT), chance.uniform(0, 0.7))
    with node_plugin(node.home, node) as plugin:
        plugin.stub.NodePublishVolume(request, timeout=PATIENT)
        assert run_bounded(["cat", str(node.target / "there")]).stdout == "still here"
        assert node.layers() == 1
        assert len(node.sidecars()) == len(node.cgroups()) == 1
        goodbye = unpublish_request(node.target)
        killed_during(plugin, plugin.stub.NodeUnpublishVolume.future(goodbye, timeout=PATIENT), chance.uniform(0, 0.3))
    with node_plugin(node.home, node) as plugin:
        plugin.stub.NodeUnpublishVolume(goodbye, timeout=PATIENT)
        plugin.stub.NodeUnpublishVolume(goodbye, timeout=PATIENT)
        assert not node.target.exists()
    assert node.leftovers() == []
