"""Manifests and their parsers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csi.errors import EndpointUnreachable, ManifestMalformed
from csi.torch.catalogue import Entry
from csi.torch.manifests import Parser, Streamed, entries, imagenet_manifest_parser, open_local
from csi.torch.uri import Place

BASE = "oss://bucket/images/"
HERE = Place("bucket")


def found(text: bytes, parser: Parser = imagenet_manifest_parser, base: str = BASE) -> list[Entry]:
    return list(entries("manifest", Streamed(io.BytesIO(text)), parser, base))


def test_lines_are_keys_and_labels() -> None:
    assert found(b"a.jpg\tcat\r\n\n  \nb.jpg\nc.jpg\tdog\tignored\n") == [
        Entry(HERE, "images/a.jpg", label="cat"),  # type: ignore[arg-type]
        Entry(HERE, "images/b.jpg"),  # type: ignore[arg-type]
        Entry(HERE, "images/c.jpg", label="dog"),  # type: ignore[arg-type]
    ]


def test_a_manifest_may_name_many_buckets() -> None:
    text = b"oss://one/a\noss://two.oss-cn-beijing.aliyuncs.com/b\n/three/c\n"
    assert [entry.place for entry in found(text, base="")] == [
        Place("one"),
        Place("two", "oss-cn-beijing.aliyuncs.com"),
        Place("three"),
    ]


def by_line(reader: Any) -> Iterator[tuple[Any, ...]]:
    for line in reader:
        yield tuple(json.loads(line))


def at_once(reader: Any) -> Iterator[tuple[Any, ...]]:
    for line in reader.read().decode().strip().split("\n"):
        yield tuple(json.loads(line))


@pytest.mark.parametrize("parser", [by_line, at_once])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('["b"', "the parser raised JSONDecodeError"),
        ('["b"]', "expected (key, label)"),
        ('["", "label"]', "the key is empty"),
        ('[7, "label"]', "the key is 7, expected a str"),
        ('["b", [1]]', "the label is [1], expected a str or an int"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(parser: Parser, line: str, reason: str) -> None:
    text = f'["a", "label"]\n["c", 7]\n{line}\n["d", ""]\n'.encode()
    with pytest.raises(ManifestMalformed) as told:
        found(text, parser)
    assert (told.value.path, told.value.line) == ("manifest", 3)
    assert reason in told.value.message


def test_an_address_that_is_none_is_told_with_its_line() -> None:
    with pytest.raises(ManifestMalformed, match="line 2: uri: 'https://b/c' is not accepted"):
        found(b"oss://bucket/a\nhttps://b/c\n", base="")


def test_a_line_that_is_not_text_is_told() -> None:
    with pytest.raises(ManifestMalformed, match="manifest, line 2: the line is not UTF-8"):
        found(b"a\tb\n\xff\xfe\n")


def test_a_failure_to_read_stays_what_it_is() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, target: Any) -> int:
            raise EndpointUnreachable("no")

    with pytest.raises(EndpointUnreachable):
        list(entries("manifest", Broken(), imagenet_manifest_parser, BASE))


def test_a_manifest_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestMalformed, match="cannot be read: No such file"):
        open_local(str(tmp_path / "none"))


def test_a_long_manifest_is_read_in_pieces() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def readable(self) -> bool:
            return True

        def readinto(self, target: Any) -> int:
            count = len(target) // 8 * 8
            memoryview(target)[:count] = b"key\tlab\n" * (count // 8)
            self.taken += count
            return count

    endless = Endless()
    stream = entries("manifest", endless, imagenet_manifest_parser, BASE)
    for _ in range(1000):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert endless.taken <= 4 << 20
