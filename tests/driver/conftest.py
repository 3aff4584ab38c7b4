"""Fixtures of the driver lane: the services with nothing mounted behind them, and the services on the real stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.csi_services import Services, csi_services
from tests.support.memory_store import MemoryStore
from tests.support.recording_mounts import RecordingMounts


@pytest.fixture
def store() -> MemoryStore:
    """The bucket that the controller of `services` writes to."""
    return MemoryStore()


@pytest.fixture
def mounts() -> RecordingMounts:
    """What the node of `services` publishes with."""
    return RecordingMounts()


@pytest.fixture
def services(tmp_path: Path, store: MemoryStore, mounts: RecordingMounts) -> Iterator[Services]:
    with csi_services(tmp_path, mounts, stores=lambda spec, secrets: store) as running:
        yield running
