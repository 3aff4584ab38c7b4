"""A sample as a file: whatever way its bytes come, it reads as io.BytesIO does."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import InvalidOption, ObjectNotFound
from csi.oss.store import ObjectVersion
from csi.torch.catalogue import UNKNOWN, Entry
from csi.torch.configuration import Configuration
from csi.torch.connection import Connection
from csi.torch.credentials import CredentialSource
from csi.torch.fetching import Fetcher
from csi.torch.samples import OssObject
from csi.torch.slots import Fetched
from csi.torch.uri import Place
from csi.volume.units import Bytes, ETag, ObjectKey

KEY = ObjectKey("dir/a.txt")
LARGE = 3 << 20


class Ranged:
    """A reader by ranges, and how it was used."""

    notice = 0

    def __init__(self, version: ObjectVersion, data: bytes) -> None:
        self.version = version
        self._data = data
        self.is_open = True

    def read(self, offset: int, size: int) -> memoryview:
        assert self.is_open
        return memoryview(self._data)[offset : offset + size]

    def close(self) -> None:
        self.is_open = False


class Bucket(Fetcher):
    """Stands in for a fetcher: one object of `data`, which is held only up to `unit` bytes."""

    def __init__(self, data: bytes, unit: int) -> None:
        self.data = data
        self.unit = Bytes(unit)
        self.fetched = 0
        self.readers: list[Ranged] = []
        self.connection = Connection("http://oss.local", CredentialSource(path="none"), Configuration())

    def fetch(self, entry: Entry) -> Fetched:
        self.fetched += 1
        version = ObjectVersion(entry.key, ETag('"e"'), Bytes(len(self.data)))
        held = bytearray(self.data) if len(self.data) <= self.unit else None
        return Fetched(version, held, entry.key, len(self.data))

    def open(self, place: Place, version: ObjectVersion) -> Any:
        self.readers.append(Ranged(version, self.data))
        return self.readers[-1]


def entry(size: int = UNKNOWN) -> Entry:
    return Entry(Place("bucket"), KEY, size, ETag('"e"'), "label")


def there(data: bytes) -> OssObject:
    bucket = Bucket(data, 1 << 30)
    return OssObject(entry(len(data)), bucket, bucket.fetch(entry(len(data))))


def listed(data: bytes) -> OssObject:
    return OssObject(entry(len(data)), Bucket(data, 1 << 30))


def named(data: bytes) -> OssObject:
    return OssObject(entry(), Bucket(data, 1 << 30))


def ranged(data: bytes) -> OssObject:
    return OssObject(entry(), Bucket(data, 0))


sizes = st.one_of(st.none(), st.integers(-1, 40))
steps = st.one_of(
    st.tuples(st.just("read"), sizes),
    st.tuples(st.just("readline"), sizes),
    st.tuples(st.just("readinto"), st.integers(0, 40)),
    st.tuples(st.just("seek"), st.integers(0, 60), st.just(io.SEEK_SET)),
    st.tuples(st.just("seek"), st.integers(0, 20), st.just(io.SEEK_CUR)),
    st.tuples(st.just("seek"), st.integers(0, 20), st.just(io.SEEK_END)),
    st.tuples(st.just("tell")),
)


def done(opened: Any, step: tuple[Any, ...]) -> Any:
    name, *arguments = step
    if name == "readinto":
        target = bytearray(arguments[0])
        return opened.readinto(target), target
    return getattr(opened, name)(*arguments)


@pytest.mark.parametrize("made", [there, listed, named, ranged])
@given(data=st.binary(max_size=50), taken=st.lists(steps, max_size=12))
def test_it_reads_as_any_file_does(made: Any, data: bytes, taken: list[tuple[Any, ...]]) -> None:
    sample, model = made(data), io.BytesIO(data)
    for step in taken:
        assert done(sample, step) == done(model, step)
    assert sample.size == len(data)


def test_lines_are_iterated_and_text_can_be_wrapped_around() -> None:
    text = "один\nдва\nthree"
    assert list(there(text.encode())) == text.encode().splitlines(keepends=True)
    assert io.TextIOWrapper(io.BufferedReader(ranged(text.encode())), "utf-8").read() == text


def test_what_it_is() -> None:
    sample = there(b"12345")
    assert (sample.key, sample.name, sample.label) == ("/bucket/dir/a.txt", "dir/a.txt", "label")
    assert (sample.size, len(sample), bool(there(b""))) == (5, 5, True)
    assert (sample.readable(), sample.seekable(), sample.writable(), sample.closed) == (True, True, False, False)


def test_a_small_part_of_a_listed_object_fetches_all_of_it_once() -> None:
    sample = listed(b"0123456789")
    sample.seek(5)
    assert (sample.read(2), sample.read(2)) == (b"56", b"78")
    assert sample._source.fetched == 1  # type: ignore[union-attr]


def test_a_small_part_of_a_large_object_fetches_only_that() -> None:
    sample = listed(bytes(LARGE))
    sample.seek(LARGE - 10)
    assert sample.read() == bytes(10)
    bucket = sample._source
    assert isinstance(bucket, Bucket)
    assert (bucket.fetched, len(bucket.readers)) == (0, 1)
    sample.close()
    assert not bucket.readers[0].is_open


def test_all_of_a_larger_object_is_one_request_if_it_may_be_held() -> None:
    sample = listed(bytes(LARGE))
    assert len(sample.read()) == LARGE
    bucket = sample._source
    assert isinstance(bucket, Bucket)
    assert (bucket.fetched, bucket.readers) == (1, [])


def test_after_close_nothing_is_read() -> None:
    with there(b"12345") as sample:
        pass
    sample.close()
    for call in (sample.read, sample.tell, sample.readline, lambda: sample.seek(0), lambda: sample.readinto(b"")):
        with pytest.raises(ValueError, match=r"/bucket/dir/a\.txt .*is closed"):
            call()


def test_before_the_start_and_an_unknown_direction_are_refused() -> None:
    sample = there(b"12345")
    with pytest.raises(ValueError, match="before the start"):
        sample.seek(-1)
    with pytest.raises(ValueError, match="whence 7"):
        sample.seek(0, 7)


def test_it_pickles_with_its_bytes_and_its_position() -> None:
    sample = listed(b"12345")
    sample.seek(2)
    copy = pickle.loads(pickle.dumps(sample))
    assert (copy.read(), copy.label, copy.size) == (b"345", "label", 5)
    assert sample.read() == b"345"


def test_a_failure_pickles_and_is_raised_where_bytes_are_wanted() -> None:
    sample = OssObject(entry(), Bucket(b"", 1), error=ObjectNotFound("none", key="dir/a.txt", request_id="5C1B"))
    copy = pickle.loads(pickle.dumps(sample))
    assert copy.label == "label"
    for call in (copy.read, copy.readline, lambda: copy.size, lambda: copy.readinto(bytearray(1))):
        with pytest.raises(ObjectNotFound, match="none") as told:
            call()
        assert (told.value.key, told.value.request_id) == ("dir/a.txt", "5C1B")


def test_errors_of_many_arguments_pickle_too() -> None:
    error = pickle.loads(pickle.dumps(InvalidOption("key", "value", "something else")))
    assert isinstance(error, InvalidOption)
    assert (error.key, str(error)) == ("key", "key: 'value' is not accepted, expected something else")
