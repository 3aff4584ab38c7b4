"""Plots say what results.json says."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from benchmarks.plots import COLOURS, write_plots

ROW = {"work": "listing", "case": "ls", "ours": 2.0, "peer": "s3fs", "peer_value": 9.0, "value": 4.5, "bar": 5.0}
ROW |= {"holds": False, "rounds": 5, "spread": [4.0, 5.0]}


def test_a_picture_for_each_work_that_is_compared(tmp_path: Path) -> None:
    against_a_number = ROW | {"work": "growth", "peer": "bar", "peer_value": None}
    of_another_metric = ROW | {"work": "memory", "case": "handles: peak RSS"}
    write_plots({"rows": [ROW, against_a_number, of_another_metric]}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["listing.svg"]
    text = (tmp_path / "listing.svg").read_text()
    ElementTree.fromstring(text)
    assert "s3fs (9; ours 2)" in text
    assert COLOURS[False] in text
    assert ">4.50<" in text
