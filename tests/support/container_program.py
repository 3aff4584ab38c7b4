"""What runs in a container with a volume at the directory it is told: obeys lines of JSON, answers one line each.

`read NAME`, `hold NAME` (open and keep), `again` (read what is held), `list`, `write NAME TEXT`; an error is answered
with its name.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path


class Container:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._held = -1

    def obey(self, words: list[str]) -> str:
        match words:
            case ["read", name]:
                return (self._root / name).read_text()
            case ["list"]:
                return ",".join(sorted(os.listdir(self._root)))
            case ["write", name, text]:
                return str((self._root / name).write_text(text))
            case ["hold", name]:
                self._held = os.open(self._root / name, os.O_RDONLY | os.O_DIRECT)
                return "held"
            case ["again"]:
                return os.pread(self._held, 4096, 0).decode()
            case other:
                raise SystemExit(f"unknown command {other}")


def main(root: Path) -> None:
    container = Container(root)
    print("started", flush=True)
    for line in sys.stdin:
        try:
            answer = container.obey(json.loads(line))
        except OSError as error:
            answer = errno.errorcode.get(error.errno or 0, "?")
        print(answer.rstrip("\n"), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
