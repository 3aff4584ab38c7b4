"""Numbers that processes share."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from typing import Any

import pytest

from csi.torch.tally import DatasetStatistics, Tally


def work(tally: Tally, row: int) -> None:
    for _ in range(10):
        tally.count(row, 1, 100)
    tally.skip(row)
    tally.epoch = tally.epoch + 1


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_what_workers_count_is_seen_by_who_started_them(start: str) -> None:
    tally = Tally()
    tally.count(0, 1, 7)
    context = multiprocessing.get_context(start)
    for row in (1, 2):
        worker = context.Process(target=work, args=(tally, row))  # type: ignore[attr-defined]
        worker.start()
        worker.join()
    assert tally.statistics() == DatasetStatistics(21, 2007, 2)
    assert tally.epoch == 2


def test_a_copy_counts_for_itself_and_keeps_the_epoch() -> None:
    tally = Tally()
    tally.epoch = 5
    copy = pickle.loads(pickle.dumps(tally))
    copy.count(0, 1, 1)
    assert copy.epoch == 5
    assert tally.statistics() == DatasetStatistics(0, 0, 0)


def note(tally: Tally, row: int, told: Any) -> None:
    tally.note(row, f"oss://bucket/{row}")
    told.put(os.getpid())


def test_the_last_sample_of_a_worker_that_is_gone_is_known() -> None:
    tally = Tally()
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    processes = {}
    for row in (1, 2):
        worker = context.Process(target=note, args=(tally, row, told))
        worker.start()
        processes[told.get()] = f"oss://bucket/{row}"
        worker.join()
    assert {process: tally.noted(process) for process in processes} == processes
    assert tally.noted(1) == ""
    longest = "oss://" + "b" * 63 + "/" + "k" * 1023
    tally.note(1023, "oss://bucket/before")
    tally.note(1, longest)
    assert tally.noted(os.getpid()) == longest
    assert tally.statistics() == DatasetStatistics(0, 0, 0)
