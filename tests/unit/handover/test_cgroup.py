"""cgroup v2 and the choice of version, on directories that look like cgroups; tests/mount/handover has real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi.errors import MountError
from csi.handover.cgroup import CgroupRoom, MemoryCgroup, MemoryHierarchy, memory_hierarchy
from csi.handover.mountinfo import parse_mountinfo
from csi.volume.units import MIB, Bytes

LIMIT = Bytes(256 * MIB)


def mounts(*lines):
    return parse_mountinfo("\n".join(lines).encode())


def cgroup2(path, *, controllers="cpu memory", distributed="", procs="", root=False):
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.controllers").write_text(controllers)
    (path / "cgroup.subtree_control").write_text(distributed)
    (path / "cgroup.procs").write_text(procs)
    if not root:
        (path / "cgroup.type").write_text("domain")
    return path


@pytest.fixture
def v2(tmp_path):
    return cgroup2(tmp_path / "cgroup", root=True)


def room_of(hierarchy, owner="0badcafe"):
    return CgroupRoom(lambda: hierarchy, owner, sleep=lambda _: None)


def prepare_control_files(path):
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs", "cgroup.subtree_control"):
        (path / name).write_text("")


@pytest.fixture
def cgroupfs(monkeypatch):
    """A new directory gets its control files at once, as in a real cgroup file system."""
    plain = Path.mkdir

    def mkdir(self, mode=0o777, parents=False, exist_ok=False):
        plain(self, mode, parents, exist_ok)
        if "ossfuse" in self.name or self.parent.name == "ossfuse":
            prepare_control_files(self)

    monkeypatch.setattr(Path, "mkdir", mkdir)


def test_version_1_is_found_with_our_own_directory_in_it(tmp_path):
    (tmp_path / "memory/pods/node").mkdir(parents=True)
    entries = mounts(f"35 31 0:32 / {tmp_path}/memory rw - cgroup cgroup rw,memory", "9 1 0:1 / /sys rw - sysfs s rw")
    found = memory_hierarchy(entries, "4:memory:/pods/node\n1:cpu:/\n0::/\n")
    assert found == MemoryHierarchy(1, tmp_path / "memory", tmp_path / "memory/pods/node")


def test_version_1_wins_on_a_hybrid_machine(tmp_path):
    (tmp_path / "memory").mkdir()
    cgroup2(tmp_path / "unified", controllers="", root=True)
    entries = mounts(
        f"41 31 0:38 / {tmp_path}/unified rw - cgroup2 cgroup2 rw",
        f"35 31 0:32 / {tmp_path}/memory rw - cgroup cgroup rw,memory",
    )
    assert memory_hierarchy(entries, "4:memory:/\n0::/x\n").version == 1


def test_version_2_is_found_with_our_own_directory_in_it(v2):
    own = cgroup2(v2 / "system.slice/node.service")
    entries = mounts(f"31 1 0:28 / {v2} rw - cgroup2 cgroup2 rw,nsdelegate")
    assert memory_hierarchy(entries, "0::/system.slice/node.service\n") == MemoryHierarchy(2, v2, own)


def test_a_container_whose_mount_starts_at_its_own_cgroup_is_understood(v2):
    entries = mounts(f"31 1 0:28 /kubepods/pod1/c1 {v2} rw - cgroup2 cgroup2 rw")
    assert memory_hierarchy(entries, "0::/kubepods/pod1/c1\n").own == v2


@pytest.mark.parametrize("path", ["/../../elsewhere", "/not/there"])
def test_a_membership_outside_of_what_is_mounted_falls_back_on_the_mount(v2, path):
    entries = mounts(f"31 1 0:28 / {v2} rw - cgroup2 cgroup2 rw")
    assert memory_hierarchy(entries, f"0::{path}\n").own == v2


def test_no_memory_controller_is_an_error_with_advice(v2):
    (v2 / "cgroup.controllers").write_text("cpu io")
    with pytest.raises(MountError, match="cgroup_enable=memory"):
        memory_hierarchy(mounts(f"31 1 0:28 / {v2} rw - cgroup2 cgroup2 rw"), "0::/\n")


def test_at_the_root_of_the_machine_the_room_lies_at_the_root(v2, cgroupfs):
    group = room_of(MemoryHierarchy(2, v2, v2)).create("abc", LIMIT)
    assert group.path == v2 / "ossfuse/0badcafe-abc"
    assert (group.path / "memory.max").read_text() == str(LIMIT)
    assert (group.path / "memory.swap.max").read_text() == "0"
    assert (v2 / "ossfuse/cgroup.subtree_control").read_text() == "+memory"
    assert (v2 / "cgroup.subtree_control").read_text() == "+memory"


def test_a_service_with_processes_gets_its_room_beside_it(v2, cgroupfs):
    cgroup2(v2 / "system.slice", distributed="memory pids")
    own = cgroup2(v2 / "system.slice/node.service", procs="1\n")
    group = room_of(MemoryHierarchy(2, v2, own)).create("abc", LIMIT)
    assert group.path == v2 / "system.slice/ossfuse/0badcafe-abc"


def test_a_delegated_cgroup_keeps_its_room_inside(v2, cgroupfs):
    own = cgroup2(v2 / "node.service", distributed="memory")
    assert room_of(MemoryHierarchy(2, v2, own)).create("abc", LIMIT).path == own / "ossfuse/0badcafe-abc"


def test_alone_in_a_container_the_node_plugin_moves_into_a_leaf_first(v2, cgroupfs):
    (v2 / "cgroup.type").write_text("domain")
    (v2 / "cgroup.procs").write_text("17\n")
    group = room_of(MemoryHierarchy(2, v2, v2)).create("abc", LIMIT)
    assert (v2 / "ossfuse-node/cgroup.procs").read_text() == "17"
    assert (v2 / "cgroup.subtree_control").read_text() == "+memory"
    assert group.path.parent == v2 / "ossfuse"


def test_a_cgroup_that_cannot_be_made_is_an_error_and_leaves_none(v2):
    hierarchy = MemoryHierarchy(2, v2, v2)
    with pytest.raises(MountError, match="needs root and a writable /sys/fs/cgroup"):
        room_of(hierarchy).create("abc", LIMIT)
    assert not (v2 / "ossfuse/0badcafe-abc").exists()


def test_figures_of_version_2(tmp_path):
    (tmp_path / "memory.max").write_text("268435456\n")
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 4000\nfile 1000\ninactive_file 800\n")
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n")
    (tmp_path / "cgroup.procs").write_text("12\n34\n")
    group = MemoryCgroup(tmp_path, 2)
    assert (group.limit(), group.usage(), group.oom_kills(), group.pids()) == (LIMIT, 4200, 1, [12, 34])


def test_figures_of_version_1(tmp_path):
    (tmp_path / "memory.limit_in_bytes").write_text("268435456\n")
    (tmp_path / "memory.usage_in_bytes").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("cache 1\ninactive_file 7\ntotal_inactive_file 1000\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    group = MemoryCgroup(tmp_path, 1)
    assert (group.limit(), group.usage(), group.oom_kills()) == (LIMIT, 4000, 3)


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_is_gone_reads_as_nothing(tmp_path, version):
    group = MemoryCgroup(tmp_path / "gone", version)
    assert (group.exists, group.limit(), group.usage(), group.oom_kills(), group.pids()) == (False, 0, 0, 0, [])


def test_an_unlimited_cgroup_reads_as_limit_nought(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    assert MemoryCgroup(tmp_path, 2).limit() == 0


def test_removing_takes_the_room_with_the_last_one(tmp_path):
    first, second = (MemoryCgroup(tmp_path / "ossfuse" / name, 1) for name in ("a", "b"))
    first.path.mkdir(parents=True)
    second.path.mkdir()
    first.remove()
    assert (tmp_path / "ossfuse").exists()
    second.remove()
    second.remove()
    assert not (tmp_path / "ossfuse").exists()


def test_only_cgroups_of_this_state_directory_are_adopted(tmp_path):
    room = room_of(MemoryHierarchy(1, tmp_path, tmp_path))
    (tmp_path / "ossfuse/0badcafe-one").mkdir(parents=True)
    (tmp_path / "ossfuse/deadbeef-two").mkdir()
    assert [group.path.name for group in room.leftovers()] == ["0badcafe-one"]
    assert room.adopt(str(tmp_path / "ossfuse/0badcafe-one")) is not None
    assert room.adopt(str(tmp_path / "ossfuse/deadbeef-two")) is None
    assert room.adopt(str(tmp_path / "system.slice/0badcafe-one")) is None
    assert room.adopt("") is None
