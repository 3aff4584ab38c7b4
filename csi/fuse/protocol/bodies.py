"""What a request of the kernel says, as small values: a header and one kind of body an opcode (or a family of them)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Header(NamedTuple):
    """struct fuse_in_header. `extensions`: length of what follows the body, in units of eight bytes."""

    length: int
    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    extensions: int


class Nothing(NamedTuple):
    """A body that says nothing: READLINK, STATFS, DESTROY; also of an opcode this protocol does not have."""


class Name(NamedTuple):
    """LOOKUP, UNLINK, RMDIR, REMOVEXATTR."""

    name: bytes


class Forget(NamedTuple):
    """FORGET and BATCH_FORGET: (node, how often) each."""

    forgotten: tuple[tuple[int, int], ...]


class GetAttr(NamedTuple):
    flags: int
    handle: int


class SetAttributes(NamedTuple):
    """SETATTR; `valid` (constants.SetAttr) says which of the others count. Times in nanoseconds."""

    valid: int
    handle: int
    size: int
    lock_owner: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int


class Symlink(NamedTuple):
    name: bytes
    target: bytes


class MakeNode(NamedTuple):
    name: bytes
    mode: int
    device: int
    umask: int


class MakeDirectory(NamedTuple):
    name: bytes
    mode: int
    umask: int


class Rename(NamedTuple):
    """RENAME and RENAME2; `flags` are renameat2(2)'s."""

    name: bytes
    new_parent: int
    new_name: bytes
    flags: int


class Link(NamedTuple):
    node: int
    name: bytes


class Open(NamedTuple):
    """OPEN and OPENDIR; `flags` are open(2)'s."""

    flags: int
    open_flags: int


class Create(NamedTuple):
    """CREATE and TMPFILE."""

    name: bytes
    flags: int
    mode: int
    umask: int
    open_flags: int


class Read(NamedTuple):
    """READ, READDIR and READDIRPLUS (`offset` is the cookie then)."""

    handle: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    flags: int


class Write(NamedTuple):
    handle: int
    offset: int
    data: memoryview
    write_flags: int
    lock_owner: int
    flags: int


class Release(NamedTuple):
    """RELEASE and RELEASEDIR."""

    handle: int
    flags: int
    release_flags: int
    lock_owner: int


class Sync(NamedTuple):
    """FSYNC and FSYNCDIR."""

    handle: int
    flags: int


class Flush(NamedTuple):
    handle: int
    lock_owner: int


class SetXattr(NamedTuple):
    name: bytes
    value: bytes
    flags: int


class GetXattr(NamedTuple):
    """`size` 0 asks for the size alone."""

    name: bytes
    size: int


class ListXattr(NamedTuple):
    size: int


class Init(NamedTuple):
    """`flags` has all 64 bits."""

    major: int
    minor: int
    max_readahead: int
    flags: int


class Lock(NamedTuple):
    """GETLK, SETLK, SETLKW."""

    handle: int
    owner: int
    start: int
    end: int
    kind: int
    pid: int
    flags: int


class Access(NamedTuple):
    mask: int


class Interrupt(NamedTuple):
    unique: int


class BlockMap(NamedTuple):
    block: int
    block_size: int


class Ioctl(NamedTuple):
    handle: int
    flags: int
    command: int
    argument: int
    data: bytes
    out_size: int


class Poll(NamedTuple):
    handle: int
    kernel_handle: int
    flags: int
    events: int


class Allocate(NamedTuple):
    """FALLOCATE."""

    handle: int
    offset: int
    length: int
    mode: int


class Seek(NamedTuple):
    handle: int
    offset: int
    whence: int


class CopyRange(NamedTuple):
    """COPY_FILE_RANGE, of the header's node."""

    handle: int
    offset: int
    to_node: int
    to_handle: int
    to_offset: int
    length: int
    flags: int


class Statx(NamedTuple):
    flags: int
    handle: int
    statx_flags: int
    mask: int


Body: TypeAlias = (
    Nothing | Name | Forget | GetAttr | SetAttributes | Symlink | MakeNode | MakeDirectory | Rename | Link | Open
    | Create | Read | Write | Release | Sync | Flush | SetXattr | GetXattr | ListXattr | Init | Lock | Access
    | Interrupt | BlockMap | Ioctl | Poll | Allocate | Seek | CopyRange | Statx
)  # fmt: skip


class Request(NamedTuple):
    header: Header
    body: Body
