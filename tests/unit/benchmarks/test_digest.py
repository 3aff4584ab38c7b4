"""The tables of the documents say what results.json says."""

from __future__ import annotations

from benchmarks.digest import digest

ROW = {"work": "torch-images", "ours": 3000.0, "peer": "osstorchconnector", "peer_value": 1500.0, "value": 2.0}
ROW |= {"bar": 1.2, "holds": True, "rounds": 5, "spread": [1.5, 2.5], "case": "map, 4 workers"}


def test_a_work_is_a_picture_and_a_table_for_each_metric_that_is_shown() -> None:
    mount = ROW | {"peer": "ossfuse mount", "peer_value": 2000.0, "value": 1.5, "bar": 2.0, "holds": False}
    other = ROW | {"case": "iterable, 4 workers", "bar": None, "holds": None}
    cost = ROW | {"case": "map, 4 workers: CPU-s/GB", "ours": 1.5, "peer_value": 3.0}
    limit = ROW | {
        "case": "map, 4 workers: requests an object",
        "peer": "bar",
        "peer_value": None,
        "bar": 2.0,
        "ours": 1.0,
    }
    hidden = ROW | {"case": "map, 4 workers: peak RSS, MiB"}
    elsewhere = ROW | {"work": "listing"}
    document = {"rows": [ROW, mount, other, cost, limit, hidden, elsewhere]}
    assert digest("torch-images", ("images/s", "CPU-s/GB", "requests an object"), document, "benchmarks") == [
        "![torch-images](benchmarks/torch-images.svg)",
        "",
        "| images/s | ours | osstorchconnector | ossfuse mount |",
        "|---|---:|---:|---:|",
        "| map, 4 workers | 3,000 | 1,500 (2.00 × ✓) | 2,000 (1.50 × ✗) |",
        "| iterable, 4 workers | 3,000 | 1,500 (2.00 ×) |  |",
        "",
        "| CPU-s/GB | ours | osstorchconnector |",
        "|---|---:|---:|",
        "| map, 4 workers | 1.5 | 3 (2.00 × ✓) |",
        "",
        "| requests an object | ours | the bar |",
        "|---|---:|---:|",
        "| map, 4 workers | 1 | 2 ✓ |",
        "",
    ]


def test_a_work_that_was_not_measured_is_not_shown() -> None:
    assert digest("torch-checkpoint", ("MB/s",), {"rows": [ROW]}, "benchmarks") == []
