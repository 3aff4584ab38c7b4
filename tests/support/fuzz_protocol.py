"""`python -m tests.support.fuzz_protocol CORPUS [-runs=N] [-max_total_time=SECONDS] …`: atheris on the decoder.

Arguments are libFuzzer's; the corpus begins with the recorded messages. The decoder may say Malformed and nothing else.
"""

from __future__ import annotations

import struct
import sys

import atheris  # type: ignore[import-untyped]  # it ships none

with atheris.instrument_imports(include=["csi.fuse.protocol"]):
    from csi.fuse.protocol.bodies import Request
    from csi.fuse.protocol.messages import Malformed, decode


def try_one(data: bytes) -> None:
    """As given, and with the length that it has: what says a wrong length gets no further than the header."""
    _decode(data)
    if len(data) >= 4:
        _decode(struct.pack("<I", len(data)) + data[4:])


def _decode(message: bytes) -> None:
    for extended in (False, True):
        try:
            request = decode(memoryview(message), setxattr_ext=extended)
        except Malformed as error:
            if len(message) >= 40 and error.header is None:
                raise AssertionError("nobody could be answered") from error
            continue
        assert isinstance(request, Request)
        assert request.header.length == len(message)


def main() -> None:
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
