"""What happened: counters of every request by operation and status, and a log of the most recent ones.

Meant for tests such as "exactly one GET for each file". A request is entered when its operation is known and counted
when it ends. No header that carries a credential is kept.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

LOG_LENGTH = 20_000


@dataclass(slots=True)
class Entry:
    """One request. `status` 0: no answer was sent (reset, blackhole). `outcome`: '', reset, truncated, gone."""

    serial: int
    time: float
    request_id: str
    method: str
    operation: str
    bucket: str
    key: str
    range: str
    connection: int
    caller: str
    user_agent: str
    query: str
    status: int = 0
    code: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    outcome: str = ""
    faults: list[str] = field(default_factory=list)
    done: bool = False


class Traffic:
    """Used on the event loop only."""

    def __init__(self) -> None:
        self._log: deque[Entry] = deque(maxlen=LOG_LENGTH)
        self._serial = 0
        self._under_way: dict[int, tuple[Entry, Callable[[], bool]]] = {}
        self._forget()

    def enter(self, entry: Entry, is_waited_for: Callable[[], bool]) -> None:
        """A request begins; `is_waited_for`: whether its client is there yet."""
        self._serial += 1
        entry.serial = self._serial
        self._log.append(entry)
        self._under_way[entry.serial] = (entry, is_waited_for)
        now = self._waited_for()
        for name in (entry.operation, ""):
            self._peak[name] = max(self._peak[name], now[name])
        self._connections.add(entry.connection)

    def sent(self, entry: Entry) -> None:
        """The client has its answer, or is about to: what it asks for next is not asked for at the same time."""
        self._under_way.pop(entry.serial, None)

    def leave(self, entry: Entry) -> None:
        entry.done = True
        self.sent(entry)
        self._requests[entry.operation, entry.status] += 1
        self._bytes_in[entry.operation] += entry.bytes_in
        self._bytes_out[entry.operation] += entry.bytes_out

    def counters(self) -> dict[str, object]:
        operations: dict[str, dict[str, object]] = {}
        for operation in sorted({operation for operation, _ in self._requests}):
            by_status = {str(status): count for (name, status), count in self._requests.items() if name == operation}
            operations[operation] = {
                "requests": sum(by_status.values()),
                "by_status": by_status,
                "bytes_in": self._bytes_in[operation],
                "bytes_out": self._bytes_out[operation],
                "peak_in_flight": self._peak[operation],
            }
        return {
            "requests": sum(self._requests.values()),
            "bytes_in": sum(self._bytes_in.values()),
            "bytes_out": sum(self._bytes_out.values()),
            "in_flight": len(self._under_way),
            "peak_in_flight": self._peak[""],
            "connections": len(self._connections),
            "operations": operations,
        }

    def requests(self, since: int = 0) -> list[dict[str, object]]:
        """Log entries with a serial above `since`, oldest first."""
        return [asdict(entry) for entry in self._log if entry.serial > since]

    def reset(self) -> None:
        self._log.clear()
        self._forget()

    def _forget(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._bytes_in: Counter[str] = Counter()
        self._bytes_out: Counter[str] = Counter()
        self._peak = self._waited_for()
        self._connections: set[int] = set()

    def _waited_for(self) -> Counter[str]:
        """Requests under way, by operation and ('') all: of a client that went away the server may not know it yet."""
        now: Counter[str] = Counter()
        for entry, is_waited_for in self._under_way.values():
            if is_waited_for():
                now.update((entry.operation, ""))
        return now
