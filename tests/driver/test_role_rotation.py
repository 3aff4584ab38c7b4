"""Roles that live for seconds, on a real mount with a real sidecar: readers notice nothing of their renewal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from csi.driver.stores import check_volume
from tests.support.csi_services import Services, credential_supply, csi_services, publish_request, unpublish_request
from tests.support.emulator import RunningEmulator
from tests.support.node import running_node
from tests.support.service_accounts import PROVIDER, ROLE, TokenIssuer, pod_context

LIFE = 8
"""Seconds; two and a half of them pass during the test."""
FILES = 4000
"""More than are read, so that every read asks the bucket."""


@dataclass
class Reader:
    """Reads one file after another until it is stopped; every read is a request to the bucket."""

    folder: Path
    reads: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        while not self._stop.wait(0.01):
            path = self.folder / f"{self.reads}.bin"
            try:
                content = path.read_bytes()
                if content != b"a shard":
                    self.failures.append(f"{path.name}: {content!r}")
            except OSError as error:
                self.failures.append(f"{path.name}: {error}")
            self.reads += 1


@pytest.fixture
def plugin(tmp_path: Path, emulator: RunningEmulator) -> Iterator[Services]:
    (tmp_path / "node").mkdir()
    with running_node(tmp_path / "node") as node:
        mounts = node.start(launcher=node.real(), preflight=check_volume)
        supply = credential_supply(endpoint=emulator.sts_endpoint)
        with csi_services(tmp_path, mounts, supply=supply) as running:
            yield running


@pytest.fixture
def short_lived(emulator: RunningEmulator) -> Iterator[TokenIssuer]:
    """The pod's cluster, whose roles live for LIFE seconds."""
    issuer = TokenIssuer()
    issuer.register(emulator)
    with emulator.tokens_live_for(LIFE):
        yield issuer


def test_not_one_read_fails_while_role_after_role_expires(
    plugin: Services, emulator: RunningEmulator, short_lived: TokenIssuer, tmp_path: Path
) -> None:
    emulator.seed("{n}.bin", b"a shard", count=FILES)
    target = tmp_path / "node" / "target"
    attributes = {
        **{"bucket": emulator.bucket, "url": emulator.endpoint, "mode": "consistent"},
        **{"authType": "rrsa", "roleArn": ROLE, "oidcProviderArn": PROVIDER, "fs.jindo.args": "-odirect_io"},
    }

    def republish() -> None:
        """As kubelet does: the whole call again, with the token that is valid now."""
        context = pod_context(token=short_lived.token())
        plugin.node.NodePublishVolume(
            publish_request(target, attributes={**attributes, **context}, secrets={}), timeout=30
        )

    republish()
    try:
        mounted = target.stat().st_dev
        emulator.reset_counters()
        with Reader(target) as reader:
            ends = time.monotonic() + 2.5 * LIFE
            while time.monotonic() < ends:
                time.sleep(0.3)
                republish()
        assert target.stat().st_dev == mounted
    finally:
        plugin.node.NodeUnpublishVolume(unpublish_request(target), timeout=30)

    assert reader.failures == []
    asked = emulator.requests("GetObject")
    assert 100 < reader.reads < FILES
    assert len(asked) >= reader.reads
    assert len({entry["caller"] for entry in asked}) >= 4
    assert [entry["code"] for entry in asked if entry["status"] >= 400] == []


def test_reads_fail_once_the_last_role_has_expired_and_go_on_with_the_next(
    plugin: Services, emulator: RunningEmulator, short_lived: TokenIssuer, tmp_path: Path
) -> None:
    emulator.seed("0.bin", b"a shard")
    target = tmp_path / "node" / "target"
    attributes = {
        **{"bucket": emulator.bucket, "url": emulator.endpoint, "mode": "consistent"},
        **{"authType": "rrsa", "roleArn": ROLE, "oidcProviderArn": PROVIDER, "fs.jindo.args": "-odirect_io"},
        "fs.oss.retry.count": "1",  # how long a read waits for the next role
    }
    request = publish_request(target, attributes={**attributes, **pod_context(token=short_lived.token())}, secrets={})
    plugin.node.NodePublishVolume(request, timeout=30)
    try:
        emulator.expire_tokens()
        with pytest.raises(PermissionError):
            (target / "0.bin").read_bytes()
        time.sleep(LIFE / 2)  # the plugin renews by the clock: it cannot know that STS took a role back
        plugin.node.NodePublishVolume(request, timeout=30)

        assert (target / "0.bin").read_bytes() == b"a shard"
    finally:
        plugin.node.NodeUnpublishVolume(unpublish_request(target), timeout=30)
