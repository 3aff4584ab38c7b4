"""What a READ is answered with goes to the kernel from where it lies: whoever copied it, or joined it with the header,
would have to read it.

The bytes are on pages that this process cannot read, and neither can write(2): it fails with EFAULT, where a copy in
user space ends the process. So all of this is seen from another one.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest

from tests.support.mounts import SOURCE_ROOT


@pytest.mark.parametrize("way", ["tables", "two blocks", "python", "python, waiting"])
def test_a_read_is_answered_from_the_block_itself(way: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.unreadable_blocks", way],
        cwd=SOURCE_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, f"something read the bytes (-11 is SIGSEGV): {ended.returncode} {ended.stderr}"
    assert json.loads(ended.stdout) == {"readable": 8192, "unreadable": errno.EIO}
