"""Which session serves, and what happens where ours was not built."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from csi.fs.published import NothingPublished
from csi.fuse.choice import OWN, PYFUSE3, choose
from csi.fuse.native.answers import Answers
from csi.volume.spec import MountArguments
from tests.support.tree_filesystem import TreeFilesystem


def test_our_own_publishes_in_its_tables() -> None:
    assert isinstance(choose(OWN).publish(), Answers)


def test_pyfuse3_publishes_nothing() -> None:
    assert isinstance(choose(PYFUSE3).publish(), NothingPublished)


def test_where_ours_is_not_built_pyfuse3_serves_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "csi.fuse.native.answers", None)

    with caplog.at_level(logging.WARNING):
        chosen = choose(OWN)

    assert chosen.name == PYFUSE3
    assert "not built" in caplog.text


def test_tables_of_another_session_are_refused() -> None:
    with pytest.raises(TypeError):
        choose(OWN).open(0, TreeFilesystem(), MountArguments(), NothingPublished(), workers=1, on_started=lambda: None)


def test_our_own_session_loads_no_event_loop() -> None:
    program = (
        "import sys; from csi.sidecar.assemble import assemble; from csi.fuse.choice import choose; "
        "print(choose('own').name, [name for name in ('pyfuse3', 'trio', 'asyncio') if name in sys.modules])"
    )

    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert found.stdout == "own []\n"
