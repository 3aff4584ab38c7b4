"""Names asked for at the same time: how many requests that takes, and that each answer is as new as one of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from csi.errors import PermissionDenied
from csi.fs.metadata import DIRECTORY, ask
from csi.fs.together import Together
from csi.volume.units import ObjectKey
from tests.support.engines import Hold, Running, until
from tests.support.memory_store import MemoryStore

LIST = "ListObjectsV2"


class Listings(Hold):
    """Holds listings, and counts them."""

    def __init__(self) -> None:
        super().__init__(LIST)
        self.count = 0

    def __call__(self, operation: str, key: str) -> None:
        self.count += operation == LIST
        super().__call__(operation, key)


class Clock:
    """Steady seconds that advance by `step` each time they are asked for."""

    def __init__(self, step: float = 0.001) -> None:
        self.step = step
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def together(store: MemoryStore, *, step: float = 0.001, symlinks: bool = True) -> Together:
    serials = itertools.count(1)
    made = Together(store, lambda: next(serials), lambda: 0.0, symlinks=symlinks, monotonic=Clock(step))
    made.ask(ObjectKey("d/"), b"something")  # how long requests take is known from now on
    return made


def ask_at_once(asked: Together, hold: Hold, names: list[bytes], then: Callable[[], None] | None = None) -> Running:
    """`names` are asked for while a request for another name of the directory is under way."""
    running = Running()
    hold.hold()
    running.start(lambda: asked.ask(ObjectKey("d/"), b"first"))
    hold.wait_for(1)
    for name in names:
        running.start(lambda name=name: (name, asked.ask(ObjectKey("d/"), name).facts))
    until(lambda: asked.statistics().waiting == len(names) or asked.statistics().under_way > 1)
    if then is not None:
        then()
    hold.release()
    running.join()
    return running


def answers(running: Running) -> dict[bytes, object]:
    return dict(pair for pair in running.results if isinstance(pair[0], bytes))


def test_names_that_wait_are_asked_for_by_one_request() -> None:
    hold = Listings()
    store = MemoryStore(hold)
    store.seed("d/0003", b"x" * 7)
    store.seed("d/0005/below", b"")
    asked = together(store)
    before = hold.count
    names = [b"%04d" % number for number in range(8)]
    found = answers(ask_at_once(asked, hold, names))

    assert hold.count - before == 2
    assert found == {name: ask(store, ObjectKey("d/" + name.decode()), symlinks=True) for name in names}
    assert found[b"0003"].size == 7
    assert found[b"0005"] is DIRECTORY
    assert asked.statistics() == type(asked.statistics())(0, 0, 7)


def test_what_was_made_after_a_name_was_asked_for_may_be_seen_and_what_was_made_before_is() -> None:
    hold = Listings()
    store = MemoryStore(hold)
    asked = together(store)
    found = answers(ask_at_once(asked, hold, [b"a1", b"a2"], lambda: store.seed("d/a2", b"new")))
    assert found[b"a1"] is None
    assert found[b"a2"].size == 3, "it was there before the request that tells of it"


def test_names_that_lie_far_apart_are_asked_for_by_themselves() -> None:
    hold = Listings()
    store = MemoryStore(hold)
    for number in range(300):
        store.seed(f"d/m{number:03}", b"")
    asked = together(store)
    found = answers(ask_at_once(asked, hold, [b"l", b"z"]))
    assert found == {b"l": None, b"z": None}
    assert asked.statistics().shared == 0


def test_where_requests_take_long_nobody_waits_for_another() -> None:
    hold = Listings()
    store = MemoryStore(hold)
    asked = together(store, step=0.02)
    before = hold.count
    ask_at_once(asked, hold, [b"1", b"2", b"3"])
    assert hold.count - before == 4


def test_a_failure_is_told_to_all_who_waited_and_is_not_remembered() -> None:
    hold = Listings()
    store = MemoryStore(hold)
    asked = together(store)
    running = Running()
    hold.hold()
    running.start(lambda: asked.ask(ObjectKey("d/"), b"first"))
    hold.wait_for(1)

    def refused(name: bytes) -> str:
        with pytest.raises(PermissionDenied):
            asked.ask(ObjectKey("d/"), name)
        return "refused"

    for name in (b"1", b"2"):
        running.start(lambda name=name: refused(name))
    until(lambda: asked.statistics().waiting == 2)
    hold.fail_next(PermissionDenied("no"))
    hold.release()
    running.join()
    assert running.results.count("refused") == 2
    assert asked.ask(ObjectKey("d/"), b"1").facts is None
    assert (asked.statistics().under_way, asked.statistics().waiting) == (0, 0)


def test_a_link_that_is_shown_as_a_file_is_asked_for_by_itself() -> None:
    hold = Listings()
    store = MemoryStore(hold)
    store.seed("d/target", b"12345")
    store.put_symlink(ObjectKey("d/a1"), "d/target")
    asked = together(store, symlinks=False)
    found = answers(ask_at_once(asked, hold, [b"a1", b"a2"]))
    assert found == {b"a1": ask(store, ObjectKey("d/a1"), symlinks=False), b"a2": None}
    assert asked.statistics().shared == 0
