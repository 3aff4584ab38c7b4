"""A body that comes in chunks (RFC 9112 §7.1), decoded as it comes; without trailers, which no answer of OSS has."""

from __future__ import annotations

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_LONGEST_LINE = 1024
_END = b"\r\n"


class ChunkedBody:
    """`body` is all of it once `is_whole`."""

    def __init__(self, longest: int) -> None:
        """`longest`: bytes that are taken for a body."""
        self.body = bytearray()
        self.is_whole = False
        self._longest = longest
        self._rest = bytearray()  # not decoded yet

    def take(self, data: bytes) -> None:
        """Raises ValueError for what is no such body, is longer, or goes on after its end."""
        rest = self._rest
        rest += data
        while not self.is_whole:
            line = rest.find(_END, 0, _LONGEST_LINE)
            if line < 0:
                if len(rest) >= _LONGEST_LINE:
                    raise ValueError("no size of a chunk")
                return
            found = _SIZE.fullmatch(rest, 0, line)
            if found is None:
                raise ValueError(f"the size of a chunk is {bytes(rest[:line])!r}")
            size, begin = int(found.group(1), 16), line + len(_END)
            if len(self.body) + size > self._longest:
                raise ValueError(f"longer than {self._longest} bytes")
            end = begin + size
            if len(rest) < end + len(_END):
                return
            if not rest.startswith(_END, end):
                raise ValueError("a chunk goes on after its end")
            self.body += rest[begin:end]
            del rest[: end + len(_END)]
            self.is_whole = size == 0
        if rest:
            raise ValueError("more than the body came")
