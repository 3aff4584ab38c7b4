from __future__ import annotations

import pytest

from csi.handover.pods.holders import has_followers

FIRST, SECOND = 41, 42
NODE = (
    b"10 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n"
    b"20 10 0:41 / /pods/m rw shared:5 - fuse.ossfuse ossfuse:v#h rw\n"
    b"21 20 0:42 / /pods/m rw shared:6 - fuse.ossfuse ossfuse:v#h rw\n"
)
OLDER = (  # started on the first, got the second by propagation
    b"30 1 0:90 / / rw - overlay overlay rw\n"
    b"31 30 0:41 / /data rw master:5 - fuse.ossfuse ossfuse:v#h rw\n"
    b"32 31 0:42 / /data rw master:6 - fuse.ossfuse ossfuse:v#h rw\n"
)


def container(line):
    return b"30 1 0:90 / / rw - overlay overlay rw\n" + line + b"\n"


@pytest.fixture
def proc(tmp_path):
    def write(*tables):
        for number, table in enumerate(tables, 100):
            process = tmp_path / str(number)
            (process / "ns").mkdir(parents=True)
            (process / "ns" / "mnt").symlink_to(f"mnt:[{number}]")
            (process / "mountinfo").write_bytes(table)
        (tmp_path / "self").mkdir()
        (tmp_path / "9999").mkdir()  # a process that ended in between
        return tmp_path

    return write


def test_nobody_follows_what_is_mounted_on_the_node_only(proc):
    assert not has_followers(SECOND, {FIRST, SECOND}, proc(NODE))


def test_a_container_of_the_first_mount_does_not_follow_the_second_by_itself(proc):
    assert not has_followers(SECOND, {FIRST, SECOND}, proc(NODE, OLDER))


@pytest.mark.parametrize("tag", ["master:6", "shared:9 master:6", "shared:6"])
def test_a_container_of_the_second_mount_follows_it(proc, tag):
    table = container(f"31 30 0:42 / /data rw {tag} - fuse.ossfuse ossfuse:v#h rw".encode())
    assert has_followers(SECOND, {FIRST, SECOND}, proc(NODE, OLDER, table))


@pytest.mark.parametrize(
    "line",
    [
        b"31 30 0:42 / /data rw - fuse.ossfuse ossfuse:v#h rw",
        b"31 30 0:42 /sub /data rw master:6 - fuse.ossfuse ossfuse:v#h rw",
        b"31 30 0:43 / /data rw master:6 - fuse.ossfuse ossfuse:w#h rw",
        b"31 30 8:42 / /data rw master:6 - ext4 /dev/vdb rw",
    ],
    ids=["private", "a directory of it", "another volume", "another device"],
)
def test_a_mount_that_would_get_nothing_does_not_count(proc, line):
    assert not has_followers(SECOND, {FIRST, SECOND}, proc(NODE, container(line)))


def test_a_mount_table_is_read_once_however_many_processes_share_it(proc, tmp_path):
    proc(NODE)
    twin = tmp_path / "200"
    (twin / "ns").mkdir(parents=True)
    (twin / "ns" / "mnt").symlink_to("mnt:[100]")  # no table: it would not be missed
    assert not has_followers(SECOND, {FIRST, SECOND}, tmp_path)
