"""`python -m csi.sidecar`, also when started by the path of this file (`python -I …/csi/sidecar/__main__.py`)."""

import importlib.util
import sys
from pathlib import Path

_tree = Path(__file__).resolve().parent.parent.parent
_found = importlib.util.find_spec("csi")
if _found is None or _found.origin is None or Path(_found.origin).resolve().parent.parent != _tree:
    sys.path.insert(0, str(_tree))  # the sidecar is of the version that starts it, whichever is installed

from csi.sidecar.main import main  # noqa: E402 - the tree comes first

sys.exit(main(sys.argv[1:]))
