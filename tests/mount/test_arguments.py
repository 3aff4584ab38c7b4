"""Every argument of `fs.jindo.args` has the effect it promises, seen from a program."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from csi.volume.naming import SESSIONS
from tests.mount.conftest import MountVolume
from tests.mount.test_posix import failure
from tests.support.volumes import MountedVolume


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    """Run as uid and gid 65534, with no other groups and no capabilities."""
    setpriv = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    return subprocess.run([*setpriv, *command], check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def world_can_reach(tmp_path: Path) -> None:
    """Make the way to the mount passable for other users, as a kubelet's directories are for a container."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)


def open_up(volume: MountedVolume) -> None:
    for directory in (volume.path.parent, volume.path.parent.parent):
        directory.chmod(0o755)


def test_owner_and_modes_are_those_asked_for(mount_volume: MountVolume) -> None:
    volume = mount_volume(arguments="-ouid=1000 -ogid=2000 -oumask=0027")
    volume.put("f", b"x")
    volume.put("d/g", b"x")
    file, directory = (volume.path / "f").stat(), (volume.path / "d").stat()

    assert (file.st_uid, file.st_gid, directory.st_uid, directory.st_gid) == (1000, 2000, 1000, 2000)
    assert not stat.S_IMODE(file.st_mode) & 0o027
    assert not stat.S_IMODE(directory.st_mode) & 0o027
    assert stat.S_IMODE(directory.st_mode) & 0o500 == 0o500


@pytest.mark.usefixtures("world_can_reach")
def test_other_users_may_read_what_the_modes_let_them(mount_volume: MountVolume) -> None:
    volume = mount_volume(arguments="-oallow_other")
    open_up(volume)
    volume.put("f", b"for everybody")

    assert as_nobody("cat", str(volume.path / "f")).stdout == "for everybody"
    refused = as_nobody("sh", "-c", f"echo > {volume.path / 'new'}")
    assert "Permission denied" in refused.stderr


@pytest.mark.usefixtures("world_can_reach")
def test_a_strict_umask_keeps_other_users_out(mount_volume: MountVolume) -> None:
    volume = mount_volume(arguments="-oumask=0077")
    open_up(volume)
    volume.put("f", b"private")

    assert "Permission denied" in as_nobody("cat", str(volume.path / "f")).stderr
    assert (volume.path / "f").read_bytes() == b"private"


@pytest.mark.usefixtures("world_can_reach")
def test_an_owner_who_is_not_root_may_write(mount_volume: MountVolume) -> None:
    volume = mount_volume(arguments="-ouid=65534 -ogid=65534")
    open_up(volume)

    done = as_nobody("sh", "-ec", f"cd {volume.path}; echo mine > f; mkdir d; mv f d/; cat d/f")

    assert (done.stdout, done.stderr) == ("mine\n", "")
    assert volume.get("d/f") == b"mine\n"


@pytest.mark.parametrize("argument", ["-oro", "-oro_mount"])
def test_a_read_only_argument_refuses_changes_even_where_the_kernel_lets_them_through(
    mount_volume: MountVolume, argument: str
) -> None:
    volume = mount_volume(mode="custom", arguments=argument)
    volume.put("f", b"x")
    refusals = [
        failure((volume.path / "new").write_bytes, b""),
        failure((volume.path / "f").write_bytes, b""),
        failure((volume.path / "f").unlink),
        failure((volume.path / "d").mkdir),
        failure(os.truncate, volume.path / "f", 0),
    ]

    assert refusals == [errno.EROFS] * len(refusals)
    assert (volume.path / "f").read_bytes() == b"x"


def test_no_xattr_switches_extended_attributes_off(mount_volume: MountVolume) -> None:
    volume = mount_volume(arguments="-ono_xattr")
    volume.put("f", b"x")

    assert failure(os.getxattr, volume.path / "f", "user.oss.etag") == errno.EOPNOTSUPP
    assert failure(os.setxattr, volume.path / "f", "user.a", b"1") == errno.EOPNOTSUPP


def test_without_no_symlink_links_are_kept_in_the_bucket(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="custom")
    volume.put("dir/target", b"found")
    os.symlink("dir/target", volume.path / "link")

    again = mount_volume(mode="custom")

    assert os.readlink(again.path / "link") == "dir/target"
    assert (again.path / "link").read_bytes() == b"found"


def test_without_no_symlink_a_link_that_leads_nowhere_is_renamed_and_removed(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="custom")
    for number in range(2):
        volume.emulator.seed(f"data/d/{number}", type="Symlink", target="missing")
    folder = volume.path / "d"

    assert all(stat.S_ISLNK(entry.stat(follow_symlinks=False).st_mode) for entry in os.scandir(folder))
    assert failure((folder / "0").read_bytes) == errno.ENOENT
    (folder / "0").rename(folder / "moved")
    folder.rename(volume.path / "e")
    assert os.readlink(volume.path / "e/moved") == "missing"
    shutil.rmtree(volume.path / "e")
    assert volume.stored_names() == set()


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("mode", ["fast", "consistent"])
def test_with_no_symlink_links_are_the_files_they_lead_to(mount_volume: MountVolume, mode: str, session: str) -> None:
    volume = mount_volume(mode=mode, session=session)
    volume.put("target", b"found")
    for name, target in {"link": "data/target", "nowhere": "data/missing", "around": "data/d/link"}.items():
        volume.emulator.seed(f"data/d/{name}", type="Symlink", target=target)
    folder = volume.path / "d"

    listed = {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
    assert listed == {"link": 5, "nowhere": 0, "around": 0}
    assert (folder / "link").read_bytes() == b"found"
    assert failure((folder / "nowhere").read_bytes) == errno.ENOENT

    (folder / "link").rename(volume.path / "moved")
    folder.rename(volume.path / "e")
    assert (volume.path / "moved").read_bytes() == b"found"
    shutil.rmtree(volume.path / "e")
    assert sorted(path.name for path in volume.path.iterdir()) == ["moved", "target"]


def pages_in_cache(path: Path) -> int:
    """How many pages of a file the kernel's page cache holds: mincore(2), which reads nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as view:
        window = ctypes.c_char.from_buffer(view)
        resident = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
        result = libc.mincore(ctypes.c_void_p(ctypes.addressof(window)), ctypes.c_size_t(size), resident)
        del window
    assert result == 0, os.strerror(ctypes.get_errno())
    return sum(page & 1 for page in resident)


@pytest.mark.parametrize(
    ("argument", "cached"), [("-oauto_cache", True), ("-okernel_cache", True), ("-odirect_io", False)]
)
def test_only_direct_io_leaves_nothing_in_the_page_cache(
    mount_volume: MountVolume, argument: str, cached: bool
) -> None:
    volume = mount_volume(mode="custom", arguments=argument)
    volume.put("f", b"x" * 100_000)

    assert (volume.path / "f").read_bytes() == b"x" * 100_000

    assert (pages_in_cache(volume.path / "f") > 0) == cached


def test_pread_fetches_what_is_asked_for_and_not_the_file(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="custom", arguments="-opread -odirect_io")
    volume.emulator.seed(volume.prefix + "f", size=64 << 20)
    volume.emulator.reset_counters()
    with (volume.path / "f").open("rb", buffering=0) as file:
        for offset in (50 << 20, 3 << 20, 40 << 20):
            os.pread(file.fileno(), 4096, offset)

    moved = volume.emulator.counters()["operations"]["GetObject"]["bytes_out"]
    assert moved <= 3 * (1 << 20)


@pytest.mark.parametrize(
    "arguments",
    [
        "-oattr_timeout=0-oentry_timeout=0-onegative_timeout=0",
        "-oattr_timeout=3, -onegative_timeout=0",
        "-o attr_timeout=3,entry_timeout=0,auto_cache",
        "-oauto_unmount -oxengine -omax_idle_threads=5 -ono_flock -ono_writeback",
    ],
)
def test_the_spellings_of_the_guide_mount(mount_volume: MountVolume, arguments: str) -> None:
    volume = mount_volume(arguments=arguments)
    (volume.path / "f").write_bytes(b"works")

    assert volume.get("f") == b"works"
