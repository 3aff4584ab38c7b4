"""`fill`: the short way of a GET, what it leaves to the long one, and how a request is given up for a quicker one."""

import dataclasses
import os
import threading

import pytest

from csi import errors
from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.oss.cancellation import Cancellation
from csi.oss.store import ObjectVersion
from csi.volume.spec import HttpOptions, ReadOptions, WriteOptions
from csi.volume.units import MIB, Bytes, ETag, ObjectKey
from tests.support.engines import until

CONTENT = os.urandom(400_000)
SPANS = [(0, 400_000), (0, 200_000), (100_000, 200_000)]


def stored(client, key="k"):
    """A version of an object, and a connection that is there already."""
    version = ObjectVersion(ObjectKey(key), client.put(key, [CONTENT]).etag, Bytes(len(CONTENT)))
    fill(client, version, 0, 10)
    return version


def fill(client, version, offset, size):
    target = memoryview(bytearray(size))
    client.fill(version, offset, target)
    return bytes(target)


@pytest.mark.parametrize(("offset", "size"), SPANS)
@pytest.mark.parametrize("key", ["k", "ein Ordner/ü+&?#%.bin", "a//b/../c"])
@pytest.mark.parametrize("signature", [1, 4])
def test_the_bytes_come_by_one_request(make_client, emulator, key, signature, offset, size):
    client = make_client(http=HttpOptions(signature_version=signature))
    version = stored(client, key)
    before = emulator.count("GetObject")

    assert fill(client, version, offset, size) == CONTENT[offset : offset + size]

    assert emulator.count("GetObject") == before + 1
    assert client.statistics().retries == 0


@pytest.mark.parametrize(("offset", "size"), SPANS)
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "code": "InternalError"},
        {"status": 503, "code": "ServiceUnavailable"},
        {"reset_after": 100_000},
        {"reset_after": 0},
        {"truncate_after": 150_000},
        {"drop_answer": True},
        {"wrong_crc64": True},
        {"latency": 0.05},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_passing_fault_is_not_noticed(make_client, emulator, fault, offset, size):
    client = make_client()
    version = stored(client)
    emulator.fault(operation="GetObject", count=1, **fault)

    assert fill(client, version, offset, size) == CONTENT[offset : offset + size]


def test_a_corrupt_body_is_not_handed_out(make_client, emulator):
    client = make_client()
    version = stored(client)
    emulator.fault(operation="GetObject", count=1, corrupt_body=True)

    assert fill(client, version, 0, len(CONTENT)) == CONTENT
    assert client.statistics().retries == 1


@pytest.mark.parametrize(("offset", "size"), SPANS)
def test_another_version_is_refused_and_asked_for_once(client, emulator, offset, size):
    version = stored(client)
    client.put("k", [os.urandom(len(CONTENT))])
    before = emulator.count("GetObject")

    with pytest.raises(errors.PreconditionFailed):
        fill(client, version, offset, size)
    assert emulator.count("GetObject") == before + 1


@pytest.mark.parametrize(("offset", "size"), SPANS)
def test_an_object_that_is_gone_is_told(client, offset, size):
    version = stored(client)
    client.delete("k")

    with pytest.raises(errors.ObjectNotFound, match="GetObject"):
        fill(client, version, offset, size)


def test_a_size_that_is_not_the_listed_one_is_another_version(client):
    version = stored(client)
    for size in (len(CONTENT) - 1, len(CONTENT) + 1):
        with pytest.raises((errors.PreconditionFailed, errors.RangeNotSatisfiable)):
            fill(client, dataclasses.replace(version, etag=ETag(""), size=Bytes(size)), 0, size)


def test_an_etag_that_would_end_its_header_is_refused(client):
    version = stored(client)

    with pytest.raises(errors.RequestRejected):
        fill(client, dataclasses.replace(version, etag=ETag('"x"\r\nX-Y: z')), 0, 10)


@pytest.mark.parametrize("warm", [True, False], ids=["short way", "libcurl"])
def test_a_request_that_is_given_up_ends_and_is_not_made_again(make_client, emulator, warm):
    client = make_client(http=HttpOptions(timeout=20.0))
    version = stored(make_client())
    if warm:
        fill(client, version, 0, 10)
    emulator.fault(operation="GetObject", blackhole=True)
    cancellation = Cancellation()
    failures = []

    def work():
        try:
            client.fill(version, 0, memoryview(bytearray(len(CONTENT))), cancellation=cancellation)
        except errors.EndpointUnreachable as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: cancellation._connection is not None)
    cancellation.request()
    thread.join(10)

    assert len(failures) == 1
    assert client.statistics().retries == 0


def test_a_straggler_is_asked_for_again_on_another_connection(make_client, emulator):
    client = make_client()
    version = stored(client)
    engine = DataEngine(client, read=ReadOptions(), write=WriteOptions(), ledger=MemoryLedger(Bytes(64 * MIB)))
    try:
        for _ in range(20):
            engine._cache.pace.note(len(CONTENT), 0.01)
        emulator.fault(operation="GetObject", count=1, blackhole=True)
        reader = engine.open_reader(version)
        assert bytes(reader.read(0, len(CONTENT))) == CONTENT
        reader.close()
        until(lambda: engine.statistics().downloads.running == 0)
        assert engine.statistics().cache.flights.repeated == 1
    finally:
        engine.close()
