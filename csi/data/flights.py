"""Requests under way, and second requests for those that are overdue.

A store answers nearly all requests in about the same time and a few, for no reason that can be seen, in ten or a
hundred times as long. A request that takes more than twice what 99 of 100 of its size took lately, and at least 0.3 s,
is made a second time on another connection: whichever ends first is used, the other one's connection is closed. Both
ask for one version by its ETag. Second requests are a few in a hundred at most, so that a store that has become slow
does not get twice the load.

Must not know how a request is made or what to do when it comes: that is `blocks`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from csi.data.pace import Pace
from csi.data.shelves import Block
from csi.oss.cancellation import Cancellation
from csi.volume.units import Seconds

LOOK = Seconds(0.1)
"""How often it is looked for overdue requests while there are any."""

_FREE = 4
_SHARE = 33  # one in so many requests may be made twice, and the first few
_AT_ONCE = 8
_IDLE_LOOKS = 20


@dataclass(frozen=True, slots=True)
class FlightStatistics:
    """Requests under way, those of them that are being made a second time, and second requests so far."""

    under_way: int
    repeating: int
    repeated: int


class Flight(Cancellation):
    """The request of one block: since when, and what ends it. `second` is set when it was made again, once."""

    __slots__ = ("began", "block", "second", "size")

    def __init__(self, block: Block, began: float) -> None:
        super().__init__()
        self.block = block
        self.size = block.end - block.start
        self.began = began
        self.second: Cancellation | None = None


class Flights:
    """Looks after them on a thread of its own, which sleeps while there are none.

    `repeat` makes the request of a flight again, on the calling thread, and returns when that has ended. `_flights` is
    changed by whole operations only; `_lock` guards the rest. Nothing is called while it is held.
    """

    def __init__(
        self,
        pace: Pace,
        repeat: Callable[[Flight, Cancellation], None],
        *,
        clock: Callable[[], float],
        look: Seconds = LOOK,
    ) -> None:
        self._pace = pace
        self._repeat = repeat
        self._clock = clock
        self._look = look
        self._flights: dict[Flight, None] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._watching = False
        self._closed = False
        self._begun = 0
        self._repeated = 0
        self._repeating = 0

    def begin(self, block: Block) -> Flight:
        """The request of `block` begins; `end` is owed."""
        flight = Flight(block, self._clock())
        self._flights[flight] = None
        self._begun += 1
        if not self._watching:
            self._watch()
        return flight

    def end(self, flight: Flight) -> None:
        """It has been answered, or another one for the same bytes has."""
        self._flights.pop(flight, None)

    def close(self) -> None:
        """Look after nothing any more."""
        self._closed = True
        self._wake.set()

    def statistics(self) -> FlightStatistics:
        with self._lock:
            return FlightStatistics(len(self._flights), self._repeating, self._repeated)

    def overdue(self, now: float) -> list[Flight]:
        """Flights to be repeated now."""
        found = []
        for flight in tuple(self._flights):
            if flight.second is None and now - flight.began > self._look:
                limit = self._pace.overdue(flight.size)
                if limit is not None and now - flight.began > limit:
                    found.append(flight)
        return found

    # --- the thread that looks ---

    def _watch(self) -> None:
        with self._lock:
            if self._watching or self._closed:
                return
            self._watching = True
        threading.Thread(target=self._work, name="ossfuse-overdue", daemon=True).start()

    def _work(self) -> None:
        idle = 0
        while not self._closed and idle < _IDLE_LOOKS:
            self._wake.wait(self._look)
            idle = 0 if self._flights else idle + 1
            for flight in self.overdue(self._clock()):
                self._try_again(flight)
        with self._lock:
            self._watching = False

    def _try_again(self, flight: Flight) -> None:
        with self._lock:
            if self._repeating >= _AT_ONCE or self._repeated >= _FREE + self._begun // _SHARE:
                return
            self._repeating += 1
            self._repeated += 1
        flight.second = second = Cancellation()
        threading.Thread(target=self._fly, args=(flight, second), name="ossfuse-again", daemon=True).start()

    def _fly(self, flight: Flight, second: Cancellation) -> None:
        try:
            self._repeat(flight, second)
        finally:
            with self._lock:
                self._repeating -= 1
