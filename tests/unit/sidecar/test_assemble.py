"""Which kernel session serves what is assembled: the one that was loaded, or what the node plugin wants."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from csi.fuse.choice import OWN, PYFUSE3, SessionChoice, choose
from csi.handover.wire import Mount
from csi.sidecar.assemble import assemble, within
from csi.volume.encode import encode_spec
from csi.volume.parse import parse_volume
from csi.volume.spec import HttpOptions
from csi.volume.units import MIB

ATTRIBUTES = {"uri": "oss://bucket/", "url": "http://127.0.0.1:1", "authType": "public"}


@pytest.fixture
def descriptor() -> Iterator[int]:
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def served_by(descriptor: int, session: SessionChoice | None, wanted: str) -> str:
    """The room of the class that serves."""
    spec = parse_volume(ATTRIBUTES, cpu_count=2).spec
    frame = Mount(1, "vol", "hash", encode_spec(spec), False, "", 512 * MIB, 1.0)
    served = assemble(frame, descriptor, "", lambda: None, environ={}, session=session, wanted=wanted)
    served.close()
    return type(served.session).__name__


@pytest.mark.parametrize(
    ("session", "wanted", "expected"),
    [
        pytest.param(None, "", "OwnSession", id="nothing is said"),
        pytest.param(PYFUSE3, "", "Pyfuse3Session", id="as it was started"),
        pytest.param(OWN, PYFUSE3, "Pyfuse3Session", id="the node plugin wants the other"),
        pytest.param(PYFUSE3, OWN, "OwnSession", id="the node plugin wants our own"),
    ],
)
def test_what_the_node_plugin_wants_goes_before_how_the_sidecar_was_started(
    descriptor: int, session: str | None, wanted: str, expected: str
) -> None:
    assert served_by(descriptor, choose(session) if session else None, wanted) == expected


@pytest.mark.parametrize(("descriptors", "connections"), [(0, 100), (1024, 100), (64, 8), (10, 4)])
def test_there_are_no_more_connections_than_descriptors_for_them(
    caplog: pytest.LogCaptureFixture, descriptors: int, connections: int
) -> None:
    assert within(descriptors, HttpOptions()).max_connections == connections
    assert ("ulimit -n" in caplog.text) == (connections < 100)


def test_what_this_sidecar_does_not_have_is_in_the_log(descriptor: int, caplog: pytest.LogCaptureFixture) -> None:
    assert served_by(descriptor, None, "io-uring") == "OwnSession"
    assert "'io-uring'" in caplog.text
