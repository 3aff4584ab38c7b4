"""A range of an object on its way into memory, across as many requests as it takes.

When a connection breaks in the middle of a body, only the rest is asked for again, provided that the version was
named: then what is there already belongs together with what follows.
"""

from __future__ import annotations

from csi.errors import RangeNotSatisfiable, RequestRejected
from csi.oss.answers import whole_size
from csi.oss.exchange import HttpAnswer
from csi.oss.requests import Call
from csi.oss.session import mismatch
from csi.volume.units import ETag, ObjectKey


class WantedRange:
    """`len(target)` bytes at `offset`; used by one thread. `_done` bytes are in `target` for good."""

    def __init__(self, key: ObjectKey, offset: int, target: memoryview, if_match: ETag | None) -> None:
        self._key = key
        self._offset = offset
        self._target = target
        self._if_match = if_match
        self._done = 0

    def call(self) -> Call:
        """GetObject of what is missing."""
        first, end = self._offset + self._done, self._offset + len(self._target)
        headers = {"range": f"bytes={first}-{end - 1}", "x-oss-range-behavior": "standard"}
        if self._if_match is not None:
            headers["if-match"] = self._if_match
        return Call("GetObject", "GET", self._key, headers=headers, target=self._target[self._done :])

    def check(self, answer: HttpAnswer) -> None:
        """Raise unless `answer` brought exactly what is missing."""
        missing = len(self._target) - self._done
        total = whole_size(answer)
        if self._offset + len(self._target) > total:
            raise RangeNotSatisfiable(
                f"bytes {self._offset} to {self._offset + len(self._target)} were asked for, the object has {total}",
                status=416,
            )
        is_all_of_it = answer.status != 206 and not self._offset and not self._done and missing == total
        if answer.overflow or (answer.status != 206 and not is_all_of_it):
            raise RequestRejected("the server does not answer range requests", status=answer.status)
        if answer.received != missing:
            raise mismatch("the length of the body", self.call(), missing, answer.received)
        if answer.status == 206 and _first_byte(answer) != self._offset + self._done:
            raise mismatch("the first byte of the body", self.call(), self._offset + self._done, _first_byte(answer))

    def resume(self, broken: HttpAnswer) -> Call | None:
        """Keep what `broken` brought and return the call for the rest, None to begin again."""
        is_certain = (
            self._if_match is not None
            and broken.status == 206
            and broken.headers.get("etag") == self._if_match
            and _first_byte(broken) == self._offset + self._done
            and 0 < broken.received < len(self._target) - self._done
        )
        if not is_certain:
            return None
        self._done += broken.received
        return self.call()


def _first_byte(answer: HttpAnswer) -> int:
    """Where the body begins according to Content-Range, −1 if that is not told."""
    begin = answer.headers.get("content-range", "").partition("-")[0].removeprefix("bytes").strip()
    return int(begin) if begin.isdigit() else -1
