"""`python -m csi.sidecar`, also when started by the path of this file (`python -I …/csi/sidecar/__main__.py`)."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("csi") is None:  # run from a source tree that is not installed, with -I
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

from csi.sidecar.main import main

sys.exit(main(sys.argv[1:]))
