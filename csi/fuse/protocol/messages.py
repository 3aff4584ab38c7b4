"""Requests of the kernel as values: `decode` turns the bytes of one message into a header and a typed body.

Everything that is read is bounds-checked; bytes that are no request of the protocol raise Malformed and nothing else.
Names and the payload of a write are slices: names are copied (they are kept), a payload is a view of the buffer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from csi.fuse.protocol.bodies import (
    Access,
    Allocate,
    BlockMap,
    Body,
    CopyRange,
    Create,
    Flush,
    Forget,
    GetAttr,
    GetXattr,
    Header,
    Init,
    Interrupt,
    Ioctl,
    Link,
    ListXattr,
    Lock,
    MakeDirectory,
    MakeNode,
    Name,
    Nothing,
    Open,
    Poll,
    Read,
    Release,
    Rename,
    Request,
    Seek,
    SetAttributes,
    SetXattr,
    Statx,
    Symlink,
    Sync,
    Write,
)
from csi.fuse.protocol.constants import Opcode


class Malformed(ValueError):
    """The bytes are not a request of the protocol; `header` of what could be read of it, None without one."""

    def __init__(self, message: str, header: Header | None = None) -> None:
        super().__init__(message)
        self.header = header


HEADER = struct.Struct("<IIQQIIIHxx")
assert HEADER.size == 40  # noqa: S101 - a layout that is wrong must not be used at all


def decode(message: memoryview, *, setxattr_ext: bool = False) -> Request:
    """The request in `message`, which is exactly one read of the device. An opcode nobody knows has an empty body.

    `setxattr_ext`: that flag of INIT was negotiated. Raises Malformed.
    """
    header = decode_header(message)
    end = header.length - 8 * header.extensions
    if end < HEADER.size:
        raise Malformed(f"extensions of {8 * header.extensions} bytes in a message of {header.length}", header)
    body = message[HEADER.size : end]
    decoder = _DECODERS.get(header.opcode)
    if header.opcode == Opcode.SETXATTR and setxattr_ext:
        decoder = _extended_set_xattr
    if decoder is None:
        return Request(header, Nothing())
    try:
        return Request(header, decoder(header, body))
    except (struct.error, ValueError) as error:
        raise Malformed(f"opcode {header.opcode} with {len(body)} bytes: {error}", header) from None


def decode_header(message: memoryview) -> Header:
    """Raises Malformed when the message is shorter or longer than it says it is."""
    if len(message) < HEADER.size:
        raise Malformed(f"a message of {len(message)} bytes has no header")
    header = Header(*HEADER.unpack_from(message))
    if header.length != len(message):
        raise Malformed(f"a message of {len(message)} bytes says it has {header.length}", header)
    return header


# --- one decoder a kind of body ---

_FORGET_ONE = struct.Struct("<QQ")
_SETATTR = struct.Struct("<IxxxxQQQQQQIIIIxxxxIIxxxx")
_COPY = struct.Struct("<7Q")
_LOCK = struct.Struct("<QQQQIIIxxxx")
_READ = struct.Struct("<QQIIQIxxxx")
assert (_SETATTR.size, _COPY.size, _LOCK.size, _READ.size) == (88, 56, 48, 40)  # noqa: S101

_U32 = struct.Struct("<I")
_U32_PAIR = struct.Struct("<II")
_U64 = struct.Struct("<Q")


def _nothing(_header: Header, _body: memoryview) -> Nothing:
    return Nothing()


def _names(body: memoryview, count: int) -> list[bytes]:
    """`count` strings that end with a NUL each; nothing may follow the last."""
    names = bytes(body).split(b"\0")
    if len(names) != count + 1 or names[-1]:
        raise ValueError(f"{count} names expected")
    return names[:count]


def _name(_header: Header, body: memoryview) -> Name:
    return Name(_names(body, 1)[0])


def _forget(header: Header, body: memoryview) -> Forget:
    return Forget(((header.node, _U64.unpack_from(body)[0]),))


def _batch_forget(_header: Header, body: memoryview) -> Forget:
    (count,) = _U32.unpack_from(body)
    if len(body) < 8 + count * _FORGET_ONE.size:
        raise ValueError(f"{count} nodes")
    return Forget(tuple(_FORGET_ONE.iter_unpack(body[8 : 8 + count * _FORGET_ONE.size])))


def _get_attr(_header: Header, body: memoryview) -> GetAttr:
    return GetAttr(*struct.unpack_from("<IxxxxQ", body))


def _set_attr(_header: Header, body: memoryview) -> SetAttributes:
    valid, handle, size, owner, atime, mtime, ctime, atimensec, mtimensec, ctimensec, mode, uid, gid = (
        _SETATTR.unpack_from(body)
    )
    atime_ns, mtime_ns, ctime_ns = (
        _signed(seconds) * 1_000_000_000 + nanoseconds
        for seconds, nanoseconds in ((atime, atimensec), (mtime, mtimensec), (ctime, ctimensec))
    )
    return SetAttributes(valid, handle, size, owner, atime_ns, mtime_ns, ctime_ns, mode, uid, gid)


def _signed(number: int) -> int:
    """Times before 1970 travel as the two's complement of 64 bits."""
    return number - (1 << 64) if number >> 63 else number


def _symlink(_header: Header, body: memoryview) -> Symlink:
    return Symlink(*_names(body, 2))


def _make_node(_header: Header, body: memoryview) -> MakeNode:
    mode, device, umask = struct.unpack_from("<IIIxxxx", body)
    return MakeNode(_names(body[16:], 1)[0], mode, device, umask)


def _make_directory(_header: Header, body: memoryview) -> MakeDirectory:
    mode, umask = _U32_PAIR.unpack_from(body)
    return MakeDirectory(_names(body[8:], 1)[0], mode, umask)


def _rename(_header: Header, body: memoryview) -> Rename:
    (parent,) = _U64.unpack_from(body)
    name, new_name = _names(body[8:], 2)
    return Rename(name, parent, new_name, 0)


def _rename2(_header: Header, body: memoryview) -> Rename:
    parent, flags = struct.unpack_from("<QIxxxx", body)
    name, new_name = _names(body[16:], 2)
    return Rename(name, parent, new_name, flags)


def _link(_header: Header, body: memoryview) -> Link:
    return Link(_U64.unpack_from(body)[0], _names(body[8:], 1)[0])


def _open(_header: Header, body: memoryview) -> Open:
    return Open(*_U32_PAIR.unpack_from(body))


def _create(_header: Header, body: memoryview) -> Create:
    flags, mode, umask, open_flags = struct.unpack_from("<IIII", body)
    return Create(_names(body[16:], 1)[0], flags, mode, umask, open_flags)


def _read(_header: Header, body: memoryview) -> Read:
    return Read(*_READ.unpack_from(body))


def _write(_header: Header, body: memoryview) -> Write:
    handle, offset, size, write_flags, owner, flags = _READ.unpack_from(body)
    data = body[_READ.size : _READ.size + size]
    if len(data) != size:
        raise ValueError(f"a write of {size} bytes has {len(data)}")
    return Write(handle, offset, data, write_flags, owner, flags)


def _release(_header: Header, body: memoryview) -> Release:
    return Release(*struct.unpack_from("<QIIQ", body))


def _sync(_header: Header, body: memoryview) -> Sync:
    return Sync(*struct.unpack_from("<QIxxxx", body))


def _flush(_header: Header, body: memoryview) -> Flush:
    return Flush(*struct.unpack_from("<QxxxxxxxxQ", body))


def _set_xattr(_header: Header, body: memoryview) -> SetXattr:
    size, flags = _U32_PAIR.unpack_from(body)
    return _named_value(body[8:], size, flags)


def _extended_set_xattr(_header: Header, body: memoryview) -> SetXattr:
    size, flags, _ = struct.unpack_from("<IIIxxxx", body)
    return _named_value(body[16:], size, flags)


def _named_value(rest: memoryview, size: int, flags: int) -> SetXattr:
    name, separator, value = bytes(rest).partition(b"\0")
    if not separator or len(value) != size:
        raise ValueError(f"a name and {size} bytes of value expected")
    return SetXattr(name, value, flags)


def _get_xattr(_header: Header, body: memoryview) -> GetXattr:
    size, _ = _U32_PAIR.unpack_from(body)
    return GetXattr(_names(body[8:], 1)[0], size)


def _list_xattr(_header: Header, body: memoryview) -> ListXattr:
    return ListXattr(_U32_PAIR.unpack_from(body)[0])


def _init(_header: Header, body: memoryview) -> Init:
    major, minor, max_readahead, flags = struct.unpack_from("<IIII", body)
    if len(body) >= 20:  # since 7.36
        flags |= _U32.unpack_from(body, 16)[0] << 32
    return Init(major, minor, max_readahead, flags)


def _lock(_header: Header, body: memoryview) -> Lock:
    return Lock(*_LOCK.unpack_from(body))


def _access(_header: Header, body: memoryview) -> Access:
    return Access(_U32_PAIR.unpack_from(body)[0])


def _interrupt(_header: Header, body: memoryview) -> Interrupt:
    return Interrupt(*_U64.unpack_from(body))


def _block_map(_header: Header, body: memoryview) -> BlockMap:
    return BlockMap(*struct.unpack_from("<QIxxxx", body))


def _ioctl(_header: Header, body: memoryview) -> Ioctl:
    handle, flags, command, argument, in_size, out_size = struct.unpack_from("<QIIQII", body)
    data = bytes(body[32 : 32 + in_size])
    if len(data) != in_size:
        raise ValueError(f"an ioctl of {in_size} bytes has {len(data)}")
    return Ioctl(handle, flags, command, argument, data, out_size)


def _poll(_header: Header, body: memoryview) -> Poll:
    return Poll(*struct.unpack_from("<QQII", body))


def _allocate(_header: Header, body: memoryview) -> Allocate:
    return Allocate(*struct.unpack_from("<QQQIxxxx", body))


def _seek(_header: Header, body: memoryview) -> Seek:
    return Seek(*struct.unpack_from("<QQIxxxx", body))


def _copy_range(_header: Header, body: memoryview) -> CopyRange:
    return CopyRange(*_COPY.unpack_from(body))


def _statx(_header: Header, body: memoryview) -> Statx:
    return Statx(*struct.unpack_from("<IxxxxQII", body))


_DECODERS: Mapping[int, Callable[[Header, memoryview], Body]] = MappingProxyType(
    {
        Opcode.LOOKUP: _name,
        Opcode.FORGET: _forget,
        Opcode.GETATTR: _get_attr,
        Opcode.SETATTR: _set_attr,
        Opcode.READLINK: _nothing,
        Opcode.SYMLINK: _symlink,
        Opcode.MKNOD: _make_node,
        Opcode.MKDIR: _make_directory,
        Opcode.UNLINK: _name,
        Opcode.RMDIR: _name,
        Opcode.RENAME: _rename,
        Opcode.LINK: _link,
        Opcode.OPEN: _open,
        Opcode.READ: _read,
        Opcode.WRITE: _write,
        Opcode.STATFS: _nothing,
        Opcode.RELEASE: _release,
        Opcode.FSYNC: _sync,
        Opcode.SETXATTR: _set_xattr,
        Opcode.GETXATTR: _get_xattr,
        Opcode.LISTXATTR: _list_xattr,
        Opcode.REMOVEXATTR: _name,
        Opcode.FLUSH: _flush,
        Opcode.INIT: _init,
        Opcode.OPENDIR: _open,
        Opcode.READDIR: _read,
        Opcode.RELEASEDIR: _release,
        Opcode.FSYNCDIR: _sync,
        Opcode.GETLK: _lock,
        Opcode.SETLK: _lock,
        Opcode.SETLKW: _lock,
        Opcode.ACCESS: _access,
        Opcode.CREATE: _create,
        Opcode.INTERRUPT: _interrupt,
        Opcode.BMAP: _block_map,
        Opcode.DESTROY: _nothing,
        Opcode.IOCTL: _ioctl,
        Opcode.POLL: _poll,
        Opcode.BATCH_FORGET: _batch_forget,
        Opcode.FALLOCATE: _allocate,
        Opcode.READDIRPLUS: _read,
        Opcode.RENAME2: _rename2,
        Opcode.LSEEK: _seek,
        Opcode.COPY_FILE_RANGE: _copy_range,
        Opcode.SYNCFS: _nothing,
        Opcode.TMPFILE: _create,
        Opcode.STATX: _statx,
        Opcode.COPY_FILE_RANGE_64: _copy_range,
    }
)
