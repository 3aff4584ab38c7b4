"""`python -m tests.support.fuzz_session CORPUS [-runs=N] …`: atheris on our own kernel session, from the descriptor on.

Arguments are libFuzzer's; the corpus begins with the recorded messages.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped]  # it ships none

with atheris.instrument_imports(include=["csi.fuse.protocol", "csi.fuse.own"]):
    from tests.support.fuzzed_session import Fuzzed


def main() -> None:
    fuzzed = Fuzzed()
    atheris.Setup(sys.argv, fuzzed.send)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
