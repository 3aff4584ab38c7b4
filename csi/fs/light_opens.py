"""Opens that the kernel session answers by itself, noted where a successor of this process finds them.

There are too many of them for records of `csi/fs/journal.py`: the session writes each into a slot of its own, in memory
behind the journal's, before it answers (`csi/fuse/native/noted.pyx`). A slot is one version of one object that is open,
and how often. It counts an open before the kernel hears of it and a release after, so never too few.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from csi.volume.units import KIB, Bytes, ETag, InodeNumber

SLOT: Final = 512
SIZE: Final = Bytes(512 * KIB)
"""Of all slots; only what was used once takes memory."""
_HEAD: Final = struct.Struct("<QQIHH")  # inode, size of the object, opens, lengths of key and ETag, which follow


class LightOpen(NamedTuple):
    """`inode` is open `opens` times by the object `key`."""

    inode: InodeNumber
    opens: int
    key: bytes
    etag: ETag
    size: Bytes


def slots_in(memory: bytes) -> list[LightOpen]:
    """Of every slot in use; a file that was closed and opened again may be in two."""
    found = []
    for start in range(0, len(memory) - SLOT + 1, SLOT):
        inode, size, opens, key_size, etag_size = _HEAD.unpack_from(memory, start)
        if opens:
            text = memory[start + _HEAD.size : start + SLOT]
            etag = ETag(text[key_size : key_size + etag_size].decode("ascii"))
            found.append(LightOpen(InodeNumber(inode), opens, text[:key_size], etag, Bytes(size)))
    return found
