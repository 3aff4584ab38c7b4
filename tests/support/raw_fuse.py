"""A filesystem in memory on the raw /dev/fuse, for recording: it says yes to whatever the kernel asks.

Written from linux/fuse.h and knowing nothing of csi/fuse, so that what is recorded with it can judge csi/fuse. One
thread. Every message read and every one written is given to `log` with its direction.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

BUFFER = 1 << 17
PREFERRED_IO = 1 << 17
IN = struct.Struct("<IIQQIIIHH")
OUT = struct.Struct("<IiQ")
ATTR = struct.Struct("<6Q10I")
VALID = struct.Struct("<QQQQII")
INIT_OUT = struct.Struct("<IIIIHHIIHHIIHH20x")

ALL_FLAGS = ~(
    (1 << 16) | (1 << 20) | (1 << 24) | (1 << 17) | (1 << 26) | (1 << 14) | (1 << 37) | (1 << 41) | (1 << 3) | (1 << 40)
)
"""Everything the kernel offers but what would keep it from asking: write-back, no-open, adaptive readdirplus, io_uring,
passthrough, truncation within open, mapped identities; and ACLs, whose reading would be in every step."""
OLD_FLAGS = (1 << 0) | (1 << 5) | (1 << 1) | (1 << 10) | (1 << 22)

Log = Callable[[str, bytes], None]


@dataclass
class Node:
    number: int
    mode: int
    data: bytearray = field(default_factory=bytearray)
    children: dict[bytes, int] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    owner: tuple[int, int] = (0, 0)
    times: list[int] = field(default_factory=lambda: [1_700_000_000, 1_700_000_001, 1_700_000_002])
    links: int = 1


class RawFuse:
    """`minor` is answered to INIT, and `flags` of those the kernel offers. Nodes and handles are numbered in order."""

    def __init__(self, descriptor: int, log: Log, minor: int, flags: int, modern: bool) -> None:
        self._descriptor = descriptor
        self._log = log
        self._minor = minor
        self._flags = flags
        self._modern = modern
        self._nodes = {1: Node(1, stat.S_IFDIR | 0o755)}
        self._next_handle = 0x1000
        self._waiting_lock = 0

    def serve(self) -> None:
        """Until the mount is gone."""
        while True:
            try:
                message = os.read(self._descriptor, BUFFER)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return
            self._log(">", message)
            self._answer(message)

    def _answer(self, message: bytes) -> None:
        length, opcode, unique, number, uid, gid, _pid, extensions, _ = IN.unpack_from(message)
        body = message[IN.size : length - 8 * extensions]
        if opcode == 36:  # INTERRUPT: the lock that waits gets its answer
            self._reply(self._waiting_lock, -errno.EINTR)
            return
        if opcode in (2, 42, 41):  # FORGET, BATCH_FORGET, NOTIFY_REPLY have no answer
            return
        if opcode == 33:  # SETLKW: until it is interrupted
            self._waiting_lock = unique
            return
        try:
            self._reply(unique, 0, self._handle(opcode, number, body, (uid, gid)))
        except OSError as error:
            self._reply(unique, -(error.errno or errno.EIO))
        if opcode == 40:  # POLL: what was polled for happens
            self.notify(1, body[8:16])
        if opcode == 39:
            self._after_ioctl(number, body)

    def _handle(self, opcode: int, number: int, body: bytes, owner: tuple[int, int]) -> bytes:
        handler = self._HANDLERS.get(opcode)
        if handler is None:
            raise OSError(errno.ENOSYS, "")
        return handler(self, self._nodes.get(number) or Node(number, 0), body, owner)

    def _reply(self, unique: int, error: int, body: bytes = b"") -> None:
        self._write(OUT.pack(OUT.size + len(body), error, unique) + body)

    def notify(self, code: int, body: bytes) -> None:
        self._write(OUT.pack(OUT.size + len(body), code, 0) + body)

    def _write(self, message: bytes) -> None:
        os.write(self._descriptor, message)  # the kernel refuses what it does not understand
        self._log("<", message)

    # --- replies ---

    def _attributes(self, node: Node) -> bytes:
        size = len(node.data)
        numbers = (node.mode, node.links, *node.owner, 0, PREFERRED_IO, 0)
        return ATTR.pack(node.number, size, (size + 511) // 512, *node.times, 11, 22, 33, *numbers)

    def _entry(self, node: Node) -> bytes:
        return VALID.pack(node.number, 7, 300, 200, 500_000_000, 250_000_000) + self._attributes(node)

    def _attr_out(self, node: Node) -> bytes:
        return struct.pack("<QII", 200, 250_000_000, 0) + self._attributes(node)

    def _open_out(self) -> bytes:
        self._next_handle += 1
        return struct.pack("<QII", self._next_handle, 0, 0)

    # --- requests ---

    def _init(self, _node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        _, _, readahead, flags, flags2 = struct.unpack_from("<5I", body)
        agreed = (flags | flags2 << 32) & self._flags
        low, high = agreed & 0xFFFFFFFF, agreed >> 32
        return INIT_OUT.pack(7, self._minor, readahead, low, 16, 12, 1 << 16, 1, 16, 0, high, 0, 0, 0)

    def _look(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        child = node.children.get(body.rstrip(b"\0"))
        if child is None:
            raise OSError(errno.ENOENT, "")
        return self._entry(self._nodes[child])

    def _getattr(self, node: Node, _body: bytes, _owner: tuple[int, int]) -> bytes:
        return self._attr_out(node)

    def _statx(self, node: Node, _body: bytes, _owner: tuple[int, int]) -> bytes:
        if not self._modern:
            raise OSError(errno.ENOSYS, "")
        access, modification, change = (
            struct.pack("<qIi", second, part, 0) for second, part in zip(node.times, (11, 22, 33), strict=True)
        )
        size = len(node.data)
        start = struct.pack("<IIQIIIHH", 0x7FF, PREFERRED_IO, 0, node.links, *node.owner, node.mode, 0)
        middle = struct.pack("<QQQQ", node.number, size, (size + 511) // 512, 0)
        times = access + bytes(16) + change + modification  # no birth time
        return struct.pack("<QIIQQ", 200, 250_000_000, 0, 0, 0) + start + middle + times + bytes(16 + 14 * 8)

    def _setattr(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        mode, _, uid, gid = struct.unpack_from("<IIII", body, 68)
        if valid & 8:
            node.data[size:] = bytes(max(0, size - len(node.data)))
        if valid & 1:
            node.mode = mode
        if valid & 2:
            node.owner = (uid, node.owner[1])
        if valid & 4:
            node.owner = (node.owner[0], gid)
        return self._attr_out(node)

    def _make(self, parent: Node, name: bytes, mode: int, owner: tuple[int, int]) -> Node:
        node = Node(max(self._nodes) + 1, mode, owner=owner)
        self._nodes[node.number] = node
        if name:
            parent.children[name] = node.number
        return node

    def _mkdir(self, node: Node, body: bytes, owner: tuple[int, int]) -> bytes:
        mode, _ = struct.unpack_from("<II", body)
        return self._entry(self._make(node, body[8:-1], stat.S_IFDIR | mode, owner))

    def _mknod(self, node: Node, body: bytes, owner: tuple[int, int]) -> bytes:
        return self._entry(self._make(node, body[16:-1], struct.unpack_from("<I", body)[0], owner))

    def _symlink(self, node: Node, body: bytes, owner: tuple[int, int]) -> bytes:
        name, target, _ = body.split(b"\0")
        made = self._make(node, name, stat.S_IFLNK | 0o777, owner)
        made.data[:] = target
        return self._entry(made)

    def _readlink(self, node: Node, _body: bytes, _owner: tuple[int, int]) -> bytes:
        return bytes(node.data)

    def _link(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        linked = self._nodes[struct.unpack_from("<Q", body)[0]]
        linked.links += 1
        node.children[body[8:-1]] = linked.number
        return self._entry(linked)

    def _remove(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        del node.children[body[:-1]]
        return b""

    def _rename(self, node: Node, body: bytes, start: int) -> bytes:
        old, new, _ = body[start:].split(b"\0")
        target = self._nodes[struct.unpack_from("<Q", body)[0]]
        target.children[new] = node.children.pop(old)
        return b""

    def _rename1(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        return self._rename(node, body, 8)

    def _rename2(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        return self._rename(node, body, 16)

    def _open(self, _node: Node, _body: bytes, _owner: tuple[int, int]) -> bytes:
        return self._open_out()

    def _create(self, node: Node, body: bytes, owner: tuple[int, int]) -> bytes:
        _, mode, _, _ = struct.unpack_from("<IIII", body)
        return self._entry(self._make(node, body[16:-1], mode, owner)) + self._open_out()

    def _tmpfile(self, node: Node, body: bytes, owner: tuple[int, int]) -> bytes:
        _, mode, _, _ = struct.unpack_from("<IIII", body)
        return self._entry(self._make(node, b"", mode, owner)) + self._open_out()

    def _read(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return bytes(node.data[offset : offset + size])

    def _write_data(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        _put(node, offset, body[40 : 40 + size])
        return struct.pack("<II", size, 0)

    def _nothing(self, _node: Node, _body: bytes, _owner: tuple[int, int]) -> bytes:
        return b""

    def _statfs(self, _node: Node, _body: bytes, _owner: tuple[int, int]) -> bytes:
        return struct.pack("<5Q4I24x", 1000, 900, 900, 700, 600, 4096, 255, 4096, 0)

    def _dirents(self, node: Node, body: bytes, plus: bool) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        page = b""
        for position, (name, number) in enumerate(list(node.children.items())[offset:], offset + 1):
            child = self._nodes[number]
            entry = struct.pack("<QQII", number, position, len(name), stat.S_IFMT(child.mode) >> 12) + name
            entry += bytes(-len(entry) % 8)
            if plus:
                entry = self._entry(child) + entry
            if len(page) + len(entry) > size:
                break
            page += entry
        return page

    def _readdir(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        return self._dirents(node, body, plus=False)

    def _readdirplus(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        return self._dirents(node, body, plus=True)

    def _setxattr(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        name, _, value = body[16 if self._modern else 8 :].partition(b"\0")
        node.xattrs[name] = value
        return b""

    def _sized(self, value: bytes, size: int) -> bytes:
        if not size:
            return struct.pack("<II", len(value), 0)
        if size < len(value):
            raise OSError(errno.ERANGE, "")
        return value

    def _getxattr(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        value = node.xattrs.get(body[8:-1])
        if value is None:
            raise OSError(errno.ENODATA, "")
        return self._sized(value, struct.unpack_from("<I", body)[0])

    def _listxattr(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        return self._sized(b"".join(name + b"\0" for name in node.xattrs), struct.unpack_from("<I", body)[0])

    def _removexattr(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        del node.xattrs[body[:-1]]
        return b""

    def _getlk(self, _node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        start, end = struct.unpack_from("<QQ", body, 16)
        return struct.pack("<QQII", start, end, 2, 0)  # F_UNLCK

    def _ioctl(self, _node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        out_size = struct.unpack_from("<I", body, 28)[0]
        return struct.pack("<iIII", 0, 0, 0, 0) + b"ioctl..."[:out_size]

    def _poll(self, _node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        return struct.pack("<II", 5, 0)

    def _lseek(self, node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        _, offset, whence = struct.unpack_from("<QQI", body)
        return struct.pack("<Q", offset if whence == os.SEEK_DATA else len(node.data))

    def _copy(self, body: bytes) -> int:
        _, _, target, _, offset, length, _ = struct.unpack_from("<7Q", body)
        _put(self._nodes[target], offset, bytes(length))
        return int(length)

    def _copy_file_range(self, _node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        return struct.pack("<II", self._copy(body), 0)

    def _copy_file_range_64(self, _node: Node, body: bytes, _owner: tuple[int, int]) -> bytes:
        if not self._modern:
            raise OSError(errno.ENOSYS, "")
        return struct.pack("<Q", self._copy(body))

    def _after_ioctl(self, number: int, body: bytes) -> None:
        """The ioctls of the recording ask for notifications: by their last byte."""
        command = struct.unpack_from("<I", body, 12)[0] & 0xFF
        if command == 1:  # pages of the file that are in the page cache come back as NOTIFY_REPLY
            self.notify(5, struct.pack("<QQQII", 77, number, 0, 4, 0))
        elif command == 2:  # names go, their inodes are forgotten together
            for name in (b"m1", b"m2", b"m3"):
                self.notify(3, struct.pack("<QII", 1, len(name), 0) + name + b"\0")
        elif command == 3:
            self.notify(2, struct.pack("<Qqq", number, 0, 0))
            self.notify(4, struct.pack("<QQII", number, 0, 4, 0) + b"stor")

    _HANDLERS: dict[int, Callable[[RawFuse, Node, bytes, tuple[int, int]], bytes]] = {  # noqa: RUF012 - a table
        1: _look, 3: _getattr, 4: _setattr, 5: _readlink, 6: _symlink, 8: _mknod, 9: _mkdir, 10: _remove, 11: _remove,
        12: _rename1, 13: _link, 14: _open, 15: _read, 16: _write_data, 17: _statfs, 18: _nothing, 20: _nothing,
        21: _setxattr, 22: _getxattr, 23: _listxattr, 24: _removexattr, 25: _nothing, 26: _init, 27: _open,
        28: _readdir, 29: _nothing, 30: _nothing, 31: _getlk, 32: _nothing, 34: _nothing, 35: _create, 39: _ioctl,
        40: _poll, 43: _nothing, 44: _readdirplus, 45: _rename2, 46: _lseek, 47: _copy_file_range, 51: _tmpfile,
        52: _statx, 53: _copy_file_range_64,
    }  # fmt: skip


def _put(node: Node, offset: int, data: bytes) -> None:
    node.data.extend(bytes(max(0, offset - len(node.data))))
    node.data[offset : offset + len(data)] = data
