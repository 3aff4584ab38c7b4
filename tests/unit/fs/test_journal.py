"""What is in a journal when its writer is killed, at whatever instant, and that it never takes more than its room."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.fs.journal import LEAST, SIZE, Journal, make


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = make(LEAST)
    yield made
    os.close(made)


def known(descriptor: int) -> dict[str, list[Any]]:
    """What the next process finds."""
    journal = Journal(descriptor)
    found = {key: list(values) for key, values in journal.left()}
    journal.close()
    return found


def test_the_next_process_finds_what_was_noted_last_and_not_dropped(descriptor: int) -> None:
    journal = Journal(descriptor)
    journal.note("a", [1, "one"])
    journal.note("b", ["\udcff", None, 2**63 - 1])
    journal.note("c", [3])
    journal.note("a", [4, "four"])
    journal.drop("c")
    journal.drop("never noted")

    assert known(descriptor) == {"b": ["\udcff", None, 2**63 - 1], "a": [4, "four"]}
    assert known(descriptor) == {"b": ["\udcff", None, 2**63 - 1], "a": [4, "four"]}


def test_what_was_noted_last_comes_last(descriptor: int) -> None:
    journal = Journal(descriptor)
    for key in ("a", "b", "a"):
        journal.note(key, [len(journal.left())])

    assert list(known(descriptor)) == ["b", "a"]


def test_what_an_earlier_generation_wrote_behind_the_end_is_not_taken_for_more(descriptor: int) -> None:
    first = Journal(descriptor)
    first.note("kept", ["x" * 100])
    first.note("dropped", ["x" * 100])
    Journal(descriptor).drop("dropped")
    Journal(descriptor)  # in the half of the first one

    assert list(known(descriptor)) == ["kept"]


def test_a_process_knows_how_many_there_were_before_it(descriptor: int) -> None:
    assert [Journal(descriptor).place for _ in range(3)] == [1, 2, 3]


def test_however_much_is_noted_and_dropped_there_is_room(descriptor: int) -> None:
    journal = Journal(descriptor)
    journal.note("kept", ["from the beginning"])
    for number in range(2000):
        assert journal.note(f"handle {number}", [number, "x" * 100])
        journal.drop(f"handle {number}")

    assert known(descriptor) == {"kept": ["from the beginning"]}


def test_what_finds_no_room_is_refused_and_counted_until_something_is_dropped(descriptor: int) -> None:
    journal = Journal(descriptor)
    taken = 0
    while journal.note(f"handle {taken}", ["x" * 100]):
        taken += 1

    assert journal.statistics().refused == 1
    assert journal.statistics().records == taken
    assert journal.statistics().held <= journal.statistics().room <= LEAST // 2
    assert len(known(descriptor)) == taken
    journal = Journal(descriptor)
    assert not journal.note("another", ["x" * 100])
    journal.drop("handle 0")
    assert journal.note("another", ["x" * 100])


def test_nothing_outdated_is_left_of_what_has_no_room_any_more(descriptor: int) -> None:
    journal = Journal(descriptor)
    journal.note("a", ["small"])

    assert not journal.note("a", ["x" * LEAST])

    assert known(descriptor) == {}


def test_how_much_room_is_taken_is_known(descriptor: int) -> None:
    journal = Journal(descriptor)
    assert journal.filled == 0
    while journal.filled < 0.5:
        journal.note(f"directory {journal.statistics().records}", ["x" * 100])

    assert journal.note("file", ["x" * 100])
    for record in range(journal.statistics().records):
        journal.drop(f"directory {record}")
    journal.drop("file")
    assert journal.filled == 0


def test_a_file_that_is_no_journal_has_nothing_in_it_and_can_become_one(descriptor: int) -> None:
    os.pwrite(descriptor, os.urandom(LEAST), 0)

    assert known(descriptor) == {}
    Journal(descriptor).note("a", [1])
    assert known(descriptor) == {"a": [1]}


def test_a_file_that_is_too_small_is_refused() -> None:
    descriptor = make(LEAST - 1)
    try:
        with pytest.raises(ValueError, match=str(LEAST)):
            Journal(descriptor)
    finally:
        os.close(descriptor)


def test_a_new_journal_takes_memory_only_for_what_is_noted() -> None:
    descriptor = make()
    try:
        Journal(descriptor).note("a", [1])
        assert os.fstat(descriptor).st_size == SIZE
        assert os.fstat(descriptor).st_blocks * 512 <= 2 * mmap.PAGESIZE
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


# --- killed at any instant ---


class Tape:
    """Memory of which every change is kept, in order."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self.changes: list[tuple[int, bytes]] = []

    def __setitem__(self, where: slice, data: bytes) -> None:
        self.changes.append((where.start, data))
        self._memory[where] = data


KEYS = st.sampled_from(["node 1", "node 2", "handle 1", "handle 2", "handle 3"])
NOTES = st.tuples(KEYS, st.integers(0, 3000).map(lambda size: ["x" * size]))
OPERATIONS = st.lists(NOTES | st.tuples(KEYS, st.none()), max_size=40)


@given(before=OPERATIONS, last=NOTES | st.tuples(KEYS, st.none()), data=st.data())
def test_a_record_that_was_cut_off_was_never_begun_or_is_whole(
    before: list[tuple[str, list[str] | None]], last: tuple[str, list[str] | None], data: st.DataObject
) -> None:
    descriptor = make(LEAST)
    try:
        journal = Journal(descriptor)
        expected: dict[str, list[str]] = {}
        for operation in before:
            apply(journal, operation, expected)
        earlier, image = dict(expected), os.pread(descriptor, LEAST, 0)
        tape = Tape(journal._memory)
        journal._memory = tape  # type: ignore[assignment]
        apply(journal, last, expected)

        written = sum(len(change) for _, change in tape.changes)
        left = data.draw(st.integers(0, written), label="bytes written before the kill")
        done = left == written
        os.pwrite(descriptor, image, 0)
        for start, change in tape.changes:
            os.pwrite(descriptor, change[:left], start)
            left -= min(left, len(change))

        found = known(descriptor)
        assert found == expected if done else found in (earlier, expected)
        assert known(descriptor) == found
    finally:
        os.close(descriptor)


def apply(journal: Journal, operation: tuple[str, list[str] | None], expected: dict[str, list[str]]) -> None:
    key, values = operation
    expected.pop(key, None)
    if values is None:
        journal.drop(key)
    elif journal.note(key, values):
        expected[key] = values
