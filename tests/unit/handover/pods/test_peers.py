from __future__ import annotations

import os

import pytest

from csi.handover.pods.peers import in_pod, read_ipc_namespace, read_membership

UID = "0a1b2c3d-1111-2222-3333-444455556666"
SYSTEMD = UID.replace("-", "_")
STATIC = "c0ffee0123456789c0ffee0123456789"


@pytest.mark.parametrize(
    "membership",
    [
        f"4:memory:/kubepods/burstable/pod{UID}/8f3a\n0::/\n",
        f"0::/kubepods/pod{UID}/8f3a\n",
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SYSTEMD}.slice/cri-containerd-8f3a.scope\n",
        f"4:memory:/kubepods.slice/kubepods-pod{SYSTEMD}.slice/crio-8f3a.scope\n",
        f"0::/../../kubepods-besteffort.slice/kubepods-besteffort-pod{SYSTEMD}.slice/cri-containerd-8f3a.scope\n",
        f"1:name=systemd:/kubelet/kubepods/besteffort/pod{UID}/8f3a\n3:cpuset:/\n",
        f"0::/kubepods/pod{UID}\n",
    ],
    ids=["v1", "v2", "v2 systemd", "v1 cri-o", "seen from another namespace", "below a root of its own", "pod itself"],
)
def test_a_process_of_the_pod_is_known_whatever_drives_its_cgroup(membership):
    assert in_pod(membership, UID)
    assert not in_pod(membership, UID.replace("0a1b", "0a1c"))


def test_a_static_pod_is_known_by_its_hash():
    assert in_pod(f"0::/kubepods/pod{STATIC}/8f3a\n", STATIC)


@pytest.mark.parametrize(
    ("membership", "uid"),
    [
        ("0::/\n", UID),
        ("", UID),
        (f"0::/kubepods/pod{UID}/8f3a\n", ""),
        (f"0::/kubepods/pod{UID}/8f3a\n", UID[:-1]),
        (f"0::/kubepods/pod{UID}7/8f3a\n", UID),
        (f"0::/kubepods/tripod{UID}/8f3a\n", UID),
        (f"0::/kubepods/{UID}/8f3a\n", UID),
        (f"pod{UID}\n", UID),
        (f"0::/kubepods/pod{UID}/8f3a\n", ".*"),
    ],
    ids=[
        "root",
        "nothing",
        "no UID",
        "beginning of a UID",
        "longer UID",
        "other word",
        "not a pod's",
        "no path",
        "a pattern",
    ],
)
def test_any_other_process_is_not_of_the_pod(membership, uid):
    assert not in_pod(membership, uid)


def test_the_membership_of_a_process_is_read():
    assert ":" in read_membership(os.getpid())
    with pytest.raises(OSError, match="No such"):
        read_membership(2**22 + 1)


def test_the_namespace_of_a_process_is_read():
    assert read_ipc_namespace(os.getpid()).startswith("ipc:[")
    with pytest.raises(OSError, match="No such"):
        read_ipc_namespace(2**22 + 1)
