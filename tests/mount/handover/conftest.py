"""Nodes for this lane: each test gets a directory of its own, and fails when anything is left in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node import Node, running_node
from tests.support.pods import PodNode, running_pod_node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path) as node:
        yield node


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[PodNode]:
    """A node whose sidecars are containers of pods."""
    with running_pod_node(tmp_path) as node:
        yield node
