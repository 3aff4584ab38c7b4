"""Manifests: files that name a data set's objects and their labels, read line by line by a parser of the user's.

A parser takes a binary reader and yields (key, label). Whatever goes wrong in it is told with the number of the line it
had come to. Nothing is kept of what was read.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol, cast

from csi.errors import ManifestMalformed, OssFuseError
from csi.torch.catalogue import Entry
from csi.torch.uri import LONGEST_KEY, parse_place, split_uri
from csi.volume.units import ObjectKey

Parser = Callable[[Any], Iterable[tuple[Any, ...]]]
"""Takes an `io.IOBase` of bytes; yields (key, label)."""

_TAKEN: Final = 2


class Readable(Protocol):
    def readinto(self, target: memoryview, /) -> int | None: ...


def imagenet_manifest_parser(reader: Any) -> Iterator[tuple[str, str]]:
    """Lines of a key and, after a TAB, a label; further columns and blank lines are passed over.

    Raises ManifestMalformed for a line that is not UTF-8 or has a label without a key.
    """
    for number, raw in enumerate(reader, 1):
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise ManifestMalformed("the line is not UTF-8", line=number) from None
        if not line.strip():
            continue
        key, _, rest = line.partition("\t")
        if not key.strip():
            raise ManifestMalformed("the line has a label, but no key", line=number)
        yield key.strip(), rest.partition("\t")[0].strip()


def entries(path: str, opened: io.RawIOBase, parser: Parser, base: str) -> Iterator[Entry]:
    """The samples that `parser` finds in the manifest `path`, which `opened` reads; `base` is put before each key.

    Raises ManifestMalformed, with a line number as far as one is known: that of the last line the parser took, or, when
    it took the whole text at once, that of the entry.
    """
    with _Lines(opened) as reader:
        found = _guarded(path, reader, parser)
        for number, item in enumerate(found, 1):
            line = reader.line or number
            if not isinstance(item, tuple | list) or len(item) < _TAKEN:
                raise _malformed(path, line, f"the parser yielded {_shown(item)}, expected (key, label)")
            key, label = item[0], item[1]
            if not isinstance(key, str):
                raise _malformed(path, line, f"the key is {_shown(key)}, expected a str")
            if not isinstance(label, str | int):
                raise _malformed(path, line, f"the label is {_shown(label)}, expected a str or an int")
            if not key:
                raise _malformed(path, line, "the key is empty")
            try:
                authority, name = split_uri(base + key)
                place = parse_place(authority)
            except OssFuseError as error:
                raise _malformed(path, line, str(error)) from None
            if not 0 < len(name.encode("utf-8", "surrogateescape")) <= LONGEST_KEY:
                raise _malformed(path, line, f"{base + key!r:.200} has no key of 1 to {LONGEST_KEY} bytes")
            yield Entry(place, ObjectKey(name), label=label)


def _guarded(path: str, reader: _Lines, parser: Parser) -> Iterator[tuple[Any, ...]]:
    """What the parser yields; what it raises becomes ManifestMalformed, but for failures to read."""
    number = 0
    try:
        for item in parser(reader):
            number += 1
            yield item
    except ManifestMalformed as error:
        raise _malformed(path, error.line or reader.line or number + 1, error.message) from error
    except (OssFuseError, OSError, MemoryError):
        raise
    except Exception as error:  # the parser is the user's: it may raise anything
        reason = f"the parser raised {type(error).__name__}: {error}"
        raise _malformed(path, reader.line or number + 1, reason) from error


class _Lines(io.BufferedReader):
    """A buffered reader that knows how many lines were taken one by one; `line` is 0 when they were not."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw, 1 << 20)
        self.line = 0

    def readline(self, size: int | None = -1) -> bytes:
        self.line += 1
        return super().readline(-1 if size is None else size)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> bytes:
        self.line += 1
        line = super().readline()
        if not line:
            raise StopIteration
        return line


class Streamed(io.RawIOBase):
    """A raw reader over any object with `readinto`, such as a sample."""

    def __init__(self, inner: Readable) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int | None:
        return self._inner.readinto(memoryview(target))


def open_local(path: str) -> io.RawIOBase:
    """A manifest on this machine. Raises ManifestMalformed when it cannot be read."""
    try:
        return cast("io.RawIOBase", open(path, "rb", buffering=0))
    except OSError as error:
        raise ManifestMalformed(
            f"the manifest {path} cannot be read: {error.strerror}",
            path=path,
            hint="manifest_file_path is a path on this machine or an oss:// address",
        ) from error


def _malformed(path: str, line: int, reason: str) -> ManifestMalformed:
    return ManifestMalformed(
        f"{path}, line {line}: {reason}", path=path, line=line, hint="correct the manifest, or the parser"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
