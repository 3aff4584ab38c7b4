"""Objects made by admin call, many at once and with any metadata, without being uploaded.

Each line of the body is a JSON object. `bucket` and `key` are required, everything else has a default; `count` makes
that many objects, `{n}` in the key (any format of an integer, `{n:06d}`) being 0, 1, 2, … `size` without content is
zeros, kept as a sparse file. It must not know signatures.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastcrc.crc64 import xz as crc64

from csi.emulator.control import given
from csi.emulator.store.bodies import Written
from csi.emulator.store.checksums import combine
from csi.emulator.store.index import Bucket, StoredObject
from csi.emulator.store.receive import receive_document
from csi.emulator.store.storage import SMALL_BODY, Storage
from csi.emulator.wire.call import Call, check_object_name
from csi.emulator.wire.description import STORAGE_CLASSES
from csi.emulator.wire.refusals import invalid_argument

_BATCH = 2000
_KNOWN_NAMES = (
    "bucket key count content content_base64 size etag modified type storage_class headers user tags acl target"
)
_KNOWN = frozenset(_KNOWN_NAMES.split())
_TYPES = ("Normal", "Multipart", "Appendable", "Symlink")
_MD5_UP_TO = 64 << 20
_LARGEST = 10_000 * (5 << 30)
"""Bytes of the largest object of OSS: 10,000 parts of 5 GiB."""
_MOST_OBJECTS = 10**9
_LATEST = 253_402_300_799
"""The last second that an HTTP date can name: the end of the year 9999."""
_DETAILS: Mapping[str, Callable[[Mapping[str, Any], str], object]] = {
    "headers": given.texts,
    "user": given.texts,
    "tags": given.tags,
    "acl": given.text,
    "target": given.text,
}


@dataclass(frozen=True, slots=True)
class _Seed:
    bucket: Bucket
    template: StoredObject
    written: Written
    key: str
    count: int


class Seeder:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def seed(self, call: Call) -> object:
        body = await receive_document(call)
        made = 0
        for line in body.splitlines():
            if line.strip():
                made += await self._make(await self._storage.on_thread(self._parse, line))
        return {"objects": made}

    def _parse(self, line: bytes) -> _Seed:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            raise invalid_argument("A line of the seed is not JSON.") from None
        if not isinstance(values, dict):
            raise invalid_argument("A line of the seed is not a JSON object.")
        unknown = sorted(set(values) - _KNOWN)
        if unknown:
            raise invalid_argument(f"Unknown seed setting {unknown[0]!r}; known are {', '.join(sorted(_KNOWN))}.")
        bucket = self._storage.bucket(given.text(values, "bucket"))
        kind = values.get("type", "Normal")
        storage_class = values.get("storage_class", "Standard")
        if kind not in _TYPES or storage_class not in STORAGE_CLASSES:
            raise invalid_argument("Unknown type or storage class.", "type", f"{kind}, {storage_class}")
        if kind == "Symlink" and "target" not in values:
            raise invalid_argument("A Symlink needs a target.", "target", "")
        count = given.whole(values, "count", 1, least=1, most=_MOST_OBJECTS)
        modified = given.whole(values, "modified", int(self._storage.now()), least=0, most=_LATEST)
        details = {name: read(values, name) for name, read in _DETAILS.items() if name in values}
        written = self._body(values, file_needed=kind == "Appendable")
        etag = given.text(values, "etag", written.etag).strip('"')
        template = StoredObject("", written.size, modified, etag, written.crc, "", kind, storage_class, details)
        return _Seed(bucket, template, written, given.text(values, "key"), count)

    def _body(self, values: Mapping[str, Any], *, file_needed: bool) -> Written:
        if "content_base64" in values:
            data = given.base64_bytes(values, "content_base64")
        else:
            data = given.text(values, "content").encode("utf-8", "surrogateescape")
        size = given.whole(values, "size", len(data), least=0, most=_LARGEST)
        if data and size != len(data):
            raise invalid_argument("Give content or size, not both.", "size", str(size))
        if not data and size:
            if size > SMALL_BODY or file_needed:
                return self._zeros(size)
            data = bytes(size)
        if len(data) > SMALL_BODY or file_needed:
            return self._storage.bodies.write(data)
        return Written(len(data), hashlib.md5(data, usedforsecurity=False).digest(), crc64(data), "", data)

    def _zeros(self, size: int) -> Written:
        file, target = self._storage.bodies.create()
        with target:
            target.truncate(size)
        digest = hashlib.md5(usedforsecurity=False)
        if size <= _MD5_UP_TO:
            digest.update(bytes(size))
        else:
            digest.update(uuid.uuid4().bytes)
        return Written(size, digest.digest(), _crc_of_zeros(size), file)

    def _put(self, seed: _Seed, keys: list[str], files: list[str]) -> None:
        index = self._storage.index
        bodies = [f"f{file}" if file else "" for file in files]
        objects = [replace(seed.template, key=key, body=body) for key, body in zip(keys, bodies, strict=True)]
        if index.put_new(seed.bucket, objects, seed.written.data):
            return
        garbage: list[str] = []
        with index.changing():
            for stored in objects:
                garbage += index.put(seed.bucket, stored, data=seed.written.data)
        self._storage.remove_files(garbage)

    def _clone(self, file: str, count: int) -> list[str]:
        return [self._storage.bodies.clone(file) for _ in range(count)]

    async def _make(self, seed: _Seed) -> int:
        made = 0
        first = True
        for batch in _batches(seed):
            files = [""] * len(batch)
            if seed.written.file:
                fresh = len(batch) - 1 if first else len(batch)
                clones = await self._storage.on_thread(self._clone, seed.written.file, fresh)
                files = ([seed.written.file] if first else []) + clones
            self._put(seed, batch, files)
            made += len(batch)
            first = False
            await asyncio.sleep(0)
        return made


def _batches(seed: _Seed) -> Iterator[list[str]]:
    for start in range(0, seed.count, _BATCH):
        numbers = range(start, min(seed.count, start + _BATCH))
        keys = [_numbered(seed.key, number) for number in numbers] if seed.count > 1 else [seed.key]
        for key in keys:
            check_object_name(key)
        yield keys


def _numbered(pattern: str, number: int) -> str:
    try:
        key = pattern.format(n=number)
    except (KeyError, IndexError, ValueError):
        key = pattern
    if key == pattern:
        raise invalid_argument("A count needs {n} in the key, for example {n:06d}.", "key", pattern)
    return key


def _crc_of_zeros(size: int) -> int:
    block = 1 << 20
    crc = crc64(bytes(size % block))
    whole, total, power, span = size // block, 0, crc64(bytes(block)), block
    while whole:  # doubling: the CRC of 2n zeros from that of n
        if whole & 1:
            total = combine(total, power, span)
        power, span, whole = combine(power, power, span), span * 2, whole >> 1
    return combine(total, crc, size % block)
