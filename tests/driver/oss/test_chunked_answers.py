"""A proxy in between that answers in chunks: a body is whole if its last chunk came and all that is known agrees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from csi.errors import ChecksumMismatch, EndpointUnreachable, PreconditionFailed
from csi.oss.client import OssClient
from csi.oss.store import ObjectVersion
from csi.volume.spec import HttpOptions, WriteOptions
from tests.driver.oss.conftest import MakeClient
from tests.support.chunking_proxy import ChunkingProxy, chunking_proxy
from tests.support.emulator import RunningEmulator

BODY = bytes(range(256)) * 20
ONCE = HttpOptions(retries=0)


@pytest.fixture
def proxy(emulator: RunningEmulator) -> Iterator[ChunkingProxy]:
    with chunking_proxy(emulator.endpoint) as made:
        yield made


@pytest.fixture
def version(client: OssClient) -> ObjectVersion:
    client.put("k", [BODY])
    return client.head("k").version


def fill(client: OssClient, version: ObjectVersion, offset: int, size: int) -> bytes:
    target = bytearray(size)
    client.fill(version, offset, memoryview(target))
    return bytes(target)


def test_an_object_is_read(make_client: MakeClient, proxy: ChunkingProxy, version: ObjectVersion) -> None:
    client = make_client(endpoint=proxy.url)
    for _ in range(2):  # the second time there is a connection that might be spoken on directly
        assert fill(client, version, 0, len(BODY)) == BODY
        assert fill(client, version, 100, 2000) == BODY[100:2100]


def test_its_size_is_known(make_client: MakeClient, proxy: ChunkingProxy, version: ObjectVersion) -> None:
    client = make_client(endpoint=proxy.url)
    target = memoryview(bytearray(2 * len(BODY)))
    whole, received = client.read_whole("k", target)
    start, begun = client.read_start("k", target[:10])
    assert (whole.version, received, bytes(target[:received])) == (version, len(BODY), BODY)
    assert (start.version, begun) == (version, 10)
    assert client.head("k").version == version
    assert client.list_page("").objects[0].version == version


def test_an_empty_object_is_read(make_client: MakeClient, proxy: ChunkingProxy, emulator: RunningEmulator) -> None:
    client = make_client(endpoint=proxy.url)
    emulator.seed("empty", b"")
    assert client.read_whole("empty", memoryview(bytearray(9)))[1] == 0
    assert client.read_start("empty", memoryview(bytearray(9)))[1] == 0
    assert client.head("empty").size == 0


@pytest.mark.parametrize("crc64", [True, False])
def test_half_a_body_is_asked_for_again(
    make_client: MakeClient, proxy: ChunkingProxy, version: ObjectVersion, crc64: bool
) -> None:
    client = make_client(endpoint=proxy.url, write=WriteOptions(crc64=crc64))
    proxy.cuts = 1
    assert fill(client, version, 0, len(BODY)) == BODY
    assert proxy.gets == 2


@pytest.mark.parametrize("crc64", [True, False])
def test_half_a_body_is_not_taken_for_the_whole(
    make_client: MakeClient, proxy: ChunkingProxy, version: ObjectVersion, crc64: bool
) -> None:
    client = make_client(endpoint=proxy.url, http=ONCE, write=WriteOptions(crc64=crc64))
    proxy.cuts = 2
    with pytest.raises(EndpointUnreachable):
        fill(client, version, 0, len(BODY))
    with pytest.raises(EndpointUnreachable):
        client.read_whole("k", memoryview(bytearray(len(BODY))))


def test_nor_is_one_that_comes_to_a_proper_end(
    make_client: MakeClient, proxy: ChunkingProxy, version: ObjectVersion
) -> None:
    client = make_client(endpoint=proxy.url, http=ONCE)
    proxy.losses = 1
    with pytest.raises(ChecksumMismatch):
        client.read_whole("k", memoryview(bytearray(len(BODY))))
    without = make_client(endpoint=proxy.url, http=ONCE, write=WriteOptions(crc64=False))
    proxy.losses = 1
    with pytest.raises(PreconditionFailed):
        fill(without, version, 0, len(BODY))
