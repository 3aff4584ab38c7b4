"""Every row of the operation tables of docs/semantics.md as a program that carries it out.

An action prepares what it needs as another client would, acts through the mount, checks the result and returns what
happened in the words of the table; an OSError is the name of its errno. Rows and actions are matched by the text of
the row, so that neither can be without the other.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.directories import names_by_every_way
from tests.support.ending_programs import BEGINNING, WRITTEN
from tests.support.published_volume import until
from tests.support.volumes import MountedVolume

YES = "yes"
OLD = b"the old content"


@dataclass
class Scene:
    """A folder of its own on a mount. `writable`: the mount is not read-only."""

    volume: MountedVolume
    name: str
    writable: bool

    @property
    def path(self) -> Path:
        return self.volume.path / self.name

    def file(self, name: str = "f", data: bytes = OLD) -> Path:
        """A file, made through the mount if that is possible."""
        if self.writable:
            self.path.mkdir(exist_ok=True)
            (self.path / name).write_bytes(data)
        else:
            self.volume.put(f"{self.name}/{name}", data)
        return self.path / name

    def directory(self, name: str) -> Path:
        self.volume.put(f"{self.name}/{name}/", b"")
        return self.path / name

    def stored(self, name: str = "f") -> bytes:
        return self.volume.get(f"{self.name}/{name}")

    def here(self) -> Path:
        """The folder, with something in it so that it is there."""
        self.volume.put(f"{self.name}/", b"")
        return self.path


ACTIONS: dict[str, Callable[[Scene], str]] = {}


def action(row: str) -> Callable[[Callable[[Scene], str]], Callable[[Scene], str]]:
    def register(call: Callable[[Scene], str]) -> Callable[[Scene], str]:
        ACTIONS[row] = call
        return call

    return register


def carry_out(row: str, scene: Scene) -> str:
    try:
        return ACTIONS[row](scene)
    except OSError as error:
        return {errno.EOPNOTSUPP: "EOPNOTSUPP"}.get(error.errno or 0) or errno.errorcode[error.errno or 0]


# --- files ---


@action("read, at any offset, by any number of programs")
def _(scene: Scene) -> str:
    path = scene.file(data=bytes(range(256)) * 1000)
    one, two = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        assert os.pread(one, 3, 255_997) == b"\xfd\xfe\xff"
        assert os.pread(two, 3, 0) == b"\x00\x01\x02"
        assert os.pread(one, 3, 100_001) == bytes(range(256))[100_001 % 256 :][:3]
    finally:
        os.close(one)
        os.close(two)
    return YES


@action("mmap for reading")
def _(scene: Scene) -> str:
    with scene.file(data=OLD * 1000).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert view[:] == OLD * 1000
    return YES


@action("create and write from the start")
def _(scene: Scene) -> str:
    (scene.here() / "f").write_bytes(OLD)
    assert scene.stored() == OLD
    return YES


@action("empty file (touch)")
def _(scene: Scene) -> str:
    (scene.here() / "f").touch()
    assert scene.stored() == b""
    return YES


@action("overwrite with truncation (`>`; `O_TRUNC`)")
def _(scene: Scene) -> str:
    scene.file().write_bytes(b"new")
    assert scene.stored() == b"new"
    return YES


@action("append to an existing file (`>>`, `O_APPEND`)")
def _(scene: Scene) -> str:
    with scene.file().open("ab") as file:
        file.write(b" and more")
    assert scene.stored() == OLD + b" and more"
    return YES


@action("write anywhere but at the end")
def _(scene: Scene) -> str:
    descriptor = os.open(scene.file(), os.O_WRONLY)
    try:
        os.pwrite(descriptor, b"X", 3)
    finally:
        _close_quietly(descriptor)
        assert scene.stored() == OLD
    return YES


@action("two programs writing one file, second one truncates")
def _(scene: Scene) -> str:
    with scene.file().open("ab", buffering=0) as first:
        first.write(b"1")
        os.close(os.open(scene.path / "f", os.O_WRONLY | os.O_TRUNC))
    return YES


@action("two programs appending to one file")
def _(scene: Scene) -> str:
    path = scene.file(data=b"")
    one, two = path.open("ab", buffering=0), path.open("ab", buffering=0)
    one.write(b"1")
    two.write(b"2")
    one.write(b"3")
    one.close()
    two.close()
    assert scene.stored() == b"123"
    return YES


@action("read while it is written on the same mount")
def _(scene: Scene) -> str:
    scene.file()
    with (scene.path / "g").open("wb", buffering=0) as writer:
        writer.write(b"so far")
        with (scene.path / "g").open("rb", buffering=0) as reader:
            assert reader.read() == b"so far"
            for _ in range(20):
                writer.write(bytes(1 << 20))
                assert len(reader.read(2 << 20)) == 1 << 20
        assert (scene.path / "g").read_bytes() == b"so far" + bytes(20 << 20)
    return YES


@action("open it for reading only once a part of it was sent")
def _(scene: Scene) -> str:
    scene.file()
    with (scene.path / "g").open("wb", buffering=0) as writer:
        for _ in range(9):
            writer.write(bytes(1 << 20))
        assert (scene.path / "g").read_bytes() == bytes(9 << 20)
    return YES


@action("read back what is written to a file without a name (a temporary file)")
def _(scene: Scene) -> str:
    scene.file()
    with tempfile.TemporaryFile(dir=scene.path) as file:
        file.write(b"for a while")
        file.seek(6)
        file.write(b"ONE")
        file.seek(0)
        assert file.read() == b"for a ONEle"
    return YES


@action("truncate to 0")
def _(scene: Scene) -> str:
    os.truncate(scene.file(), 0)
    assert scene.stored() == b""
    return YES


@action("truncate to the size it has")
def _(scene: Scene) -> str:
    os.truncate(scene.file(), len(OLD))
    assert scene.stored() == OLD
    return YES


@action("truncate to another size")
def _(scene: Scene) -> str:
    os.truncate(scene.file(), 5)
    return YES


@action("give a new file its size, then write as much")
def _(scene: Scene) -> str:
    with (scene.here() / "f").open("wb", buffering=0) as file:
        os.ftruncate(file.fileno(), 8)
        assert (scene.here() / "f").stat().st_size == 8
        file.write(b"half")
        file.write(b"half")
    assert scene.stored() == b"halfhalf"
    return YES


@action("end without closing what was written (exit)")
def _(scene: Scene) -> str:
    with _writing(scene, "os._exit(0)"):
        pass
    assert scene.stored() == WRITTEN
    return YES


@action("be killed before closing what was written")
def _(scene: Scene) -> str:
    with _writing(scene, "wait()") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"written\n"
        program.kill()
    if scene.stored() == WRITTEN:
        return YES
    path = scene.path / "f"
    until(lambda: path.stat().st_size == len(OLD))
    assert path.read_bytes() == scene.stored() == OLD
    return "the old file, or none"


def _writing(scene: Scene, end: str) -> subprocess.Popen[bytes]:
    """A program that overwrites the file and then does `end`."""
    path = scene.file()
    os.close(os.open(path, os.O_WRONLY))  # raises what the program would meet
    command = [sys.executable, "-c", f"{BEGINNING}\nwrite()\n{end}", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@action("fsync, then go on writing")
def _(scene: Scene) -> str:
    with (scene.here() / "f").open("wb", buffering=0) as file:
        file.write(b"one ")
        os.fsync(file.fileno())
        assert scene.stored() == b"one "
        file.write(b"two")
    assert scene.stored() == b"one two"
    return YES


@action("create with `O_EXCL` a name that is there")
def _(scene: Scene) -> str:
    os.close(os.open(scene.file(), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    return YES


@action("chmod, chown")
def _(scene: Scene) -> str:
    path = scene.file()
    before = path.stat()
    path.chmod(0o601)
    os.chown(path, 12, 34)
    after = path.stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    return "no effect"


@action("set times (touch -d, utimensat)")
def _(scene: Scene) -> str:
    path = scene.file()
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert path.stat().st_mtime == 1_000_000_000
    assert scene.volume.modified(f"{scene.name}/f") > 1_500_000_000
    return "this mount only"


@action("set and remove `user.*` attributes")
def _(scene: Scene) -> str:
    path = scene.file()
    os.setxattr(path, "user.colour", b"blue")
    assert os.getxattr(path, "user.colour") == b"blue"
    os.removexattr(path, "user.colour")
    assert "user.colour" not in os.listxattr(path)
    return YES


@action("read `user.*` attributes")
def _(scene: Scene) -> str:
    path = scene.file()
    assert os.getxattr(path, "user.oss.etag")
    assert os.getxattr(path, "user.oss.storage-class") == b"Standard"
    return YES


@action("delete")
def _(scene: Scene) -> str:
    path = scene.file()
    path.unlink()
    assert f"{scene.name}/f" not in scene.volume.stored_names()
    assert not path.exists()
    return YES


@action("rename a file, also over another")
def _(scene: Scene) -> str:
    scene.file("other", b"replaced")
    scene.file().rename(scene.path / "other")
    assert scene.stored("other") == OLD
    assert f"{scene.name}/f" not in scene.volume.stored_names()
    return YES


@action("hard link")
def _(scene: Scene) -> str:
    os.link(scene.file(), scene.path / "link")
    return YES


def _make_link(scene: Scene) -> str:
    os.symlink("f", scene.file().parent / "link")
    assert os.readlink(scene.path / "link") == "f"
    assert (scene.path / "link").read_bytes() == OLD
    return YES


ACTIONS["symbolic link, without `-ono_symlink`"] = _make_link
ACTIONS["symbolic link, with `-ono_symlink`"] = _make_link


@action("empty file by mknod(2)")
def _(scene: Scene) -> str:
    path = scene.here() / "empty"
    os.mknod(path, stat.S_IFREG | 0o644)
    assert path.read_bytes() == b""
    return YES


@action("fifo, socket, device")
def _(scene: Scene) -> str:
    refused = set()
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR):
        try:
            os.mknod(scene.here() / "special", kind | 0o600, os.makedev(1, 3))
        except OSError as error:
            refused.add(error.errno)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(os.path.relpath(scene.path / "s"))
        except OSError as error:
            refused.add(error.errno)
    (number,) = refused
    raise OSError(number, "all of them")


# --- directories ---


@action("list, at any size, with rewind and seek")
def _(scene: Scene) -> str:
    scene.volume.emulator.seed(f"{scene.volume.prefix}{scene.name}/f{{n:04d}}", b"x", count=1200)
    first, rest, again, whole = names_by_every_way(scene.path, 500)
    assert rest == again
    assert whole == first + rest
    assert {os.fsdecode(name) for name in whole} == {f"f{n:04d}" for n in range(1200)} | {".", ".."}
    return YES


@action("mkdir")
def _(scene: Scene) -> str:
    (scene.here() / "d").mkdir()
    assert f"{scene.name}/d/" in scene.volume.stored_names()
    return YES


@action("mkdir of a name that is there")
def _(scene: Scene) -> str:
    scene.file().mkdir()
    return YES


@action("rmdir of an empty directory")
def _(scene: Scene) -> str:
    scene.directory("d").rmdir()
    assert not (scene.path / "d").exists()
    return YES


@action("rmdir of a directory with anything in it")
def _(scene: Scene) -> str:
    scene.file()
    scene.path.rmdir()
    return YES


@action("rename a directory with everything in it")
def _(scene: Scene) -> str:
    scene.volume.put(f"{scene.name}/d/x/y", OLD)
    scene.volume.put(f"{scene.name}/d/hidden//key", OLD)
    (scene.path / "d").rename(scene.path / "e")
    assert scene.stored("e/x/y") == OLD
    assert scene.stored("e/hidden//key") == OLD
    assert not (scene.path / "d").exists()
    return YES


@action("rename a directory onto an empty one")
def _(scene: Scene) -> str:
    scene.volume.put(f"{scene.name}/d/x", OLD)
    scene.directory("e")
    (scene.path / "d").rename(scene.path / "e")
    assert scene.stored("e/x") == OLD
    return YES


@action("rename a directory onto one that is not empty")
def _(scene: Scene) -> str:
    scene.volume.put(f"{scene.name}/d/x", OLD)
    scene.volume.put(f"{scene.name}/e/y", OLD)
    (scene.path / "d").rename(scene.path / "e")
    return YES


@action("rename a directory into itself")
def _(scene: Scene) -> str:
    scene.directory("d").rename(scene.path / "d/below")
    return YES


@action("rename a file onto a directory")
def _(scene: Scene) -> str:
    scene.directory("d")
    scene.file().rename(scene.path / "d")
    return YES


@action("rename a directory onto a file")
def _(scene: Scene) -> str:
    scene.directory("d")
    scene.file()
    (scene.path / "d").rename(scene.path / "f")
    return YES


@action("rename with RENAME_NOREPLACE onto a name that is there")
def _(scene: Scene) -> str:
    return _renameat2(scene, flags=1)


@action("rename with RENAME_EXCHANGE")
def _(scene: Scene) -> str:
    return _renameat2(scene, flags=2)


def _renameat2(scene: Scene, flags: int) -> str:
    scene.file("g")
    libc = ctypes.CDLL(None, use_errno=True)
    source, target = os.fsencode(scene.file()), os.fsencode(scene.path / "g")
    here = -100  # AT_FDCWD
    if libc.renameat2(here, source, here, target, flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")
    return YES


def _close_quietly(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError as error:
        assert error.errno == errno.EINVAL
