"""The batches that wait for a worker."""

from __future__ import annotations

from queue import Empty, Queue
from typing import Any

import pytest

from csi.torch.upcoming import Upcoming, upcoming


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


def test_without_a_loop_of_a_loader_nothing_is_known() -> None:
    assert upcoming() is None


def test_a_loop_of_somebody_else_is_left_alone() -> None:
    def _worker_loop(index_queue: Any) -> Any:
        return upcoming()

    assert _worker_loop(Queue()) is None
