"""What a transform is given: one object as a readable, seekable file that knows its key, its size and its label.

Usually its bytes are there already; otherwise the first read fetches them. A failure to fetch is raised where the bytes
are wanted, so that a transform can deal with it. Pickles with its bytes, or, when it is large, as a way to them.
"""

from __future__ import annotations

import io
from typing import Any, Final

from csi.data.streams import Reader
from csi.errors import OssFuseError, PreconditionFailed
from csi.torch.catalogue import UNKNOWN, Entry
from csi.torch.connection import Connection
from csi.torch.fetching import Fetcher, fetcher_of, replaced
from csi.torch.slots import Fetched, version_of
from csi.volume.units import MIB

_WHOLE: Final = 1 * MIB
"""Up to this size all is fetched, whatever is read."""
_PIECE: Final = 4 * MIB
_LINE: Final = 8192


class OssObject(io.RawIOBase):
    """`key` is `/BUCKET/KEY`, for a member of an archive `/BUCKET/NAME`. One thread at a time.

    `_fetched`: what is known from OSS, None when that is nothing yet; `_data`: all bytes, None when they are not there;
    `_reader`: the way to them by ranges, once there is one.
    """

    def __init__(
        self,
        entry: Entry,
        source: Fetcher | Connection,
        fetched: Fetched | None = None,
        error: OssFuseError | None = None,
    ) -> None:
        self._entry = entry
        self._source = source
        self._error = error
        self._fetched = fetched
        self._data = fetched.data if fetched is not None else None
        self._reader: Reader | None = None
        self._position = 0

    # --- what it is ---

    @property
    def key(self) -> str:
        name = self.name
        # archives of the original have such keys for names
        return name if name.startswith("/") and self._entry.offset >= 0 else f"/{self._entry.place.bucket}/{name}"

    @property
    def label(self) -> str | int:
        return self._entry.label

    @property
    def name(self) -> str:
        """The key without the bucket, or the name of a member of an archive, which is fetched to know it."""
        return self._entry.key if self._entry.offset < 0 else self._known().name

    @property
    def size(self) -> int:
        """Bytes; when nobody listed them they are known once the object was fetched, which this does."""
        if self._fetched is None and self._entry.size != UNKNOWN and self._entry.offset < 0:
            return self._entry.size
        return self._known().size

    @property
    def error(self) -> OssFuseError | None:
        """Why there are no bytes, as far as that is known already."""
        return self._error

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<OssObject /{self._entry.place.bucket}/{self._entry.key} label={self.label!r}>"

    # --- a file ---

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, fewer at the end; all that are left when it is negative or None."""
        self._check_open()
        data = self._data
        if data is None:
            return self._read_remote(-1 if size is None else size)
        start = self._position
        if size is None or size < 0:
            self._position = max(start, len(data))
            return bytes(data) if start == 0 else bytes(memoryview(data)[start:])
        found = bytes(memoryview(data)[start : start + size])
        self._position = start + len(found)
        return found

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, target: Any, /) -> int:
        """Fill `target` as far as there are bytes; returns how many."""
        self._check_open()
        view = memoryview(target).cast("B")
        if self._data is None:
            self._approach(len(view))
        if self._data is not None:
            found = memoryview(self._data)[self._position : self._position + len(view)]
            count = len(found)
            view[:count] = found
            self._position += count
            return count
        count = max(0, min(len(view), self.size - self._position))
        for begin in range(0, count, _PIECE):
            end = min(begin + _PIECE, count)
            view[begin:end] = self._range(self._position + begin, end - begin)
        self._position += count
        return count

    def readline(self, size: int | None = -1, /) -> bytes:
        limit = -1 if size is None else size
        if self._data is None:
            self._check_open()
            self._approach(_LINE)
        if self._data is not None:
            self._check_open()
            end = self._data.find(b"\n", self._position) + 1 or len(self._data)
            wanted = end - self._position
            return self.read(max(0, wanted if limit < 0 else min(wanted, limit)))
        return self._readline_remote(limit)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._check_open()
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"whence {whence!r} is not one of 0, 1 and 2")
        base = 0 if whence == io.SEEK_SET else self._position if whence == io.SEEK_CUR else self.size
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the start of {self!r}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        self._check_open()
        return self._position

    def close(self) -> None:
        """Let go of the bytes. Idempotent."""
        if not self.closed:
            reader, self._reader = self._reader, None
            self._data = None
            if reader is not None:
                reader.close()
        super().close()

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        if self._fetched is None and error is None and not self.closed:
            try:
                self._approach(0)
            except OssFuseError as failure:  # raised where it is read: here nobody could catch it
                error = failure
        source = self._source.connection if isinstance(self._source, Fetcher) else self._source
        return _restored, (self._entry, source, self._fetched, error, self._position, self.closed)

    # --- private ---

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self!r} is closed")

    def _known(self) -> Fetched:
        return self._fetched if self._fetched is not None else self._load()

    def _load(self) -> Fetched:
        """Fetch it, unless it is too large for that."""
        if self._error is not None:
            raise self._error
        fetched = self._fetched = self._fetcher().fetch(self._entry)
        self._data = fetched.data
        return fetched

    def _fetcher(self) -> Fetcher:
        if isinstance(self._source, Connection):
            self._source = fetcher_of(self._source)
        return self._source

    def _approach(self, wanted: int) -> None:
        """Before a read of up to `wanted` bytes: fetch all if that is little, or is what was asked for."""
        if self._error is not None:
            raise self._error
        if self._fetched is None and self._reader is None:
            is_certain = self._entry.size != UNKNOWN and self._entry.offset < 0
            all_at_once = self._position == 0 and wanted >= self._entry.size
            if not is_certain or self._entry.size <= (self._fetcher().unit if all_at_once else _WHOLE):
                self._load()

    def _read_remote(self, size: int) -> bytes:
        whole = size < 0
        self._approach(size if not whole else 1 << 62)
        if self._data is not None:
            return self.read(size)
        left = max(0, self.size - self._position)
        size = left if whole else min(size, left)
        gathered = io.BytesIO()  # grows in place, and gives away what it gathered without a copy
        while gathered.tell() < size:
            gathered.write(self._range(self._position + gathered.tell(), min(_PIECE, size - gathered.tell())))
        self._position += size
        return gathered.getvalue()

    def _readline_remote(self, limit: int) -> bytes:
        line = bytearray()
        while limit < 0 or len(line) < limit:
            piece = self.read(_LINE if limit < 0 else min(_LINE, limit - len(line)))
            end = piece.find(b"\n") + 1
            line += piece[:end] if end else piece
            if end:
                self._position -= len(piece) - end
            if end or not piece:
                break
        return bytes(line)

    def _range(self, offset: int, size: int) -> bytes | bytearray | memoryview:
        reader = self._reader
        if reader is None:
            version = self._fetched.version if self._fetched is not None else version_of(self._entry)
            reader = self._reader = self._fetcher().open(self._entry.place, version)
        try:
            return reader.read((self._fetched.start if self._fetched is not None else 0) + offset, size)
        except PreconditionFailed as error:
            raise replaced(error, self._entry) from None


def _restored(
    entry: Entry, source: Connection, fetched: Fetched | None, error: OssFuseError | None, position: int, closed: bool
) -> OssObject:
    sample = OssObject(entry, source, fetched, error)
    if closed:
        sample.close()
    else:
        sample.seek(position)
    return sample
