"""The kernel session on a real mount, over a filesystem in memory: what the kernel asks, how a session ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from csi.volume.naming import SESSIONS
from tests.support.directories import Directory
from tests.support.linux_releases import needs_linux
from tests.support.mounts import ServedMount, ServerFailed, mountpoint_minor, served_mount
from tests.support.published_volume import until

Mount = Callable[..., AbstractContextManager[ServedMount]]


@pytest.fixture(params=SESSIONS)
def mount(tmp_path: Path, request: pytest.FixtureRequest) -> Mount:
    """Every test of this module, over each kernel session."""

    def make(*options: str, read_only: bool = False, **arguments: Any) -> AbstractContextManager[ServedMount]:
        command = ["tests.support.tree_server", "--calls", str(tmp_path / "calls.json"), *options]
        command += ["--session", request.param]
        command += ["--arguments", json.dumps(arguments)]
        return served_mount(tmp_path / "m", command, read_only=read_only)

    return make


@pytest.fixture(params=["inline", "threads"])
def tree(request: pytest.FixtureRequest, mount: Mount) -> Iterator[ServedMount]:
    options = ["--threads-only"] if request.param == "threads" else []
    with mount(*options) as served:
        yield served


def calls(tmp_path: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((tmp_path / "calls.json").read_text())
    return found


def test_files_are_read_written_renamed_and_removed(tree: ServedMount) -> None:
    path = tree.path / "new.txt"
    path.write_bytes(b"one\n" * 100_000)
    with path.open("ab") as file:
        file.write(b"end")
    (tree.path / "dir").mkdir()
    path.rename(tree.path / "dir/moved.txt")

    data = (tree.path / "dir/moved.txt").read_bytes()

    assert data == b"one\n" * 100_000 + b"end"
    (tree.path / "dir/moved.txt").unlink()
    (tree.path / "dir").rmdir()
    assert not path.exists()


def test_bytes_are_the_same_at_every_offset(tree: ServedMount) -> None:
    expected = bytes(range(256)) * 8192
    descriptor = os.open(tree.path / "big.bin", os.O_RDONLY)
    try:
        wrong = [
            (offset, size)
            for offset in range(0, len(expected), 77_777)
            for size in (1, 4096, 100_003)
            if os.pread(descriptor, size, offset) != expected[offset : offset + size]
        ]
        past = os.pread(descriptor, 10, len(expected))
    finally:
        os.close(descriptor)

    assert wrong == []
    assert past == b""


def test_a_large_directory_is_listed_whole_with_types(tree: ServedMount) -> None:
    with os.scandir(tree.path / "many") as entries:
        found = {entry.name: entry.is_file() for entry in entries}

    assert found == {f"entry-{number:05d}": True for number in range(3000)}


def test_dot_and_dot_dot_are_listed_first(tree: ServedMount) -> None:
    directory = Directory(tree.path / "many")
    try:
        assert directory.names(2) == [b".", b".."]
    finally:
        directory.close()


def test_a_directory_can_be_read_again_from_any_position(tree: ServedMount) -> None:
    directory = Directory(tree.path / "many")
    try:
        first = directory.names(1234)
        position = directory.tell()
        rest = directory.names()
        directory.seek(position)
        again = directory.names()
        directory.rewind()
        (tree.path / "many/zz").write_bytes(b"")
        everything = directory.names()
    finally:
        directory.close()

    assert again == rest
    assert len(first + rest) == len(set(first + rest))
    assert set(everything) == {*first, *rest, b"zz"}


def test_a_listing_that_breaks_off_is_an_error_not_a_short_directory(tree: ServedMount) -> None:
    with pytest.raises(OSError) as refused:
        os.listdir(tree.path / "half")

    assert refused.value.errno == errno.EIO


def test_close_reports_what_the_filesystem_reports(mount: Mount) -> None:
    with mount("--failing-flush") as served:
        file = (served.path / "hello.txt").open("r+b")

        with pytest.raises(PermissionError):
            file.close()

        log = served.log()
    assert "AccessDenied" in log
    assert "request_id=R1" in log


def test_hard_links_and_fifos_are_refused(tree: ServedMount) -> None:
    with pytest.raises(PermissionError):
        os.link(tree.path / "hello.txt", tree.path / "link")
    with pytest.raises(PermissionError):
        os.mkfifo(tree.path / "fifo")
    os.mknod(tree.path / "regular", 0o100644)
    assert (tree.path / "regular").stat().st_size == 0


def test_without_xattrs_a_program_sees_not_supported_and_the_filesystem_is_never_asked(
    mount: Mount, tmp_path: Path
) -> None:
    with mount(xattrs=False) as served:
        for _ in range(5):
            with pytest.raises(OSError) as refused:
                os.getxattr(served.path / "hello.txt", "user.a")
            assert refused.value.errno == errno.EOPNOTSUPP
        with pytest.raises(OSError) as refused:
            os.setxattr(served.path / "hello.txt", "user.a", b"1")
        assert refused.value.errno == errno.EOPNOTSUPP
        assert served.unmount() == 0

    assert "getxattr" not in calls(tmp_path)


def test_writes_do_not_ask_for_security_attributes(mount: Mount, tmp_path: Path) -> None:
    with mount() as served:
        (served.path / "w").write_bytes(b"x" * 100_000)
        subprocess.run(["ls", "-la", served.path], check=True, stdout=subprocess.DEVNULL, timeout=30)
        assert served.unmount() == 0

    assert "getxattr" not in calls(tmp_path)


def test_a_read_only_mount_refuses_writes_and_is_never_asked_to_flush(mount: Mount, tmp_path: Path) -> None:
    with mount(read_only=True) as served:
        with pytest.raises(OSError) as refused:
            (served.path / "new").write_bytes(b"")
        assert refused.value.errno == errno.EROFS
        assert (served.path / "hello.txt").read_bytes() == b"hello, world\n"
        assert served.unmount() == 0


def test_closing_files_of_a_read_only_mode_costs_one_flush_for_the_whole_mount(mount: Mount, tmp_path: Path) -> None:
    # MountArguments.read_only here, not MS_RDONLY: what counts is that the kernel stops asking
    with served_mount(
        tmp_path / "ro",
        ["tests.support.tree_server", "--calls", str(tmp_path / "calls.json"), "--arguments", '{"read_only": true}'],
    ) as served:
        for _ in range(10):
            (served.path / "hello.txt").read_bytes()
        assert served.unmount() == 0

    assert "flush" not in calls(tmp_path)


def test_unmounting_ends_the_server_with_success(tree: ServedMount) -> None:
    (tree.path / "hello.txt").read_bytes()
    os.listdir(tree.path)

    assert tree.unmount() == 0


def test_sigterm_ends_the_server_with_success_and_leaves_the_mount_to_its_owner(tree: ServedMount) -> None:
    assert tree.terminate() == 0
    assert mountpoint_minor(tree.path) is not None
    with pytest.raises(OSError) as refused:
        os.listdir(tree.path)
    assert refused.value.errno == errno.ENOTCONN


def test_sigterm_answers_requests_that_wait(mount: Mount) -> None:
    with mount() as served:
        script = f"import os\ntry: os.stat({str(served.path / 'slow')!r})\nexcept OSError as e: print(e.errno)"
        waiting = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        _until_asked(served)
        assert served.terminate() == 0
        output, _ = waiting.communicate(timeout=30)

    assert int(output) in {errno.EIO, errno.ENOENT}


def test_an_aborted_connection_ends_the_server_with_success(tree: ServedMount) -> None:
    tree.abort()

    assert tree.process.wait(30) == 0


def test_an_aborted_connection_does_not_wait_for_requests_whose_callers_are_gone(mount: Mount) -> None:
    with mount() as served:
        waiting = subprocess.Popen(["stat", str(served.path / "slow")], stderr=subprocess.DEVNULL)
        _until_asked(served)
        served.abort()

        assert served.process.wait(20) == 0
        assert waiting.wait(30) == 1


def test_a_server_that_cannot_tell_that_it_started_ends_with_that_error(mount: Mount) -> None:
    with pytest.raises(ServerFailed, match="nobody to tell"), mount("--failing-start"):
        pass


def test_callers_killed_at_random_leave_a_mount_that_answers(tree: ServedMount) -> None:
    walk = """
        import os
        while True:
            for name in os.listdir("many")[:50]:
                os.stat("many/" + name)
            open("big.bin", "rb").read()
            print(flush=True)
    """
    command = [sys.executable, "-S", "-c", textwrap.dedent(walk)]
    for _ in range(15):
        victims = [subprocess.Popen(command, cwd=tree.path, stdout=subprocess.PIPE) for _ in range(2)]
        for victim in victims:
            assert victim.stdout is not None
            victim.stdout.readline()
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
            victim.communicate(timeout=30)

    assert (tree.path / "hello.txt").read_bytes() == b"hello, world\n"
    assert tree.unmount() == 0


def _until_asked(served: ServedMount) -> None:
    """Wait until `slow` is being looked up: a request that the server has not read yet would end with it unanswered."""
    for _ in range(2000):
        if "slow is asked for" in served.log():
            return
        subprocess.run(["sleep", "0.01"], check=True)
    raise AssertionError("no request arrived")


@pytest.mark.parametrize("what", [pytest.param("inodes", marks=needs_linux(6, 18, "FUSE_NOTIFY_PRUNE")), "names"])
def test_what_there_is_no_memory_for_is_forgotten_unless_a_program_uses_it(mount: Mount, what: str) -> None:
    with mount("--forgetful", what) as served:
        directory = os.open(served.path / "many", os.O_RDONLY)
        with (served.path / "hello.txt").open("rb") as file:
            for number in range(3000):
                assert (served.path / f"many/entry-{number:05d}").stat().st_size == number % 7
            until(lambda: os.statvfs(served.path).f_files <= 4)
            assert os.statvfs(served.path).f_files >= 2, "what is open is forgotten"
            assert file.read() == b"hello, world\n"
            assert os.stat("entry-00006", dir_fd=directory).st_size == 6
        os.close(directory)
        assert (served.path / "many/entry-00006").read_bytes() == b"x" * 6
