"""A request that fails gives back the memory it was lent at once: buffers do not wait for the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from csi import errors
from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.oss.client import OssClient
from csi.volume.spec import HttpOptions, ReadOptions, WriteOptions
from csi.volume.units import Bytes
from tests.support.emulator import RunningEmulator
from tests.support.engines import until

SIZE = 1 << 20


class Memory(bytearray):
    """Whose end can be seen: views and slices of it keep it alive."""


@pytest.fixture
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def put(client: OssClient, view: memoryview) -> None:
    client.put("k", [view])


def upload_part(client: OssClient, view: memoryview) -> None:
    client.upload_part("k", client.initiate_multipart("k"), 1, [view])


def append(client: OssClient, view: memoryview) -> None:
    client.append("appended", 0, [view])


def read(client: OssClient, view: memoryview) -> None:
    client.read_into("stored", 0, view)


def read_whole(client: OssClient, view: memoryview) -> None:
    client.read_whole("stored", view)


def fails(client: OssClient, request: Callable[[OssClient, memoryview], None]) -> weakref.ref[Memory]:
    memory = Memory(SIZE)
    try:
        request(client, memoryview(memory))
    except errors.OssFuseError:
        return weakref.ref(memory)
    raise AssertionError("it did not fail")


@pytest.mark.usefixtures("_uncollected")
@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        *[(each, {"reset_upload_after": 30_000}) for each in (put, upload_part, append)],
        *[(each, {"drop_answer": True}) for each in (put, upload_part, append)],
        *[(each, {"status": 503}) for each in (put, upload_part, append, read, read_whole)],
        *[(each, {"corrupt_upload": True}) for each in (put, upload_part)],
        *[(each, {"reset_after": 30_000}) for each in (read, read_whole)],
        *[(each, {"truncate_after": 30_000}) for each in (read, read_whole)],
        *[(each, {"blackhole": True}) for each in (put, read)],
    ],
    ids=lambda value: value.__name__ if callable(value) else next(iter(value)),
)
def test_memory_of_a_request_that_failed_is_free(
    make_client: Callable[..., OssClient],
    emulator: RunningEmulator,
    request_: Callable[[OssClient, memoryview], None],
    fault: dict[str, object],
) -> None:
    emulator.seed("stored", size=SIZE)
    client = make_client(http=HttpOptions(retries=1, retry_interval=0.01, timeout=0.5, deadline=2.0))
    client.head("stored")
    operations = "PutObject,UploadPart,AppendObject,GetObject"
    emulator.fault(operation=operations, **fault)
    for _ in range(2):  # the second time on a connection that there is
        assert fails(client, request_)() is None


@pytest.mark.usefixtures("_uncollected")
@pytest.mark.parametrize("append", [False, True])
def test_buffers_of_files_that_could_not_be_written_or_read_come_back(
    make_client: Callable[..., OssClient], emulator: RunningEmulator, append: bool
) -> None:
    """They did not, and after a few resets a volume had no memory left to write or read anything with."""
    emulator.seed("stored", size=4 * SIZE)
    client = make_client(http=HttpOptions(retries=2, retry_interval=0.01))
    version = client.head("stored").version
    ledger = MemoryLedger(Bytes(64 * SIZE))
    write = WriteOptions(part_size=Bytes(SIZE // 4))
    with closing(DataEngine(client, read=ReadOptions(), write=write, ledger=ledger)) as engine:
        emulator.fault(operation="PutObject,UploadPart,AppendObject", reset_upload_after=30_000)
        emulator.fault(operation="GetObject", reset_after=0)
        for number in range(3):
            writer = engine.open_appender(f"k{number}", position=0) if append else engine.open_writer(f"k{number}")
            try:
                for _ in range(8):
                    writer.write(bytes(SIZE))
                writer.finish()
            except errors.OssFuseError:
                writer.abandon()
            else:
                raise AssertionError("it did not fail")
            del writer
            reader = engine.open_reader(version)
            try:
                reader.read(0, SIZE)
            except errors.OssFuseError:
                reader.close()
            else:
                raise AssertionError("it did not fail")
            del reader
        until(lambda: engine.statistics().buffers.lent == 0)
