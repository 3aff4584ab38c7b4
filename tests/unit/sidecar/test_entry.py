"""Which code a sidecar runs that is started by the path of its entry."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import csi.sidecar


def test_it_is_that_of_the_tree_the_entry_lies_in(tmp_path: Path) -> None:
    package = tmp_path / "csi" / "sidecar"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "main.py").write_text("def main(words):\n    print('of this tree', words)\n    return 3\n")
    entry = Path(shutil.copy(Path(csi.sidecar.__file__).with_name("__main__.py"), package))
    ended = subprocess.run([sys.executable, "-I", str(entry), "x"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (3, "of this tree ['x']\n")
