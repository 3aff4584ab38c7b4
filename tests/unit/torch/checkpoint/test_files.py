"""The file objects: what `io` promises, what they refuse, and how they end when nobody ends them."""

from __future__ import annotations

import array
import gc
import io
import os
import pickle
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from csi.errors import BadHandle, InvalidOperation, ObjectNotFound, ServerFailure
from csi.torch.checkpoint.engine import Engine
from csi.torch.checkpoint.files import CheckpointReader, CheckpointWriter
from csi.torch.configuration import CheckpointOptions
from csi.torch.uri import ObjectUri, parse_object
from csi.volume.units import KIB, MIB, Bytes
from tests.support.engines import until
from tests.support.memory_store import MemoryStore

URI = parse_object("oss://bucket/model.pt")
KEY = "model.pt"
OPTIONS = CheckpointOptions(part_size=Bytes(256 * KIB), upload_buffer=Bytes(1 * MIB), read_buffer=Bytes(8 * MIB))


class Bucket:
    def __init__(self) -> None:
        self.now = time.time()
        self.store = MemoryStore(clock=lambda: self.now)
        self.engine: Engine | None = Engine(lambda place: self.store, OPTIONS, clock=lambda: self.now)

    def writer(self, uri: ObjectUri = URI) -> CheckpointWriter:
        assert self.engine is not None
        return CheckpointWriter(uri, self.engine)

    def reader(self, uri: ObjectUri = URI) -> CheckpointReader:
        engine = self.engine
        assert engine is not None
        return CheckpointReader(uri, lambda: engine)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    yield made
    made.engine = None


# --- reading ---


def test_the_size_is_known_before_the_first_read(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"0123456789")
    reader = bucket.reader()
    assert reader.size == 10
    assert dict(bucket.store.requests) == {"HeadObject": 1}


def test_a_reader_is_a_file(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"one\ntwo\nthree")
    with bucket.reader() as reader:
        assert (reader.readable(), reader.seekable(), reader.writable()) == (True, True, False)
        assert reader.read(3) == b"one"
        assert reader.seek(-5, os.SEEK_END) == 8
        assert reader.read() == b"three"
        assert reader.read() == b""
        assert reader.seek(0) == 0
        assert list(reader) == [b"one\n", b"two\n", b"three"]
        reader.seek(4)
        room = bytearray(100)
        assert reader.readinto(room) == 9
        assert bytes(room[:9]) == b"two\nthree"
        assert reader.seek(1000) == 1000
        assert reader.read(5) == b""
        assert io.BufferedReader(reader).seek(4) == 4


def test_lines_do_not_take_a_request_each(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"line\n" * 1000)
    with bucket.reader() as reader:
        assert len(list(reader)) == 1000
    assert bucket.store.requests["GetObject"] == 1


def test_a_reader_that_is_read_to_its_end_gives_all_of_it(bucket: Bucket) -> None:
    data = bytes(range(256)) * 40_000
    bucket.store.seed(KEY, data)
    with bucket.reader() as reader:
        assert reader.read() == data


def test_pickles_are_loaded_from_a_reader(bucket: Bucket) -> None:
    with bucket.writer() as writer:
        pickle.dump({"step": 3, "data": b"x" * 1_000_000}, writer)
    with bucket.reader() as reader:
        assert pickle.load(reader)["step"] == 3


def test_seeking_before_the_beginning_is_refused(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"0123456789")
    with bucket.reader() as reader, pytest.raises(InvalidOperation, match="cannot seek to -11"):
        reader.seek(-11, os.SEEK_END)


def test_a_missing_object_is_told_when_it_is_opened(bucket: Bucket) -> None:
    with pytest.raises(ObjectNotFound):
        bucket.reader()


def test_reading_after_close_is_refused(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"0123456789")
    reader = bucket.reader()
    reader.close()
    reader.close()
    for use in (lambda: reader.read(1), lambda: reader.seek(0), reader.tell, reader.peek):
        with pytest.raises(BadHandle, match=r"oss://bucket/model.pt: I/O operation on closed file"):
            use()


def test_our_error_is_raised_in_place_of_one_that_hides_it(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"0123456789")

    def fail(operation: str, key: str) -> None:
        if operation == "GetObject":
            raise ServerFailure("the server is busy", status=503)

    bucket.store.before = fail

    def load_like_torch(file: CheckpointReader) -> None:
        try:
            file.readinto(bytearray(10))
        except ServerFailure:
            raise AttributeError("torch says something else") from None

    with pytest.raises(ServerFailure, match="busy"), bucket.reader() as reader:
        load_like_torch(reader)


# --- writing ---


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
        (b"", b""),
    ],
    ids=["bytes", "bytearray", "memoryview", "strided", "array", "empty"],
)
def test_everything_that_is_made_of_bytes_can_be_written(bucket: Bucket, data: bytes, expected: bytes) -> None:
    with bucket.writer() as writer:
        assert writer.write(data) == len(expected)
    assert bucket.store.data(KEY) == expected


def test_text_cannot_be_written(bucket: Bucket) -> None:
    with pytest.raises(TypeError), bucket.writer() as writer:
        writer.write("text")  # type: ignore[arg-type]
    assert KEY not in bucket.store.objects


def test_seeking_is_refused_as_io_does_and_nothing_appears(bucket: Bucket) -> None:
    with pytest.raises(InvalidOperation, match="cannot seek to 0") as told, bucket.writer() as writer:
        writer.write(b"abc")
        writer.seek(0)
    assert isinstance(told.value, io.UnsupportedOperation)
    assert KEY not in bucket.store.objects


def test_what_writes_to_a_pipe_writes_to_a_writer(bucket: Bucket) -> None:
    with bucket.writer() as writer, zipfile.ZipFile(writer, "w") as archive:
        archive.writestr("a", "hello" * 1000)
        archive.writestr("b", "x")
    with bucket.reader() as reader, zipfile.ZipFile(reader) as archive:
        assert archive.testzip() is None
        assert archive.read("a") == b"hello" * 1000


def test_what_a_file_does_not_have_is_refused_as_io_does(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"old")
    writer, reader = bucket.writer(), bucket.reader()
    uses: list[Callable[[], object]] = [
        writer.read,
        writer.readline,
        writer.readall,
        lambda: writer.readinto(bytearray(1)),
        lambda: writer.seek(0),
        lambda: writer.truncate(0),
        writer.fileno,
        lambda: reader.write(b"x"),
        lambda: reader.truncate(0),
    ]
    for use in uses:
        with pytest.raises(io.UnsupportedOperation):
            use()
    writer.abort()


def test_after_close_is_a_value_error_and_a_bad_handle(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"old")
    writer, reader = bucket.writer(), bucket.reader()
    writer.abort()
    reader.close()
    uses: list[Callable[[], object]] = [
        lambda: writer.write(b"x"),
        writer.tell,
        writer.flush,
        lambda: writer.seek(0),
        reader.read,
        reader.tell,
        lambda: reader.seek(0),
        lambda: reader.readinto(bytearray(1)),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="I/O operation on closed file") as told:
            use()
        assert isinstance(told.value, BadHandle)


@pytest.mark.parametrize("buffered", [io.BufferedWriter, lambda raw: io.TextIOWrapper(io.BufferedWriter(raw))])
@pytest.mark.parametrize("held", [False, True], ids=["forgotten with it", "held"])
def test_a_buffer_that_is_forgotten_publishes_nothing(bucket: Bucket, buffered: Any, *, held: bool) -> None:
    bucket.store.seed(KEY, b"old")
    writer: CheckpointWriter | None = bucket.writer()
    assert writer is not None
    writer.write(bytes(3 * MIB))
    buffer = buffered(writer)
    buffer.write("partial" if isinstance(buffer, io.TextIOBase) else b"partial")
    kept = writer if held else None
    with pytest.warns(ResourceWarning, match="was not closed"):
        del buffer, writer
        gc.collect()
    until(lambda: bucket.store.requests["AbortMultipartUpload"] > 0 and not bucket.store.uploads)
    assert bucket.store.data(KEY) == b"old"
    if kept is not None:
        with pytest.raises(ValueError, match="closed file"):
            kept.write(b"more")
        with pytest.raises(ValueError, match="nothing was saved"):
            kept.close()


def test_a_block_that_forgets_its_buffer_does_not_end_as_if_all_was_saved(bucket: Bucket) -> None:
    def save() -> None:
        with bucket.writer() as writer:
            pickle.dump({"step": 1}, io.BufferedWriter(writer))
            gc.collect()

    with pytest.warns(ResourceWarning), pytest.raises(BadHandle, match="nothing was saved, for a buffer"):
        save()
    assert KEY not in bucket.store.objects


def test_a_buffer_that_is_closed_publishes(bucket: Bucket) -> None:
    buffer = io.BufferedWriter(bucket.writer())
    buffer.write(b"whole")
    buffer.close()
    assert bucket.store.data(KEY) == b"whole"


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_leaves_the_block_leaves_no_parts(bucket: Bucket, error: type[BaseException]) -> None:
    with pytest.raises(error), bucket.writer() as writer:
        writer.write(bytes(3 * MIB))
        raise error
    assert bucket.store.requests["AbortMultipartUpload"] == 1
    assert bucket.store.uploads == {}
    assert KEY not in bucket.store.objects


def test_an_exception_in_the_block_leaves_the_old_object_and_no_parts(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"old")

    def save() -> None:
        with bucket.writer() as writer:
            writer.write(bytes(3 * MIB))
            raise KeyError("something in the training script")

    with pytest.raises(KeyError):
        save()
    assert bucket.store.data(KEY) == b"old"
    assert bucket.store.uploads == {}


def test_the_failure_of_an_upload_is_raised_in_place_of_what_torch_makes_of_it(bucket: Bucket) -> None:
    def fail(operation: str, key: str) -> None:
        if operation == "UploadPart":
            raise ServerFailure("the server is busy", status=503)

    bucket.store.before = fail

    def save_like_torch() -> None:
        with bucket.writer() as writer:
            try:
                for _ in range(20):
                    writer.write(bytes(1 * MIB))
            except ServerFailure:
                raise RuntimeError("unexpected pos 64 vs 0") from None

    with pytest.raises(ServerFailure, match="busy"):
        save_like_torch()
    assert bucket.store.uploads == {}


def test_a_writer_that_becomes_garbage_is_given_up(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"old")
    writer = bucket.writer()
    writer.write(bytes(3 * MIB))
    with pytest.warns(ResourceWarning, match=r"oss://bucket/model.pt: the writer was not closed"):
        del writer
        gc.collect()
    until(lambda: bucket.store.requests["AbortMultipartUpload"] > 0 and not bucket.store.uploads)
    assert bucket.store.data(KEY) == b"old"


def test_writing_after_close_or_abort_is_refused(bucket: Bucket) -> None:
    writer = bucket.writer()
    writer.close()
    writer.close()
    with pytest.raises(BadHandle):
        writer.write(b"x")
    given_up = bucket.writer()
    given_up.abort()
    given_up.close()
    with pytest.raises(BadHandle):
        given_up.write(b"x")


def test_threads_end_with_the_last_file(bucket: Bucket) -> None:
    """A file keeps the way to its bucket open, also when nothing else does."""
    bucket.store.seed(KEY, b"0123456789")
    before = set(threading.enumerate())
    made = Engine(lambda place: bucket.store, OPTIONS)
    engines = [made]
    reader = CheckpointReader(URI, lambda: engines[0])
    engines.clear()
    del made
    gc.collect()
    assert reader.read(4) == b"0123"
    assert set(threading.enumerate()) - before
    del reader
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("size", [1, 3 * MIB])
def test_threads_end_with_the_last_file_that_was_written(bucket: Bucket, size: int) -> None:
    before = set(threading.enumerate())
    made = Engine(lambda place: bucket.store, OPTIONS)
    with CheckpointWriter(URI, made) as writer:
        writer.write(bytes(size))
    assert set(threading.enumerate()) - before
    del made, writer

    def have_ended() -> bool:
        gc.collect()
        return set(threading.enumerate()) <= before

    until(have_ended)
    assert len(bucket.store.data(KEY)) == size


# --- after fork ---


def in_child(work: object) -> str:
    """What `work()` returns in a forked process, or the name of the exception it raises."""
    assert callable(work)
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except Exception as error:
            said = type(error).__name__
        os.write(sending, said.encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_a_forked_process_reads_on_with_threads_of_its_own(bucket: Bucket) -> None:
    bucket.store.seed(KEY, b"0123456789" * 1_000_000)
    engines: dict[int, Engine] = {}

    def engine() -> Engine:
        if os.getpid() not in engines:
            engines[os.getpid()] = Engine(lambda place: bucket.store, OPTIONS)
        return engines[os.getpid()]

    reader = CheckpointReader(URI, engine)
    assert reader.read(5) == b"01234"
    assert in_child(lambda: reader.read(5).decode()) == "56789"
    assert reader.read(5) == b"56789"


def test_a_forked_process_neither_finishes_nor_ends_an_upload_of_its_parent(bucket: Bucket) -> None:
    writer = bucket.writer()
    writer.write(bytes(3 * MIB))
    assert in_child(lambda: writer.write(b"x")) == "BadHandle"
    assert in_child(writer.close) == "BadHandle"
    writer.write(b"end")
    writer.close()
    assert bucket.store.data(KEY) == bytes(3 * MIB) + b"end"


# --- what a killed process left ---


def test_an_upload_that_a_killed_process_left_is_ended_by_the_next_writer(bucket: Bucket) -> None:
    left = bucket.store.initiate_multipart(URI.key)
    other = bucket.store.initiate_multipart(parse_object("oss://bucket/model.pt.2").key)
    bucket.now += 2 * 3600
    with bucket.writer() as writer:
        writer.write(bytes(3 * MIB))
    until(lambda: left not in bucket.store.uploads)
    assert other in bucket.store.uploads


def test_an_upload_that_was_heard_of_lately_is_left_alone(bucket: Bucket) -> None:
    young = bucket.store.initiate_multipart(URI.key)
    with bucket.writer() as writer:
        writer.write(bytes(3 * MIB))
    until(lambda: bucket.store.requests["ListMultipartUploads"] > 0)
    assert young in bucket.store.uploads


def test_an_upload_of_this_process_is_not_taken_for_one_left_behind(bucket: Bucket) -> None:
    """However old it is: a clock may be wrong."""
    first = bucket.writer()
    first.write(bytes(3 * MIB))
    until(lambda: bucket.store.requests["ListMultipartUploads"] > 0)
    bucket.now += 2 * 3600
    assert bucket.engine is not None
    bucket.engine._looked_at.clear()
    with bucket.writer() as second:
        second.write(bytes(3 * MIB))
        until(lambda: bucket.store.requests["ListParts"] > 0)
    first.write(b"end")
    first.close()
    assert bucket.store.data(KEY) == bytes(3 * MIB) + b"end"
