"""`ossfuse` that fetches no small file before it is asked for: what reading ahead in a directory is measured against.

No option says so, because nobody should need one. Run by hand this is the command; run by that as a sidecar, which is
told by its arguments, it is one whose directories have no order.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from unittest.mock import patch

from csi.cli.main import main as command
from csi.fs import siblings
from csi.handover.process import LocalLauncher
from csi.sidecar.main import main as serve


def main() -> int:
    if "--socket" in sys.argv:
        siblings.MOST_AHEAD = 0
        return serve()
    launcher = functools.partial(LocalLauncher, entry=Path(__file__).resolve())
    with patch("csi.cli.mount.LocalLauncher", launcher):
        command()
    return 0


if __name__ == "__main__":
    sys.exit(main())
