"""The read engine as a library, without FUSE: CPU and time per byte and per object, against what a client can cost.

One server for all (nginx sends the bodies, no latency unless asked for), each measurement in a fresh process, clients
in rotating order. `socket` is the floor: HTTP/1.1 by hand into one buffer, not signed, nothing checked. `pycurl` is
libcurl with a write callback; `curl` the program, many transfers in one process. CPU is the client's alone.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import loads
from benchmarks.model import Files
from benchmarks.nginx import Line
from benchmarks.server import BUCKET, nginx_etag, serving
from benchmarks.works.reading import LARGE, LARGE_NAME, SMALL

MIB = 1 << 20
CLIENTS = ("ours", "socket", "pycurl", "curl")
WORK = ("sequential", "small", "random")
RANGE = 8 * MIB
RANDOM_SIZE = 4096
MOST_STREAMS = 4


@dataclass(frozen=True, slots=True)
class Task:
    """`work` by `client` with `threads` threads (streams, when sequential): `count` objects, reads or MiB of `size`."""

    client: str
    work: str
    endpoint: str
    credentials: str
    threads: int
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    cpu: float
    bytes_read: int
    bytes_fetched: int


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--task"]:
        print(json.dumps(asdict(perform(Task(**json.loads(arguments[1]))))))
        return 0
    options = _parser().parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="ossfuse-bench-") as name,
        serving(Path(name), loads.build(Path(name)), [Line(0)]) as server,
    ):
        server.provide(
            [
                Files(LARGE, LARGE_NAME, 1, options.large * MIB),
                Files(SMALL, "{n:06d}", options.objects, options.object_size),
            ]
        )
        for work in options.work:
            for threads in options.threads:
                if work != "sequential" or threads <= MOST_STREAMS:
                    compare(options, work, threads, server.endpoints[Line(0)], str(server.credential_file))
    return 0


def compare(options: argparse.Namespace, work: str, threads: int, endpoint: str, credentials: str) -> None:
    count, size = {
        "sequential": (options.large, options.large * MIB),
        "small": (options.objects, options.object_size),
        "random": (options.reads, options.large * MIB),
    }[work]
    clients = [client for client in options.client if not (client == "curl" and work == "random")]
    costs: dict[str, list[Cost]] = {client: [] for client in clients}
    for turn in range(options.rounds):
        shift = turn % len(clients)
        for client in clients[shift:] + clients[:shift]:
            task = Task(client, work, endpoint, credentials, threads, count, size)
            costs[client].append(fresh(task))
    for client, samples in costs.items():
        print(f"{work:>10} x{threads:<2} {client:>7}: {line(work, count, samples)}", flush=True)


def line(work: str, count: int, samples: list[Cost]) -> str:
    seconds = statistics.median(sample.seconds for sample in samples)
    cpu = statistics.median(sample.cpu for sample in samples)
    least = min(sample.cpu for sample in samples)
    if work == "sequential":
        return f"{count / seconds:6.0f} MiB/s  {cpu / count * 1024:.3f} CPU-s/GiB (least {least / count * 1024:.3f})"
    asked, fetched = samples[-1].bytes_read, samples[-1].bytes_fetched
    waste = f"  fetched {fetched / asked:.2f} x" if fetched else ""
    return f"{count / seconds:6.0f} /s  {cpu / count * 1e6:6.1f} us CPU (least {least / count * 1e6:.1f}){waste}"


def fresh(task: Task) -> Cost:
    command = [sys.executable, "-m", "benchmarks.engine_read", "--task", json.dumps(asdict(task))]
    return Cost(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def perform(task: Task) -> Cost:
    """Carry `task` out in this process."""
    if task.client == "curl":
        return curl(task)
    if task.client == "ours":
        return ours(task)
    get: Callable[[str], Callable[[str, str, memoryview], int]] = {"socket": SocketGet, "pycurl": CurlGet}[task.client]
    return timed(lambda index: bare(task, get(task.endpoint), index), task.threads)


def timed(work: Callable[[int], int], threads: int, fetched: Callable[[], int] = lambda: 0) -> Cost:
    totals = [0] * threads

    def thread(index: int) -> None:
        totals[index] = work(index)

    before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    if threads == 1:
        thread(0)
    else:
        started = [threading.Thread(target=thread, args=(index,)) for index in range(threads)]
        for one in started:
            one.start()
        for one in started:
            one.join()
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, sum(totals), fetched())


def share(task: Task, index: int) -> list[tuple[int, int]]:
    """What thread `index` reads: (object number or offset, length)."""
    if task.work == "small":
        return [(number, task.size) for number in range(index, task.count, task.threads)]
    if task.work == "random":
        chance = random.Random(index)
        offsets = (chance.randrange(0, task.size - RANDOM_SIZE, RANDOM_SIZE) for _ in range(task.count // task.threads))
        return [(offset, RANDOM_SIZE) for offset in offsets]
    part = task.size // task.threads
    return [(offset, min(RANGE, part)) for offset in range(index * part, (index + 1) * part, RANGE)]


def path_of(task: Task, place: int) -> str:
    return f"/{BUCKET}/{SMALL}{place:06d}" if task.work == "small" else f"/{BUCKET}/{LARGE}{LARGE_NAME}"


# --- ours ---


def ours(task: Task) -> Cost:
    from csi.data.engine import DataEngine  # noqa: PLC0415 - other clients are measured without it
    from csi.data.ledger import MemoryLedger  # noqa: PLC0415
    from csi.oss.client import OssClient  # noqa: PLC0415
    from csi.oss.credentials import FileCredentials  # noqa: PLC0415
    from csi.oss.store import ObjectVersion  # noqa: PLC0415
    from csi.volume.spec import HttpOptions, Location, ReadOptions, WriteOptions  # noqa: PLC0415
    from csi.volume.units import Bytes, ETag, ObjectKey  # noqa: PLC0415

    location = Location(BUCKET, task.endpoint, region="cn-hangzhou", path_style=True)
    credentials = FileCredentials(Path(task.credentials))
    client = OssClient(location, HttpOptions(), WriteOptions(), credentials)
    engine = DataEngine(client, read=ReadOptions(), write=WriteOptions(), ledger=MemoryLedger(Bytes(784 * MIB)))

    def version(key: str, size: int) -> ObjectVersion:
        return ObjectVersion(ObjectKey(key), ETag(f'"{nginx_etag(size)}"'), Bytes(size))

    def work(index: int) -> int:
        total = 0
        if task.work == "small":
            for number, size in share(task, index):
                reader = engine.open_reader(version(f"{SMALL}{number:06d}", size))
                total += len(reader.read(0, size + 4096))
                reader.close()
            return total
        reader = engine.open_reader(version(f"{LARGE}{LARGE_NAME}", task.size))
        for start, length in share(task, index):
            for offset in range(start, start + length, MIB):
                total += len(reader.read(offset, min(MIB, start + length - offset)))
        reader.close()
        return total

    try:
        return timed(work, task.threads, lambda: engine.statistics().cache.requested_bytes)
    finally:
        engine.close()
        client.close()


# --- the others ---


class SocketGet:
    def __init__(self, endpoint: str) -> None:
        address = urlsplit(endpoint)
        self._host = address.netloc
        self._socket = socket.create_connection((address.hostname or "", address.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = bytearray(16384)

    def __call__(self, path: str, span: str, target: memoryview) -> int:
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n{span}\r\n".encode())
        filled, end = 0, -1
        while end < 0:
            filled += self._socket.recv_into(memoryview(self._head)[filled:])
            end = self._head.find(b"\r\n\r\n", 0, filled)
        body = filled - end - 4
        target[:body] = self._head[end + 4 : filled]
        while body < len(target):
            body += self._socket.recv_into(target[body:], 0, socket.MSG_WAITALL)
        return body


class CurlGet:
    def __init__(self, endpoint: str) -> None:
        import pycurl  # noqa: PLC0415 - other clients are measured without it

        self._endpoint = endpoint
        self._curl = pycurl.Curl()
        self._curl.setopt(pycurl.BUFFERSIZE, 128 * 1024)
        self._names = pycurl

    def __call__(self, path: str, span: str, target: memoryview) -> int:
        filled = 0

        def write(data: bytes) -> None:
            nonlocal filled
            target[filled : filled + len(data)] = data
            filled += len(data)

        self._curl.setopt(self._names.URL, self._endpoint + path)
        self._curl.setopt(self._names.HTTPHEADER, [span.strip()] if span else [])
        self._curl.setopt(self._names.WRITEFUNCTION, write)
        self._curl.perform()
        return filled


def bare(task: Task, get: Callable[[str, str, memoryview], int], index: int) -> int:
    target = memoryview(bytearray(RANGE))
    total = 0
    for place, length in share(task, index):
        span = "" if task.work == "small" else f"Range: bytes={place}-{place + length - 1}\r\n"
        total += get(path_of(task, place), span, target[:length])
    return total


def curl(task: Task) -> Cost:
    if task.work == "small":
        urls = [f'url = "{task.endpoint}{path_of(task, number)}"' for number in range(task.count)]
        lines = "\n".join(f'{url}\noutput = "/dev/null"' for url in urls)
    else:
        part = task.size // task.threads
        spans = [f"{index * part}-{(index + 1) * part - 1}" for index in range(task.threads)]
        url = f'url = "{task.endpoint}{path_of(task, 0)}"\noutput = "/dev/null"'
        lines = "\nnext\n".join(f'{url}\nrange = "{span}"\nsilent' for span in spans)
    command = ["curl", "-q", "-s", "-K", "-"]
    if task.threads > 1:
        command += ["--parallel", "--parallel-immediate", "--parallel-max", str(task.threads)]
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, input=lines.encode(), check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    total = task.count * task.size if task.work == "small" else task.size
    return Cost(seconds, cpu, total, 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=WORK, default=WORK)
    parser.add_argument("--client", nargs="+", choices=CLIENTS, default=CLIENTS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 4, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=1024, metavar="MIB")
    parser.add_argument("--objects", type=int, default=4000)
    parser.add_argument("--object-size", type=int, default=100 * 1024)
    parser.add_argument("--reads", type=int, default=4000)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
