"""Try-locks by key: the second caller for one target path or volume is told to come back, never made to wait.

Kubelet retries whatever fails, so a waiting call would only hold a worker while more of its like queue up behind it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from csi.errors import OperationPending


class KeyedLocks:
    """Which keys are taken. Used from one event loop only, so no lock guards `_taken`: nothing here awaits.

    `hold` is entered on the loop; it may be left on it much later, when work on another thread has ended.
    """

    def __init__(self) -> None:
        self._taken: set[Hashable] = set()

    @contextmanager
    def hold(self, *keys: Hashable, what: str) -> Iterator[None]:
        """Take all `keys` or raise OperationPending naming `what`; never waits."""
        busy = [key for key in keys if key in self._taken]
        if busy:
            raise OperationPending(
                f"another call for {what} is still under way", hint="it will be tried again; no action is needed"
            )
        self._taken.update(keys)
        try:
            yield
        finally:
            self._taken.difference_update(keys)

    def __len__(self) -> int:
        return len(self._taken)
