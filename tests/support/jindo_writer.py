"""pyjindosdk as another client of a bucket, in a process of its own (it is not fork-safe and keeps threads).

`python -m tests.support.jindo_writer`: the first line of standard input holds the settings as JSON; every other one is
`put KEY NUMBER SIZE` (a version of `reading_program.py`), or `remove KEY`. It answers `done` to each.
"""

from __future__ import annotations

import json
import sys

from tests.driver.emulator.jindo_client import connect, write
from tests.support.reading_program import versioned


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    base = f"oss://{settings['bucket']}/"
    files = connect(settings, base)
    for line in sys.stdin:
        order, key, *numbers = line.split()
        if order == "put":
            write(files, base + key, versioned(*map(int, numbers)))
        else:
            files.remove(base + key)
        print("done", flush=True)


if __name__ == "__main__":
    main()
