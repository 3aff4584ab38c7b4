"""Multipart uploads that could not be aborted when their writer failed: tried again until OSS answers.

Parts of an upload that nobody ends are kept, and paid for, for ever; and a writer that failed because OSS was not
reachable could not end its upload for the same reason. Promises: what is left behind is aborted soon after OSS answers
again, or when the volume is taken down; a call never waits for it. What cannot be aborted in the end is logged.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from csi.data.ticker import Ticker
from csi.errors import OssFuseError
from csi.oss.store import ObjectStore
from csi.volume.units import ObjectKey, Seconds

log = logging.getLogger(__name__)

INTERVAL: Final = Seconds(10.0)
_ATTEMPTS: Final = 360
"""An hour of them."""
_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class LeftoverStatistics:
    """Uploads that wait to be aborted."""

    uploads: int


class Leftovers:
    """`_lock` guards `_uploads`; it is not held across requests."""

    def __init__(self, store: ObjectStore, *, interval: Seconds = INTERVAL) -> None:
        self._store = store
        self._ticker = Ticker(interval)
        self._lock = threading.Lock()
        self._uploads: deque[tuple[ObjectKey, str, int]] = deque(maxlen=_MOST)

    def statistics(self) -> LeftoverStatistics:
        with self._lock:
            return LeftoverStatistics(len(self._uploads))

    def add(self, key: ObjectKey, upload_id: str, attempts: int = 0) -> None:
        """Aborting this upload has failed."""
        with self._lock:
            self._uploads.append((key, upload_id, attempts))
            first = len(self._uploads) == 1
        if first:
            self._ticker.add(self.retry)

    def retry(self) -> None:
        """Try every one of them once, up to the first that fails again. Never raises."""
        for _ in range(len(self._uploads)):
            with self._lock:
                if not self._uploads:
                    return
                key, upload_id, attempts = self._uploads.popleft()
                last = not self._uploads
            if last:
                self._ticker.remove(self.retry)
            try:
                self._store.abort_multipart(key, upload_id)
            except OssFuseError as error:
                if attempts + 1 < _ATTEMPTS:
                    self.add(key, upload_id, attempts + 1)
                else:
                    log.warning(
                        "upload %s of %s is left at OSS, where its parts cost money: %s; "
                        "let a lifecycle rule of the bucket abort old uploads",
                        upload_id,
                        key,
                        error,
                    )
                return
            log.info("upload %s of %s, which was left behind, is aborted now", upload_id, key)

    def close(self) -> None:
        """Stop trying."""
        self._ticker.close()
