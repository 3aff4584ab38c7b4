"""Tables served by device threads to a fake kernel; what they cannot answer is kept, and answered ENOTRECOVERABLE. A
server of objects, and couriers that ask it."""

from __future__ import annotations

import errno
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from csi.data.couriers import MOST, Couriers
from csi.data.ledger import MemoryLedger
from csi.fs.types import Attributes, FileKind
from csi.fuse.native.answers import Answers
from csi.fuse.native.device import Device
from csi.fuse.protocol.bodies import Forget, Request
from csi.fuse.protocol.messages import decode
from csi.oss.client import OssClient
from csi.oss.credentials import AnonymousCredentials
from csi.oss.lines import Lines
from csi.volume.spec import HttpOptions, Location, WriteOptions
from csi.volume.units import MIB, Bytes, InodeNumber, Seconds
from tests.support.kernel_end import KernelEnd
from tests.support.raw_server import RawServer, read_request

LONG = Seconds(60.0)
PYTHON = errno.ENOTRECOVERABLE
"""The answer to what came to Python."""
BODY = bytes(range(256)) * 40
ETAG = '"0123"'
_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d+)\r\n")


class Tables:
    def __init__(self, threads: int = 2, capacity: int = 1 << 18) -> None:
        self.kernel = KernelEnd()
        self.answers = Answers(capacity)
        self.device = Device(self.kernel.descriptor, self.answers, 1 << 20, threads + 2)
        self.brought: list[Request] = []
        self.came = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self.device.run, args=(self.handle,)) for _ in range(threads)]
        self.threads.append(threading.Thread(target=self.device.watch))
        for thread in self.threads:
            thread.start()

    def handle(self, message: memoryview) -> None:
        request = decode(message)
        self.brought.append(request)
        if not isinstance(request.body, Forget):
            self.device.reply(request.header.unique, PYTHON)
        self.came.release()

    def close(self) -> None:
        self.device.stop()
        for thread in self.threads:
            while thread.is_alive():
                self.device.interrupt()
                thread.join(0.01)
        self.device.close(Seconds(1.0))
        self.kernel.unmount()

    def add_file(self, name: bytes, inode: int, size: int = 0) -> None:
        self.answers.publish_inode(attributes(inode, size), believed=LONG, told=LONG)
        self.answers.publish_name(InodeNumber(1), name, InodeNumber(inode), believed=LONG, told=LONG)


class Store:
    """A server of objects, all of them `body`, that answers once it is told to. `refusing`: with 404."""

    def __init__(self, body: bytes = BODY) -> None:
        self.body = body
        self.asked = threading.Semaphore(0)
        self.answering = threading.Event()
        self.answering.set()
        self.refusing = False
        self.closing = False

    def play(self, server: RawServer, connection: socket.socket) -> None:
        while request := read_request(server, connection):
            self.asked.release()
            self.answering.wait(20.0)
            status, more, body = "404 Not Found" if self.refusing else "200 OK", "", self.body
            if not self.refusing and (span := _RANGE.search(request)):
                first, last = map(int, span.groups())
                status, body = "206 Partial Content", body[first : last + 1]
                more = f"Content-Range: bytes {first}-{last}/{len(self.body)}\r\n"
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nETag: {ETAG}\r\n{more}\r\n"
            connection.sendall(head.encode() + body)
            if self.closing:
                return


@contextmanager
def couriers_to(tables: Tables, endpoint: str, ledger: MemoryLedger) -> Iterator[None]:
    couriers = Couriers(tables.answers, lines_to(endpoint), ledger)
    couriers.start(lambda message: tables.handle(memoryview(message)))
    try:
        yield
    finally:
        couriers.close()


def lines_to(endpoint: str) -> Lines:
    http = HttpOptions(signature_version=1, connection_timeout=Seconds(1.0))
    location = Location(bucket="bucket", endpoint=endpoint, path_style=True)
    client = OssClient(location, http, WriteOptions(), AnonymousCredentials(), lines=MOST)
    lines = client.lines(Bytes(MIB))
    assert lines is not None
    return lines


@pytest.fixture
def tables() -> Iterator[Tables]:
    made = Tables()
    yield made
    made.close()


def attributes(inode: int, size: int = 0) -> Attributes:
    return Attributes(InodeNumber(inode), FileKind.FILE, 0o100644, 1, 0, 0, size, 1, 2, 3)
