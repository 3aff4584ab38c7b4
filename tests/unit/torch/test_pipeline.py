"""Fetching ahead in the order in which samples are wanted."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from csi.errors import ObjectNotFound
from csi.oss.store import ObjectVersion
from csi.torch.catalogue import Entry
from csi.torch.pipeline import Lookahead, stream
from csi.torch.processors import confine
from csi.torch.slots import Fetched, Slot
from csi.torch.uri import Place
from csi.volume.units import Bytes, ETag, ObjectKey

CONCURRENCY = 4
DEPTH = 3 * CONCURRENCY
SIZE = 10


class Begun:
    """Stands in for `Fetcher`: a sample is there as soon as it is begun. Counts what was begun how often."""

    concurrency = CONCURRENCY

    def __init__(self, budget: int = 1 << 30) -> None:
        self.budget = budget
        self.counted: Counter[int] = Counter()
        self.outstanding = 0
        self.most = 0
        self.together: list[int] = []

    def charge(self, entry: Entry) -> int:
        return entry.size

    def begin(self, entry: Entry) -> Slot:
        self.counted[int(entry.key)] += 1
        self.outstanding += entry.size
        self.most = max(self.most, self.outstanding)
        slot = Slot(entry, entry.size)
        version = ObjectVersion(entry.key, ETag(""), Bytes(entry.size))
        if entry.key == "13":
            slot.error = ObjectNotFound("none")
        else:
            slot.fetched = Fetched(version, bytearray(entry.size), entry.key, entry.size)
        slot.gate.release()
        return slot

    def begin_together(self, entries: list[Entry]) -> list[Slot]:
        self.together.append(len(entries))
        return [self.begin(entry) for entry in entries]

    def taken(self, slot: Slot) -> int:
        self.outstanding -= slot.charge
        return int(slot.entry.key)


def entry(number: int, size: int = SIZE) -> Entry:
    return Entry(Place("bucket"), ObjectKey(str(number)), size)


def streamed(fetcher: Begun, sizes: list[int]) -> Iterator[int]:
    entries = (entry(number, size) for number, size in enumerate(sizes))
    for slot in stream(fetcher, entries):  # type: ignore[arg-type]
        yield fetcher.taken(slot)


def test_a_stream_keeps_its_order_and_begins_each_sample_once() -> None:
    fetcher = Begun()
    assert list(streamed(fetcher, [SIZE] * 100)) == list(range(100))
    assert set(fetcher.counted.values()) == {1}
    assert fetcher.most <= DEPTH * SIZE


def test_a_stream_holds_no_more_than_the_budget_beside_one_sample() -> None:
    fetcher = Begun(budget=25)
    sizes = [random.Random(3).randrange(1, 60) for _ in range(200)]
    assert list(streamed(fetcher, sizes)) == list(range(200))
    assert fetcher.most <= 25 + 60


def test_members_of_an_archive_that_lie_together_are_fetched_together() -> None:
    fetcher = Begun()
    size = 700 * 1024
    members = [Entry(Place("bucket"), ObjectKey("1"), size, offset=place * size, whole=99 * size) for place in range(9)]
    slots = list(stream(fetcher, iter([*members[:5], *members[6:], entry(7)])))  # type: ignore[arg-type]
    assert [slot.entry.offset for slot in slots] == [place * size for place in (0, 1, 2, 3, 4, 6, 7, 8)] + [-1]
    assert fetcher.together == [2, 2, 1, 2, 1, 1]


def test_a_failure_has_its_place_in_the_order() -> None:
    slots = list(stream(Begun(), map(entry, range(20))))  # type: ignore[arg-type]
    assert [slot.error is not None for slot in slots] == [number == 13 for number in range(20)]


def test_a_stream_that_is_given_up_leaves_nothing_to_be_fetched() -> None:
    begun: list[Slot] = []

    class Remembering(Begun):
        def begin(self, entry: Entry) -> Slot:
            begun.append(super().begin(entry))
            return begun[-1]

    running = stream(Remembering(), map(entry, range(50)))  # type: ignore[arg-type]
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert [slot.unwanted for slot in begun] == [False] + [True] * (len(begun) - 1)


def followed(fetcher: Begun, batches: list[list[int]], told: bool = False, count: int = 1000) -> list[list[int]]:
    lookahead = Lookahead(fetcher, entry, count)  # type: ignore[arg-type]
    found = []
    for place, batch in enumerate(batches):
        following = [number for later in batches[place + 1 : place + 3] for number in later] if told else None
        found.append([fetcher.taken(slot) for slot in lookahead.take(batch, following)])
    return found


@pytest.mark.parametrize("size", [1, 3, 16, 40])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_order_without_shuffling_is_guessed_and_nothing_fetched_twice(size: int, workers: int) -> None:
    fetcher = Begun()
    batches = [list(range(start, start + size)) for start in range(0, 400, size)][::workers]
    assert followed(fetcher, batches) == batches
    assert set(fetcher.counted.values()) == {1}
    assert fetcher.most <= (DEPTH + 1) * SIZE
    own = {number for batch in batches for number in batch}
    assert len(set(fetcher.counted) - own) <= DEPTH  # beyond where it ended


def test_looking_ahead_keeps_to_the_budget_beside_one_sample() -> None:
    fetcher = Begun(budget=25)
    batches = [list(range(start, start + 6)) for start in range(0, 90, 6)]
    assert followed(fetcher, batches) == batches
    assert fetcher.most <= 25 + SIZE


def test_a_shuffled_order_that_is_told_is_fetched_once() -> None:
    numbers = list(range(400))
    random.Random(1).shuffle(numbers)
    batches = [numbers[start : start + 7] for start in range(0, 400, 7)]
    fetcher = Begun()
    assert followed(fetcher, batches, told=True) == batches
    assert set(fetcher.counted.values()) == {1}


def test_a_shuffled_order_that_nobody_tells_is_not_guessed() -> None:
    numbers = list(range(400))
    random.Random(1).shuffle(numbers)
    batches = [numbers[start : start + 7] for start in range(0, 70, 7)]
    fetcher = Begun()
    assert followed(fetcher, batches) == batches
    assert sum(fetcher.counted.values()) == 70


def test_what_turns_out_not_to_follow_is_let_go() -> None:
    fetcher = Begun()
    batches = [[0, 1], [2, 3], [700, 701], [3, 3, 3]]
    assert followed(fetcher, batches) == batches


def test_nothing_is_guessed_beyond_the_end() -> None:
    fetcher = Begun()
    followed(fetcher, [[0, 1, 2], [3, 4, 5]], count=8)
    assert max(fetcher.counted) == 7


def test_a_thread_is_confined_to_some_of_its_processors() -> None:
    allowed = os.sched_getaffinity(0)
    found: list[set[int]] = []

    def look() -> None:
        confine(1)
        found.append(os.sched_getaffinity(0))
        confine(1000)
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert [len(processors) for processors in found] == [1, 1]
    assert found[0] <= allowed
    assert os.sched_getaffinity(0) == allowed
