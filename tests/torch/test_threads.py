"""What fetches samples ends when nobody holds the data set or the sample any more."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Iterator

import pytest

from csi.torch import OssMapDataset
from tests.support.engines import until
from tests.torch.conftest import Ground

LARGE = bytes(2_500_000)


@pytest.fixture
def others() -> Iterator[set[threading.Thread]]:
    """The threads there were, of which those of earlier tests may still end; after the test there are no more."""
    gc.collect()
    before = set(threading.enumerate())
    yield before
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before)


def test_threads_end_with_the_data_set_they_fetch_for(ground: Ground, others: set[threading.Thread]) -> None:
    for number in range(8):
        ground.emulator.seed(f"data/{number}", b"small")
    made = OssMapDataset.from_prefix(ground.uri("data/"), **ground.arguments)
    kept = made.__getitems__(range(8))
    assert set(threading.enumerate()) - others
    del made
    assert [sample.read() for sample in kept] == [b"small"] * 8


def test_threads_end_with_a_large_sample_that_came_from_another_process(
    ground: Ground, others: set[threading.Thread]
) -> None:
    ground.configure(datasetConfig={"prefetchUnitMB": 1})
    ground.emulator.seed("data/large", LARGE)
    made = OssMapDataset.from_prefix(ground.uri("data/"), **ground.arguments)
    copy = pickle.loads(pickle.dumps(made[0]))
    del made
    assert copy.read() == LARGE
    assert set(threading.enumerate()) - others


def test_a_large_sample_is_read_when_its_data_set_is_gone(ground: Ground, others: set[threading.Thread]) -> None:
    ground.configure(datasetConfig={"prefetchUnitMB": 1})
    ground.emulator.seed("data/large", LARGE)
    made = OssMapDataset.from_prefix(ground.uri("data/"), **ground.arguments)
    sample = made[0]
    del made
    gc.collect()
    sample.seek(1_000_000)
    assert sample.read() == LARGE[1_000_000:]
    assert set(threading.enumerate()) - others
