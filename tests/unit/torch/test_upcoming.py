"""The batches that wait for a worker."""

from __future__ import annotations

from queue import Empty, Queue
from types import ModuleType
from typing import Any

import pytest

from csi.torch.upcoming import Upcoming, turn


def test_who_reads_the_queue_gets_the_same_messages_in_the_same_order() -> None:
    queue: Queue[Any] = Queue()
    messages: list[Any] = [(0, [1, 2]), (1, ([3, 4], False)), "resume", (2, [5]), None]
    for message in messages[:2]:
        queue.put(message)
    seen = Upcoming(queue)
    assert seen.numbers() == [1, 2, 3, 4]
    for message in messages[2:]:
        queue.put(message)
    assert seen.numbers() == [1, 2, 3, 4]
    assert [queue.get(timeout=1) for _ in messages] == messages
    assert seen.numbers() == []
    with pytest.raises(Empty):
        queue.get(timeout=0.01)


def test_all_data_sets_of_a_process_read_one_queue_together(loop: ModuleType) -> None:
    queue: Queue[Any] = Queue()
    for message in ([3, 4], [5]):
        queue.put((1, message))
    turns = loop.__dict__["_worker_loop"](queue, (0, [1, 2]), "data set")
    assert [(found.dataset, found.batch) for found in turns] == [("data set", [1, 2])] * 2
    assert [found.upcoming.numbers() for found in turns] == [[3, 4, 5]] * 2


def test_what_an_iterable_data_set_is_asked_for_is_no_number(loop: ModuleType) -> None:
    assert loop.__dict__["_worker_loop"](Queue(), (0, [None, None]), "data set") == [None, None]


@pytest.fixture
def loop() -> ModuleType:
    """A module that has PyTorch's worker loop as far as it is known."""
    made = ModuleType("torch.utils.data.loop")
    made.__dict__["turn"] = turn
    exec("def _worker_loop(index_queue, r, dataset):\n    return [turn(), turn()]", made.__dict__)
    return made


def test_without_a_loop_of_a_loader_nothing_is_known() -> None:
    assert turn() is None


def test_a_loop_of_somebody_else_is_left_alone() -> None:
    def _worker_loop(index_queue: Any) -> Any:
        return turn()

    assert _worker_loop(Queue()) is None
