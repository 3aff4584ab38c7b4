"""results.json: its form is the one that was promised, and a run of a part leaves the rest alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from benchmarks import results
from benchmarks.model import Row

ROW = Row("small-files", "case", 10.0, "rclone", 5.0, 2.0, 2.5, False, 5, (1.5, 2.5))


def test_the_form_is_the_promised_one(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, results.merged({}, [ROW], "a machine", "2026-11-25", "abc"))
    assert json.loads(path.read_text()) == {
        "machine": "a machine",
        "date": "2026-11-25",
        "commit": "abc",
        "rows": [
            {
                "work": "small-files",
                "case": "case",
                "ours": 10.0,
                "peer": "rclone",
                "peer_value": 5.0,
                "value": 2.0,
                "bar": 2.5,
                "holds": False,
                "rounds": 5,
                "spread": [1.5, 2.5],
            }
        ],
    }


def test_rows_take_the_place_of_those_of_the_same_work_case_and_peer() -> None:
    others = [replace(ROW, peer="s3fs"), replace(ROW, case="another"), replace(ROW, work="listing")]
    before = results.merged({}, [others[0], ROW, *others[1:]], "m", "d", "c")
    after = results.merged(before, [replace(ROW, value=3.0)], "m", "later", "c2")
    assert [row["value"] for row in after["rows"]] == [2.0, 3.0, 2.0, 2.0]
    assert (after["date"], after["commit"]) == ("later", "c2")


def test_of_a_work_that_is_measured_as_a_whole_nothing_older_stays() -> None:
    before = results.merged({}, [replace(ROW, peer="s3fs"), ROW, replace(ROW, work="listing")], "m", "d", "c")
    after = results.merged(before, [replace(ROW, value=3.0)], "m", "later", "c2", whole=ROW.work)
    assert [(row["work"], row["value"]) for row in after["rows"]] == [("small-files", 3.0), ("listing", 2.0)]


def test_a_ratio_to_nothing_stays_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    endless = replace(ROW, value=math.inf, spread=(1.0, math.inf))
    results.write(path, results.merged({}, [endless], "m", "d", "c"))
    row = json.loads(path.read_text())["rows"][0]
    assert (row["value"], row["spread"]) == (None, [1.0, None])


def test_what_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert results.read(tmp_path / "none.json") == {"rows": []}
    results.write(tmp_path / "none.json", results.merged({}, [], "m", "d", "c"))
    assert results.read(tmp_path / "none.json")["rows"] == []
