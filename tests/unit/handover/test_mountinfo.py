from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.handover.mountinfo import (
    filesystem_at,
    layers_at,
    mount_source,
    parse_mountinfo,
    published_volume,
    read_mountinfo,
)

TABLE = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:30 / /run rw,nosuid shared:5 master:2 propagate_from:3 - tmpfs tmpfs rw,size=100k
46 27 0:42 / /pods/a\040b/mount rw,nosuid,nodev - fuse.ossfuse ossfuse:vol%201%23x\0430ccc5a777f11b684 rw,user_id=0
47 46 0:43 / /pods/a\040b/mount ro,nosuid,nodev - fuse.ossfuse ossfuse:vol%201%23x\0430ccc5a777f11b684 ro,user_id=0
48 27 0:44 / /mnt/odd\134\011name rw - fuse.rclone remote: rw
49 27 0:45 / /mnt/empty rw - tmpfs  rw
cut off line 50 27 0:4
"""


def test_fields_are_read_with_escapes_and_any_number_of_tags():
    entries = {entry.mount_id: entry for entry in parse_mountinfo(TABLE)}
    assert entries[40].optional == ("shared:5", "master:2", "propagate_from:3")
    assert entries[46].target == "/pods/a b/mount"
    assert (entries[46].major, entries[46].minor) == (0, 42)
    assert entries[46].source == "ossfuse:vol%201%23x#0ccc5a777f11b684"
    assert entries[48].target == "/mnt/odd\\\tname"
    assert entries[49].source == ""
    assert set(entries) == {22, 27, 40, 46, 47, 48, 49}


def test_a_mount_of_ours_names_its_volume_and_options():
    entries = parse_mountinfo(TABLE)
    volumes = [volume for entry in entries if (volume := published_volume(entry)) is not None]
    assert [(v.volume_id, v.spec_hash, v.device_minor, v.read_only) for v in volumes] == [
        ("vol 1#x", "0ccc5a777f11b684", 42, False),
        ("vol 1#x", "0ccc5a777f11b684", 43, True),
    ]


@pytest.mark.parametrize(
    "source", ["ossfuse:", "ossfuse:x", "ossfuse:#abc", "ossfuse:x#", "other:x#abc"], ids=lambda source: source
)
def test_a_source_of_another_form_is_not_ours(source):
    line = f"1 2 0:3 / /t rw - fuse.ossfuse {source.replace('#', chr(92) + '043')} rw\n".encode()
    assert published_volume(parse_mountinfo(line)[0]) is None


@given(st.text(min_size=1, max_size=60), st.from_regex("[0-9a-f]{16}", fullmatch=True))
def test_any_volume_id_survives_the_source_string(volume_id, spec_hash):
    source = mount_source(volume_id, spec_hash)
    assert not set(source) & set(" \t\n\\")
    line = f"1 2 0:3 / /t rw - fuse.ossfuse {source.replace('#', chr(92) + '043')} rw".encode()
    volume = published_volume(parse_mountinfo(line)[0])
    assert volume is not None
    assert (volume.volume_id, volume.spec_hash) == (volume_id, spec_hash)


def test_stacked_mounts_come_lowest_first_whatever_the_order_of_lines():
    lines = TABLE.splitlines()
    entries = parse_mountinfo(b"\n".join(reversed(lines)))
    assert [entry.mount_id for entry in layers_at(entries, "/pods/a b/mount")] == [46, 47]


def test_a_path_lies_on_its_longest_mount_point():
    entries = parse_mountinfo(TABLE)
    assert filesystem_at(entries, "/run/ossfuse").fstype == "tmpfs"
    assert filesystem_at(entries, "/runner").fstype == "ext4"
    assert filesystem_at(entries, "/run").fstype == "tmpfs"
    assert filesystem_at([], "/run") is None


@given(st.binary(max_size=300))
def test_no_line_stops_the_reading_of_the_table(data):
    entries = parse_mountinfo(data + b"\n27 1 254:0 / / rw - ext4 /dev/vda rw\n")
    assert entries[-1].target == "/"


def test_the_machines_own_table_has_a_root():
    assert any(entry.target == "/" for entry in read_mountinfo())
