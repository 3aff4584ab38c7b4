"""Copies inside OSS, and sizes announced by fallocate; csi/fs/copying.py, csi/data/copied.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from csi.data.copied import CopiedRun, checksum_of
from csi.errors import BadHandle, InvalidOperation, OperationNotSupported, PreconditionFailed
from csi.oss.checksum import crc64_of
from csi.oss.store import ObjectVersion, PutResult
from csi.volume.units import KIB, Bytes, Crc64, ETag, ObjectKey
from tests.support.engines import content
from tests.support.filesystems import World, world
from tests.support.memory_store import MemoryStore
from tests.support.programs import WRITE, OpenedFile, Program

SIZE = 900 * KIB


class CheckedStore(MemoryStore):
    """Keeps the checksums that completions were to be compared with."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.expected: list[Crc64 | None] = []

    def complete_multipart(self, *arguments: object, crc64: Crc64 | None = None, **options: object) -> PutResult:
        self.expected.append(crc64)
        return super().complete_multipart(*arguments, crc64=crc64, **options)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The product's engine; 200 KiB are enough for a copy inside OSS."""
    monkeypatch.setattr("csi.fs.copying.LEAST", 200 * KIB)
    with world("data") as made:
        made.store = CheckedStore(clock=made.clock)
        made.store.seed("source", content(SIZE))
        yield made


@contextmanager
def copying(program: Program, target: str = "target") -> Iterator[tuple[OpenedFile, OpenedFile]]:
    source, destination = program.open("source", os.O_RDONLY), program.open(target, WRITE)
    try:
        yield source, destination
    finally:
        source.close()
        destination.close()


def copy(program: Program, source: OpenedFile, offset: int, destination: OpenedFile, at: int, size: int) -> int:
    return program.filesystem.copy_range(source.handle, offset, destination.handle, at, size)


def test_a_whole_file_is_copied_without_its_bytes_passing(bucket: World) -> None:
    program = bucket.mount()
    with copying(program) as (source, destination):
        assert copy(program, source, 0, destination, 0, 1 << 40) == SIZE
        assert destination.size() == SIZE
        assert copy(program, source, SIZE, destination, SIZE, 1 << 40) == 0
    assert bucket.store.data("target") == content(SIZE)
    assert bucket.store.requests["GetObject"] == bucket.store.requests["PutObject"] == 0
    assert bucket.store.requests["UploadPart"] == 0
    assert bucket.store.expected == [crc64_of([content(SIZE)])]


def test_what_was_written_before_and_after_a_copy_stays_where_it_is(bucket: World) -> None:
    program = bucket.mount()
    head, tail = b"h" * (200 * KIB), b"tail"
    with copying(program) as (source, destination):
        destination.write(head)
        assert copy(program, source, 0, destination, len(head), SIZE) == SIZE
        destination.position += SIZE
        destination.write(tail)
    whole = head + content(SIZE) + tail
    assert bucket.store.data("target") == whole
    assert bucket.store.expected == [crc64_of([whole])]


def test_the_checksum_of_a_part_of_an_object_is_not_known_and_not_compared(bucket: World) -> None:
    program = bucket.mount()
    with copying(program) as (source, destination):
        assert copy(program, source, 300 * KIB, destination, 0, 300 * KIB) == 300 * KIB
    assert bucket.store.data("target") == content(SIZE)[300 * KIB : 600 * KIB]
    assert bucket.store.expected == [None]


def test_a_rest_that_is_too_small_for_a_call_of_its_own_goes_with_the_last(
    bucket: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csi.fs.copying._MOST", 800 * KIB)
    program = bucket.mount()
    with copying(program) as (source, destination):
        assert copy(program, source, 0, destination, 0, 1 << 40) == SIZE


@pytest.mark.parametrize(
    ("offset", "at", "size"),
    [(0, 0, 100 * KIB), (800 * KIB, 0, 1 << 30), (0, 4096, 1 << 30)],
    ids=["small", "small rest", "not at the end"],
)
def test_other_ranges_are_left_to_the_program(bucket: World, offset: int, at: int, size: int) -> None:
    program = bucket.mount()
    with copying(program) as (source, destination), pytest.raises(OperationNotSupported):
        copy(program, source, offset, destination, at, size)
    assert bucket.store.data("target") == b""


def test_a_file_being_written_is_no_source(bucket: World) -> None:
    program = bucket.mount()
    with copying(program) as (source, destination):
        writer = program.open("source", os.O_WRONLY | os.O_TRUNC)
        with pytest.raises(OperationNotSupported):
            copy(program, source, 0, destination, 0, SIZE)
        writer.close()


def test_a_few_bytes_before_a_copy_are_no_part(bucket: World) -> None:
    program = bucket.mount()
    with copying(program) as (source, destination):
        destination.write(b"few")
        with pytest.raises(OperationNotSupported):
            copy(program, source, 0, destination, 3, SIZE)
        destination.write(content(SIZE))
    assert bucket.store.data("target") == b"few" + content(SIZE)


def test_a_source_that_another_client_replaced_fails_the_close_and_leaves_no_object(bucket: World) -> None:
    program = bucket.mount()
    source, destination = program.open("source", os.O_RDONLY), program.open("target", WRITE)
    bucket.store.seed("source", b"other" * (200 * KIB))
    copy(program, source, 0, destination, 0, SIZE)
    with pytest.raises(PreconditionFailed):
        destination.close()
    source.close()
    assert "target" not in bucket.store.objects


def test_handles_that_cannot_do_it_are_told(bucket: World) -> None:
    program = bucket.mount()
    with copying(program) as (source, destination):
        with pytest.raises(BadHandle):
            copy(program, destination, 0, source, 0, SIZE)
        with pytest.raises(BadHandle):
            program.filesystem.allocate(source.handle, 0, 10, 0)


def test_a_size_allocated_is_shown_and_owed(bucket: World) -> None:
    program = bucket.mount()
    file = program.open("target", WRITE)
    program.filesystem.allocate(file.handle, 0, 10, 0)
    assert file.size() == 10
    file.write(b"12345")
    with pytest.raises(InvalidOperation):
        file.fsync()
    file.write(b"67890")
    file.close()
    assert bucket.store.data("target") == b"1234567890"


@pytest.mark.parametrize("mode", [1, 3, 16], ids=["keep size", "punch hole", "zero range"])
def test_other_ways_of_allocating_are_not_supported(bucket: World, mode: int) -> None:
    program = bucket.mount()
    file = program.open("target", WRITE)
    with pytest.raises(OperationNotSupported):
        program.filesystem.allocate(file.handle, 0, 10, mode)
    file.close()


def test_a_run_of_parts_goes_on_only_where_the_last_one_ended() -> None:
    version = ObjectVersion(ObjectKey("k"), ETag("E"), Bytes(10))
    run = CopiedRun(version, 1, 2, 0, 6)
    assert run.goes_on(version, 3, 6)
    assert not run.goes_on(version, 4, 6)
    assert not run.goes_on(version, 3, 7)
    assert checksum_of([], [run], lambda _: Crc64(1)) is None
