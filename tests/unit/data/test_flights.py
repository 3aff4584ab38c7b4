"""Second requests for those that are overdue: when, how many, and that only one of the two is used."""

from __future__ import annotations

import threading
from collections.abc import Callable

from csi.data.engine import DataEngine
from csi.data.flights import Flights
from csi.data.pace import Pace
from csi.data.shelves import Block, Shelf
from csi.errors import EndpointUnreachable, PreconditionFailed
from csi.oss.cancellation import Cancellation
from csi.oss.store import ObjectVersion
from csi.volume.units import KIB, MIB, Bytes, ETag, ObjectKey
from tests.support.engines import LONG, Running, content, engine_over, seeded, until
from tests.support.memory_store import MemoryStore

SIZE = 100 * KIB


class Straggler:
    """An exchange that does not go on until it is cut or let go on."""

    def __init__(self) -> None:
        self.was_cut = False
        self.goes_on = threading.Event()

    def cut(self) -> None:
        self.was_cut = True
        self.goes_on.set()


class StragglingStore(MemoryStore):
    """The first requests for `key`, as many as it is said, straggle; `refused` is what later ones raise."""

    def __init__(self, key: str, stragglers: int = 1) -> None:
        super().__init__()
        self.key = key
        self.left = stragglers
        self.stragglers: list[Straggler] = []
        self.refused: Exception | None = None

    @property
    def cut(self) -> int:
        return sum(straggler.was_cut for straggler in self.stragglers)

    def fill(
        self, version: ObjectVersion, offset: int, target: memoryview, *, cancellation: Cancellation | None = None
    ) -> None:
        assert cancellation is not None
        if version.key == self.key and self.left:
            self.left -= 1
            straggler = Straggler()
            cancellation.begin(straggler)
            self.stragglers.append(straggler)
            target[:] = bytes(len(target))
            assert straggler.goes_on.wait(LONG), "nobody gave this request up"
            cancellation.end()
            if straggler.was_cut:
                raise EndpointUnreachable("cut")
        elif self.refused is not None:
            raise self.refused
        super().fill(version, offset, target)


def know(engine: DataEngine, seconds: float = 0.001) -> None:
    """Let the engine have seen enough requests to know when one is overdue."""
    for _ in range(20):
        engine._cache.pace.note(SIZE, seconds)


def test_a_straggler_is_asked_for_again_and_given_up() -> None:
    store = StragglingStore("slow")
    data = content(SIZE)
    version = seeded(store, "slow", data)
    with engine_over(store) as engine:
        know(engine)
        assert engine.open_reader(version).read(0, SIZE) == data
        until(lambda: store.cut == 1)
        until(lambda: engine.statistics().downloads.running == 0)
        statistics = engine.statistics().cache
    assert (statistics.flights.repeated, statistics.in_flight, statistics.failed) == (1, 0, 0)


def test_who_waits_for_a_straggler_of_another_gets_its_bytes_too() -> None:
    store = StragglingStore("slow")
    data = content(SIZE)
    version = seeded(store, "slow", data)
    with engine_over(store) as engine:
        know(engine)
        read: list[bytes] = []
        running = Running()
        for _ in range(4):
            running.start(lambda: read.append(bytes(engine.open_reader(version).read(0, SIZE))))
        running.join()
    assert read == [data] * 4


def test_a_window_goes_on_past_a_straggling_range() -> None:
    store = StragglingStore("large", stragglers=0)
    data = content(24 * MIB)
    version = seeded(store, "large", data)
    with engine_over(store, budget=256 * MIB) as engine:
        for _ in range(20):
            for size in (128 * KIB, MIB, 2 * MIB, 4 * MIB):
                engine._cache.pace.note(size, 0.001)
        reader = engine.open_reader(version)
        assert reader.read(0, MIB) == data[:MIB]
        store.left = 1
        for offset in range(MIB, 24 * MIB, MIB):
            assert reader.read(offset, MIB) == data[offset : offset + MIB]
    assert store.cut == 1


def test_what_has_no_etag_is_not_asked_for_twice() -> None:
    store = StragglingStore("slow")
    data = content(SIZE)
    store.seed("slow", data)
    version = ObjectVersion(ObjectKey("slow"), ETag(""), Bytes(SIZE))
    running = Running()
    with engine_over(store) as engine:
        know(engine)
        running.start(lambda: bytes(engine.open_reader(version).read(0, SIZE)))
        until(lambda: engine.statistics().cache.flights.repeated == 1)
        assert store.ranges == []
        store.stragglers[0].goes_on.set()
        running.join()
    assert running.results == [data]


def test_it_is_for_the_first_request_to_tell_what_is_wrong() -> None:
    store = StragglingStore("slow")
    data = content(SIZE)
    version = seeded(store, "slow", data)
    store.refused = PreconditionFailed("another version")
    running = Running()
    with engine_over(store) as engine:
        know(engine)
        running.start(lambda: bytes(engine.open_reader(version).read(0, SIZE)))
        until(lambda: engine.statistics().cache.flights.repeated == 1)
        store.stragglers[0].goes_on.set()
        running.join()
    assert running.results == [data]
    assert store.cut == 0


# --- how many ---


def flights_at(now: Callable[[], float], repeat: Callable[..., None]) -> tuple[Flights, Pace]:
    pace = Pace()
    for _ in range(20):
        pace.note(SIZE, 0.2)
    return Flights(pace, repeat, clock=now), pace


def block() -> Block:
    return Block(Shelf(ObjectVersion(ObjectKey("k"), ETag("e"), Bytes(SIZE)), 1), 0, SIZE, on_grid=True)


def test_a_request_is_overdue_once_and_in_its_own_time() -> None:
    now = 100.0
    flights, _ = flights_at(lambda: now, lambda *_: None)
    flight = flights.begin(block())
    assert flights.overdue(100.3) == []
    assert flights.overdue(100.5) == [flight]
    flight.second = Cancellation()
    assert flights.overdue(100.5) == []
    flights.end(flight)
    flights.close()


def test_a_store_that_has_become_slow_does_not_get_twice_the_load() -> None:
    now = 100.0
    again: list[object] = []
    flights, _ = flights_at(lambda: now, lambda flight, _: again.append(flight))
    begun = [flights.begin(block()) for _ in range(99)]
    now = 200.0
    until(lambda: flights.statistics().repeated == 7)
    for flight in begun:
        flights.end(flight)
    flights.close()
    until(lambda: len(again) == 7)
