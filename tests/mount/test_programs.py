"""Programs and habits that users bring, run on a mount in every mode that writes."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from pathlib import Path

import pytest

from tests.mount.conftest import MountVolume

TIMEOUT = 120


def run(*command: str | os.PathLike[str], cwd: Path | None = None) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        command, check=False, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree on a local disk: nested directories, empty files, a larger one, times in the past."""
    home = tmp_path / "tree"
    for name, size in {"a.txt": 10, "sub/b.bin": 300_000, "sub/deeper/c": 0, "sub/deeper/d.py": 2_000}.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        os.utime(path, (1_600_000_000, 1_600_000_000))
    (home / "empty").mkdir()
    return home


def test_cp_a_and_diff_agree(folder: Path, tree: Path) -> None:
    run("cp", "-a", tree, folder / "copy")

    assert run("diff", "-r", tree, folder / "copy") == ""
    run("cp", "-a", folder / "copy", folder / "again")
    assert run("diff", "-r", tree, folder / "again") == ""


@pytest.mark.parametrize("way", ["flock {lock} {script}", "exec 9>{lock}; flock 9; {script}"])
def test_programs_that_lock_a_new_file_take_turns(folder: Path, way: str) -> None:
    script = folder / "script"
    log = folder / "log"
    script.write_text(f"sh -c 'echo begin >> {log}; sleep 0.2; echo end >> {log}'")
    command = way.format(lock=folder / "lock", script=f"sh {script}")
    running = [subprocess.Popen(["sh", "-c", command], stderr=subprocess.PIPE, text=True) for _ in range(5)]
    told = [process.communicate(timeout=TIMEOUT)[1] for process in running]
    assert told == [""] * 5
    assert log.read_text().split() == ["begin", "end"] * 5


@pytest.mark.parametrize("flags", ["w", "r+", "a"])
def test_a_temporary_file_is_written_by_who_opens_it_by_name(folder: Path, flags: str) -> None:
    """As the library `datasets` does in `Dataset.map`: its maker keeps it open, and writes nothing."""
    with tempfile.NamedTemporaryFile("wb", dir=folder, delete=False) as maker:
        with open(maker.name, flags) as writer:
            writer.write("written by name")
        assert Path(maker.name).read_text() == "written by name"
    os.replace(maker.name, folder / "cache.arrow")
    assert (folder / "cache.arrow").read_text() == "written by name"


def test_who_gets_the_lock_writes_its_pid_although_another_waits_for_it(folder: Path) -> None:
    lock = folder / "lock"
    waiting = subprocess.Popen(
        ["sh", "-c", f"exec 9>{lock}; echo opened; read go; flock 9; cat {lock}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "opened\n"
    run("sh", "-c", f"exec 9>{lock}; flock 9; echo 4711 >&9")
    assert waiting.communicate("go\n", timeout=TIMEOUT)[0] == "4711\n"


def test_cp_p_keeps_times(folder: Path, tree: Path) -> None:
    run("cp", "-p", tree / "a.txt", folder / "a.txt")

    assert int((folder / "a.txt").stat().st_mtime) == 1_600_000_000


def test_tar_unpacks_and_packs(folder: Path, tree: Path, tmp_path: Path) -> None:
    run("tar", "-cf", tmp_path / "tree.tar", "-C", tree.parent, tree.name)
    run("tar", "-xf", tmp_path / "tree.tar", "-C", folder)
    assert run("diff", "-r", tree, folder / tree.name) == ""

    run("tar", "-cf", folder / "back.tar", "-C", folder, tree.name)
    with tarfile.open(folder / "back.tar") as archive:
        assert f"{tree.name}/sub/b.bin" in archive.getnames()


def test_find_and_du_and_rm_r_walk_the_tree(folder: Path, tree: Path) -> None:
    run("cp", "-r", tree, folder / "copy")

    found = run("find", folder / "copy", "-type", "f").splitlines()
    total = int(run("du", "-sb", "--apparent-size", folder / "copy").split()[0])
    run("rm", "-r", folder / "copy")

    assert len(found) == 4
    assert total >= 302_010
    assert os.listdir(folder) == []


def test_mv_between_a_disk_and_the_mount(folder: Path, tree: Path, tmp_path: Path) -> None:
    original = (tree / "sub/b.bin").read_bytes()
    run("mv", tree / "sub", folder / "sub")
    run("mv", folder / "sub", tmp_path / "returned")

    assert (tmp_path / "returned/b.bin").read_bytes() == original
    assert os.listdir(folder) == []


def test_shell_redirections(folder: Path) -> None:
    script = "echo one > f; echo two >> f; cat f f > g; wc -l < g; head -c 4 g; sort -o sorted g; : > f; test ! -s f"

    assert run("sh", "-ec", script, cwd=folder) == "4\none\n"
    assert (folder / "sorted").read_text() == "one\none\ntwo\ntwo\n"


def test_dd_with_fsync(folder: Path) -> None:
    run("dd", "if=/dev/urandom", f"of={folder / 'dd'}", "bs=64k", "count=20", "conv=fsync", "status=none")

    assert (folder / "dd").stat().st_size == 20 * 65536


def test_a_file_is_synchronised_as_rsync_does_it(folder: Path, tree: Path) -> None:
    """Hidden temporary name, chmod, utimes, rename over the old version."""
    data = (tree / "sub/b.bin").read_bytes()
    (folder / "b.bin").write_bytes(b"old")
    temporary = folder / ".b.bin.Xq3hTf"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    for offset in range(0, len(data), 32_768):
        os.write(descriptor, data[offset : offset + 32_768])
    os.close(descriptor)
    temporary.chmod(0o644)
    os.utime(temporary, ns=(1, 1_600_000_000_000_000_000))
    temporary.rename(folder / "b.bin")

    assert (folder / "b.bin").read_bytes() == data
    assert (folder / "b.bin").stat().st_mtime_ns == 1_600_000_000_000_000_000
    assert os.listdir(folder) == ["b.bin"]


def test_git_keeps_a_repository(folder: Path) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "safe.directory=*")
    for arguments in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "one")):
        (folder / "file.txt").write_text("hello\n")
        run("git", *identity, *arguments, cwd=folder)
    (folder / "file.txt").write_text("changed\n")

    assert " M file.txt" in run("git", *identity, "status", "--short", cwd=folder)
    run("git", *identity, "commit", "-q", "-am", "two", cwd=folder)
    assert len(run("git", *identity, "log", "--format=%s", cwd=folder).splitlines()) == 2
    assert run("git", *identity, "fsck", cwd=folder) is not None


def test_git_clones_a_pack_of_several_parts(mount_volume: MountVolume, tmp_path: Path) -> None:
    """It reads back what it has written of the pack, which is not closed until it is checked."""
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "core.compression=0")
    source, data, folder = tmp_path / "source", os.urandom(12 << 20), mount_volume().path
    source.mkdir()
    run(*git, "init", "-q", "-b", "main", cwd=source)
    for version in (data, data + b"changed"):
        (source / "large").write_bytes(version)
        run(*git, "add", ".", cwd=source)
        run(*git, "commit", "-q", "-m", "one", cwd=source)

    run(*git, "clone", "-q", f"file://{source}", "clone", cwd=folder)

    assert (folder / "clone" / "large").read_bytes() == data + b"changed"
    run(*git, "-c", "safe.directory=*", "fsck", cwd=folder / "clone")


def test_a_checkpoint_is_saved_to_a_temporary_name_and_renamed(folder: Path) -> None:
    """safetensors: header, tensors, chmod, rename onto the previous checkpoint."""
    for version in (b"1", b"2"):
        header = json.dumps({"w": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}).encode()
        with (folder / ".tmp").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.write(version * 4000)
        (folder / ".tmp").chmod(0o644)
        (folder / ".tmp").replace(folder / "model.safetensors")

    saved = (folder / "model.safetensors").read_bytes()

    assert saved.endswith(b"2" * 4000)
    assert os.listdir(folder) == ["model.safetensors"]


def test_python_bytecode_is_cached_on_the_mount(folder: Path) -> None:
    (folder / "module.py").write_text("VALUE = 42\n")
    command = ("python3", "-c", "import module; print(module.VALUE, bool(module.__cached__))")

    assert run(*command, cwd=folder) == "42 True\n"
    assert os.listdir(folder / "__pycache__")
    assert run(*command, cwd=folder) == "42 True\n"


def test_sqlite_is_refused_with_an_error_and_not_with_a_broken_file(folder: Path) -> None:
    script = """
        import sqlite3
        connection = sqlite3.connect("db")
        connection.execute("create table t (x)")
        connection.execute("insert into t values (1)")
        connection.commit()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)

    assert done.returncode != 0
    assert "sqlite3.OperationalError" in done.stderr
