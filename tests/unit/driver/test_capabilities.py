from __future__ import annotations

import pytest

from csi.driver.capabilities import parse_access, parse_all
from csi.errors import InvalidOption, UnsupportedVolume
from csi.v1 import csi_pb2

Mode = csi_pb2.VolumeCapability.AccessMode
FILESYSTEM_MODES = Mode.Mode.keys()[1:]


def capability(mode: str = "SINGLE_NODE_WRITER", **mount: object) -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(**mount), access_mode=Mode(mode=Mode.Mode.Value(mode))
    )


@pytest.mark.parametrize("mode", FILESYSTEM_MODES)
def test_every_filesystem_access_mode_is_accepted(mode):
    access = parse_access(capability(mode), readonly=False)

    assert access.mode == mode
    assert access.read_only == mode.endswith("READER_ONLY")


@pytest.mark.parametrize("mode", FILESYSTEM_MODES)
def test_the_readonly_flag_makes_any_mode_read_only(mode):
    assert parse_access(capability(mode), readonly=True).read_only


def test_block_access_is_refused_with_what_to_use_instead():
    block = csi_pb2.VolumeCapability(block={}, access_mode=Mode(mode=Mode.SINGLE_NODE_WRITER))

    with pytest.raises(UnsupportedVolume, match="use volumeMode: Filesystem"):
        parse_access(block, readonly=False)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        csi_pb2.VolumeCapability(access_mode=Mode(mode=Mode.SINGLE_NODE_WRITER)),
        csi_pb2.VolumeCapability(mount={}),
        csi_pb2.VolumeCapability(mount={}, access_mode=Mode(mode=99)),
    ],
)
def test_an_incomplete_capability_is_refused(bad):
    with pytest.raises(InvalidOption, match="volume_capability"):
        parse_access(bad, readonly=False)


def test_no_capabilities_at_all_are_refused():
    with pytest.raises(InvalidOption, match="volume_capabilities"):
        parse_all([])


@pytest.mark.parametrize(("text", "gid"), [("", None), ("0", 0), ("2000", 2000), ("4294967294", 4294967294)])
def test_the_mount_group_is_a_number(text, gid):
    assert parse_access(capability(volume_mount_group=text), readonly=False).mount_group == gid


@pytest.mark.parametrize("text", ["staff", "-1", "1.5", "4294967295", "٣", " 1"])
def test_a_mount_group_that_is_no_group_id_is_refused(text):
    with pytest.raises(InvalidOption, match="volume_mount_group"):
        parse_access(capability(volume_mount_group=text), readonly=False)
