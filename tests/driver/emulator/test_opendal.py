"""Every operation of opendal's OSS service (Rust, signature V1) in path style."""

from __future__ import annotations

import opendal
import pytest

from tests.support.emulator import RunningEmulator

ODD_KEY = "a b/c+d&ü%.txt"


def make_operator(emulator: RunningEmulator, *, secret: str = "") -> opendal.Operator:
    return opendal.Operator(
        "oss",
        bucket=emulator.bucket,
        endpoint=emulator.endpoint,
        addressing_style="path",
        access_key_id=emulator.access_key_id,
        access_key_secret=secret or emulator.access_key_secret,
        root="/",
    )


@pytest.fixture
def operator(emulator: RunningEmulator) -> opendal.Operator:
    return make_operator(emulator)


def test_write_read_stat_and_delete(operator: opendal.Operator) -> None:
    operator.write(ODD_KEY, b"hello")

    assert bytes(operator.read(ODD_KEY)) == b"hello"
    assert operator.stat(ODD_KEY).content_length == 5
    operator.delete(ODD_KEY)
    assert not operator.exists(ODD_KEY)


def test_list_and_scan(operator: opendal.Operator) -> None:
    for key in ("a", "dir/1", "dir/sub/2", ODD_KEY):
        operator.write(key, b"x")
    operator.create_dir("empty/")

    assert sorted(found.path for found in operator.list("")) == ["a", "a b/", "dir/", "empty/"]
    assert sorted(found.path for found in operator.scan("dir/")) == ["dir/1", "dir/sub/2"]


def test_append_and_seeking_reads(operator: opendal.Operator) -> None:
    operator.write("log", b"abc", append=True)
    operator.write("log", b"def", append=True)

    with operator.open("log", "rb") as reader:
        reader.seek(2)
        assert bytes(reader.read(3)) == b"cde"


def test_a_streamed_write_becomes_a_multipart_object(operator: opendal.Operator) -> None:
    with operator.open("k", "wb") as writer:
        for number in range(5):
            writer.write(bytes([number]) * 1_000_000)

    assert bytes(operator.read("k")) == b"".join(bytes([number]) * 1_000_000 for number in range(5))
    assert "-" in str(operator.stat("k").etag)


def test_copy_and_recursive_removal(operator: opendal.Operator) -> None:
    operator.write("dir/1", b"x")
    operator.copy("dir/1", "dir/2")
    assert bytes(operator.read("dir/2")) == b"x"

    operator.remove_all("dir/")

    assert not list(operator.scan(""))


def test_a_missing_object_is_not_found(operator: opendal.Operator) -> None:
    with pytest.raises(opendal.exceptions.NotFound):
        operator.read("missing")


def test_a_wrong_secret_is_refused(emulator: RunningEmulator) -> None:
    operator = make_operator(emulator, secret="wrong")

    with pytest.raises(opendal.exceptions.PermissionDenied, match="SignatureDoesNotMatch"):
        operator.write("k", b"x")
