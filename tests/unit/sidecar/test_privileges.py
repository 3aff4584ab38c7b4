from __future__ import annotations

import subprocess
import sys

import pytest

from csi.errors import MountError
from csi.sidecar.privileges import _verify

STATUS = """Name:\tpython
Uid:\t65534\t65534\t65534\t65534
Gid:\t65534\t65534\t65534\t65534
Groups:\t \nNoNewPrivs:\t1
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
"""


def test_a_process_without_rights_passes():
    _verify(STATUS, 65534, 65534, was_root=True)


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ("Uid:\t65534\t65534\t65534", "Uid:\t65534\t0\t65534", "Uid"),
        ("Gid:\t65534", "Gid:\t0", "Gid"),
        ("Groups:\t ", "Groups:\t4 24 ", "Groups"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs"),
        ("CapEff:\t0000000000000000", "CapEff:\t0000000000200000", "CapEff"),
        ("CapBnd:\t0000000000000000", "CapBnd:\t000001ffffffffff", "CapBnd"),
        ("CapAmb:\t0000000000000000\n", "", "CapAmb"),
    ],
)
def test_a_right_that_is_left_is_named(before, after, name):
    with pytest.raises(MountError, match=f"still has rights it must not have: {name} is"):
        _verify(STATUS.replace(before, after), 65534, 65534, was_root=True)


def test_a_user_of_a_pod_may_be_any_user():
    _verify(
        STATUS.replace("65534", "1000").replace("CapBnd:\t0000000000000000", "CapBnd:\t01"),
        65534,
        65534,
        was_root=False,
    )


def test_rights_are_not_given_up_half_by_a_process_with_threads():
    program = (
        "import threading; from csi.handover.kernel import LinuxKernel; from csi.errors import MountError\n"
        "from csi.sidecar.privileges import give_up_rights; hold = threading.Event()\n"
        "threading.Thread(target=hold.wait).start()\n"
        "try: give_up_rights(LinuxKernel(), 65534, 65534)\n"
        "except MountError as error: print(error)\n"
        "finally: hold.set()"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert "rights cannot be given up with 2 threads" in found.stdout
