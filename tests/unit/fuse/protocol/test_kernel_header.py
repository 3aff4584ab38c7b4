"""The layouts agree with the header of the kernel on this machine (linux/fuse.h), as a C compiler sees it.

Every field of every recorded request is looked up where the header says that it is, and compared with what we decoded.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from csi.fs.types import Attributes, DirectoryEntry, Entry, FileKind, FilesystemStatistics
from csi.fuse.protocol import replies
from csi.fuse.protocol.constants import Opcode
from csi.fuse.protocol.messages import decode
from csi.fuse.protocol.negotiation import answer_to_other_major
from csi.volume.units import InodeNumber, Seconds
from tests.support.recorded_fuse import ALL, messages

_HEADER = Path("/usr/include/linux/fuse.h")
_MINOR = "#define FUSE_KERNEL_MINOR_VERSION "


def _minor_of_the_header() -> int:
    lines = _HEADER.read_text().splitlines() if _HEADER.exists() else []
    return next((int(line.removeprefix(_MINOR)) for line in lines if line.startswith(_MINOR)), 0)


pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or _minor_of_the_header() < 38, reason="needs gcc and the header of kernel 6.2 or newer"
)

_LOCK = {"handle": "fh", "owner": "owner", "start": "lk.start", "end": "lk.end", "kind": "lk.type", "pid": "lk.pid",
         "flags": "lk_flags"}  # fmt: skip
_READ = {"handle": "fh", "offset": "offset", "size": "size", "read_flags": "read_flags", "lock_owner": "lock_owner",
         "flags": "flags"}  # fmt: skip
_RELEASE = {"handle": "fh", "flags": "flags", "release_flags": "release_flags", "lock_owner": "lock_owner"}
_OPEN = {"flags": "flags", "open_flags": "open_flags"}
_CREATE = {"flags": "flags", "mode": "mode", "umask": "umask", "open_flags": "open_flags"}
_COPY = {"handle": "fh_in", "offset": "off_in", "to_node": "nodeid_out", "to_handle": "fh_out",
         "to_offset": "off_out", "length": "len", "flags": "flags"}  # fmt: skip
_SYNC = {"handle": "fh", "flags": "fsync_flags"}
_LAYOUTS: Mapping[Opcode, tuple[str, Mapping[str, str]]] = {
    Opcode.GETATTR: ("fuse_getattr_in", {"flags": "getattr_flags", "handle": "fh"}),
    Opcode.SETATTR: ("fuse_setattr_in", {"valid": "valid", "handle": "fh", "size": "size", "lock_owner": "lock_owner",
                                         "mode": "mode", "uid": "uid", "gid": "gid"}),
    Opcode.MKNOD: ("fuse_mknod_in", {"mode": "mode", "device": "rdev", "umask": "umask"}),
    Opcode.MKDIR: ("fuse_mkdir_in", {"mode": "mode", "umask": "umask"}),
    Opcode.RENAME: ("fuse_rename_in", {"new_parent": "newdir"}),
    Opcode.RENAME2: ("fuse_rename2_in", {"new_parent": "newdir", "flags": "flags"}),
    Opcode.LINK: ("fuse_link_in", {"node": "oldnodeid"}),
    Opcode.OPEN: ("fuse_open_in", _OPEN),
    Opcode.OPENDIR: ("fuse_open_in", _OPEN),
    Opcode.CREATE: ("fuse_create_in", _CREATE),
    Opcode.TMPFILE: ("fuse_create_in", _CREATE),
    Opcode.READ: ("fuse_read_in", _READ),
    Opcode.READDIR: ("fuse_read_in", _READ),
    Opcode.READDIRPLUS: ("fuse_read_in", _READ),
    Opcode.WRITE: ("fuse_write_in", {name: field for name, field in _READ.items() if name not in ("size", "read_flags")}
                   | {"write_flags": "write_flags"}),
    Opcode.RELEASE: ("fuse_release_in", _RELEASE),
    Opcode.RELEASEDIR: ("fuse_release_in", _RELEASE),
    Opcode.FSYNC: ("fuse_fsync_in", _SYNC),
    Opcode.FSYNCDIR: ("fuse_fsync_in", _SYNC),
    Opcode.FLUSH: ("fuse_flush_in", {"handle": "fh", "lock_owner": "lock_owner"}),
    Opcode.SETXATTR: ("fuse_setxattr_in", {"flags": "flags"}),
    Opcode.GETXATTR: ("fuse_getxattr_in", {"size": "size"}),
    Opcode.LISTXATTR: ("fuse_getxattr_in", {"size": "size"}),
    Opcode.INIT: ("fuse_init_in", {"major": "major", "minor": "minor", "max_readahead": "max_readahead"}),
    Opcode.GETLK: ("fuse_lk_in", _LOCK),
    Opcode.SETLK: ("fuse_lk_in", _LOCK),
    Opcode.SETLKW: ("fuse_lk_in", _LOCK),
    Opcode.ACCESS: ("fuse_access_in", {"mask": "mask"}),
    Opcode.INTERRUPT: ("fuse_interrupt_in", {"unique": "unique"}),
    Opcode.IOCTL: ("fuse_ioctl_in", {"handle": "fh", "flags": "flags", "command": "cmd", "argument": "arg",
                                     "out_size": "out_size"}),
    Opcode.POLL: ("fuse_poll_in", {"handle": "fh", "kernel_handle": "kh", "flags": "flags", "events": "events"}),
    Opcode.FALLOCATE: ("fuse_fallocate_in", {"handle": "fh", "offset": "offset", "length": "length", "mode": "mode"}),
    Opcode.LSEEK: ("fuse_lseek_in", {"handle": "fh", "offset": "offset", "whence": "whence"}),
    Opcode.COPY_FILE_RANGE: ("fuse_copy_file_range_in", _COPY),
    Opcode.COPY_FILE_RANGE_64: ("fuse_copy_file_range_in", _COPY),
}  # fmt: skip
_TIMES = ("atime", "mtime", "ctime")

_ENTRY = Entry(Attributes(InodeNumber(2), FileKind.FILE, 0o100644, 1, 0, 0, 5, 1, 2, 3), Seconds(1), Seconds(2))
_ANSWERS: Sequence[tuple[str, str, bytes]] = [
    ("fuse_out_header", "", replies.header(1, 0)),
    ("fuse_entry_out", "", replies.entry(_ENTRY)),
    ("fuse_entry_out", "", replies.negative_entry(Seconds(1))),
    ("fuse_attr_out", "", replies.attributes_for(_ENTRY)),
    ("fuse_open_out", "", replies.opened(1, 0)),
    ("fuse_write_out", "", replies.size(1)),
    ("fuse_getxattr_out", "", replies.size(1)),
    ("fuse_lseek_out", "", replies.position(1)),
    ("fuse_statfs_out", "", replies.statfs(FilesystemStatistics(1, 1, 1, 1, 1))),
    ("fuse_init_out", "", answer_to_other_major()),
    ("fuse_dirent", "8 bytes of a name", replies.directory_record(b"12345678", 2, 0o100644, 1)),
    ("fuse_direntplus", "8 bytes of a name", replies.directory_record_plus(DirectoryEntry(b"12345678", _ENTRY, 1))),
]  # fmt: skip
_MORE = {"": 0, "8 bytes of a name": 8}

Layout = Mapping[str, Mapping[str, tuple[int, int]]]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Offset and size of each field in each struct; those of the struct itself under ""."""
    wanted = {name: set(fields.values()) for name, fields in _LAYOUTS.values()}
    for name, fields in _LAYOUTS.values():
        wanted[name] |= set(fields.values())
    wanted["fuse_setattr_in"] |= {field + part for field in _TIMES for part in ("", "nsec")}
    wanted["fuse_setxattr_in"] |= {"setxattr_flags"}
    wanted["fuse_in_header"] = {"len", "opcode", "unique", "nodeid", "uid", "gid", "pid", "total_extlen"}
    wanted |= {name: set() for name, _, _ in _ANSWERS}
    prints = [
        f'printf("{name} {field} %zu %zu\\n", offsetof(struct {name}, {field}), sizeof(((struct {name} *)0)->{field}));'
        for name, fields in wanted.items()
        for field in sorted(fields)
    ] + [f'printf("{name} - 0 %zu\\n", sizeof(struct {name}));' for name in wanted]
    directory = tmp_path_factory.mktemp("header")
    source = directory / "layout.c"
    includes = "#include <linux/fuse.h>\n#include <stddef.h>\n#include <stdio.h>\n"
    source.write_text(f"{includes}int main(void) {{\n" + "\n".join(prints) + "\nreturn 0; }\n")
    subprocess.run(["gcc", "-o", str(directory / "layout"), str(source)], check=True, capture_output=True)
    printed = subprocess.run([str(directory / "layout")], check=True, capture_output=True, text=True).stdout
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for line in printed.splitlines():
        name, field, offset, size = line.split()
        found.setdefault(name, {})["" if field == "-" else field] = (int(offset), int(size))
    return found


def test_every_field_of_every_recorded_request_is_where_the_header_has_it(layout: Layout) -> None:
    compared = 0
    for message in messages():
        if not message.is_request or message.opcode not in _LAYOUTS:
            continue
        body = decode(memoryview(message.data), setxattr_ext=message.session == ALL).body
        struct_name, fields = _LAYOUTS[Opcode(message.opcode)]
        for ours, theirs in fields.items():
            expected = at(message.data, layout[struct_name][theirs], 40)
            assert getattr(body, ours) == expected, (message.step, Opcode(message.opcode), ours)
            compared += 1

    assert compared > 500


def test_times_of_a_recorded_setattr_are_where_the_header_has_them(layout: Layout) -> None:
    fields = layout["fuse_setattr_in"]
    compared = 0
    for message in messages():
        if message.opcode != Opcode.SETATTR or not message.is_request or message.step == "utime-before-1970":
            continue
        body = decode(memoryview(message.data)).body
        for time in _TIMES:
            expected = at(message.data, fields[time], 40) * 1_000_000_000 + at(message.data, fields[f"{time}nsec"], 40)
            assert getattr(body, f"{time}_ns") == expected
            compared += 1

    assert compared > 20


def test_the_header_of_every_recorded_request_is_where_the_header_has_it(layout: Layout) -> None:
    ours = {"length": "len", "opcode": "opcode", "unique": "unique", "node": "nodeid", "uid": "uid", "gid": "gid",
            "pid": "pid", "extensions": "total_extlen"}  # fmt: skip
    for message in messages():
        if message.is_request:
            header = decode(memoryview(message.data), setxattr_ext=message.session == ALL).header
            theirs = {name: at(message.data, layout["fuse_in_header"][field], 0) for name, field in ours.items()}
            assert header._asdict() == theirs


@pytest.mark.parametrize(
    ("struct_name", "more", "answer"), _ANSWERS, ids=[f"{row[0]}-{number}" for number, row in enumerate(_ANSWERS)]
)
def test_an_answer_has_the_size_that_the_header_says(
    layout: Layout, struct_name: str, more: str, answer: bytes
) -> None:
    assert len(answer) == layout[struct_name][""][1] + _MORE[more]


def at(message: bytes, place: tuple[int, int], start: int) -> int:
    offset, size = place
    return int.from_bytes(message[start + offset : start + offset + size], "little")
