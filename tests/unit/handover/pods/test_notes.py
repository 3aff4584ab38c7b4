from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from csi.handover.mounting import MountOrder
from csi.handover.pods.notes import Note, Notes
from csi.handover.state import RuntimeDirectory
from csi.handover.types import PodReference, SidecarPlace
from csi.handover.wire import Mount
from csi.volume.units import MIB, Bytes, Seconds

NOTE = Note(
    pod=PodReference("uid-1", "trainer", "default", "robot", True),
    place=SidecarPlace("ossfuse-data", Path("/pods/uid-1/\udcff"), Bytes(512 * MIB), Seconds(30.0)),
    given="as asked",
    frame=Mount(1, "vol", "hash", '{"spec": 1}', True, "credentials", 512 * MIB, 28.0),
    order=MountOrder("ossfuse:vol#hash", "/pods/uid-1/mount", True, False),
)


@pytest.fixture
def notes(tmp_path):
    runtime = RuntimeDirectory(tmp_path / "note", os.getuid(), os.getgid())
    runtime.create()
    return Notes(runtime)


def test_a_note_comes_back_as_it_was_written(notes):
    assert notes.read() is None
    notes.write(NOTE)
    assert notes.read() == NOTE
    notes.write(replace(NOTE, given="otherwise"))
    assert notes.read().given == "otherwise"


def test_having_been_served_is_remembered(notes):
    assert not notes.served
    notes.mark_served()
    assert notes.served


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "",
        lambda _: "nothing of JSON",
        lambda _: "[]",
        lambda content: json.dumps(content | {"version": 2}),
        lambda content: json.dumps({key: value for key, value in content.items() if key != "frame"}),
        lambda content: json.dumps(content | {"frame": content["frame"] | {"novelty": 1}}),
        lambda content: json.dumps(content | {"place": None}),
    ],
    ids=["empty", "no JSON", "no object", "another version", "incomplete", "unknown field", "no place"],
)
def test_a_note_that_is_not_understood_is_none(notes, tmp_path, spoil):
    notes.write(NOTE)
    path = tmp_path / "note" / "publication"
    path.write_text(spoil(json.loads(path.read_text())))
    assert notes.read() is None
