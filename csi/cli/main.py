"""`ossfuse`: the program's entry point.

It decides one thing before anything else is imported: a sidecar, of which a node runs one per volume, must start
without the command line's libraries. Every other command is in `csi/cli/group.py`.
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Run the command that the process was started with, and exit with its status."""
    if sys.argv[1:2] == ["sidecar"]:
        sys.exit(importlib.import_module("csi.sidecar.main").main(sys.argv[2:]))
    importlib.import_module("csi.cli.group").ossfuse(prog_name="ossfuse")


if __name__ == "__main__":
    main()
