"""Which files this process has open, for tests that nothing is left open."""

from __future__ import annotations

import contextlib
import os


def open_files() -> set[tuple[str, str]]:
    """Number and name of each; without those below /proc, which the watch for secrets opens at any moment."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since
            name = os.readlink(f"/proc/self/fd/{number}")
            if not name.startswith("/proc"):
                found.add((number, name))
    return found
