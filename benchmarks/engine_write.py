"""What writing costs: the write engine without FUSE, against the emulator.

One large file written in requests of 1 MiB, and many small files made by several threads, each looked up, created,
written, closed and forgotten as the kernel would have it. CPU seconds are this process's alone. `curl` is `curl -T` of
as many bytes to the same server, and says whether the server is what is measured. `--profile`: where the time goes.

    python -m benchmarks.engine_write [--size 1024] [--files 5000] [--file-size 102400] [--threads 1 8] [--rounds 5]
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import os
import pstats
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger, budget_for
from csi.errors import NoSuchEntry
from csi.fs.filesystem import Filesystem
from csi.fs.types import ROOT_INODE
from csi.oss.client import OssClient
from csi.oss.credentials import FileCredentials
from csi.volume.spec import HttpOptions, Location, ReadOptions, WriteOptions
from csi.volume.units import GIB, MIB, Bytes

BUCKET = "bench"
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True, slots=True)
class Server:
    endpoint: str
    credential_file: str


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    cpu: float


class CountedStore:
    """An object store that counts its requests."""

    def __init__(self, store: OssClient) -> None:
        self._store = store
        self.requests: Counter[str] = Counter()

    def __getattr__(self, name: str) -> object:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def counted(*arguments: object, **options: object) -> object:
            self.requests[name] += 1
            return found(*arguments, **options)

        return counted


def main() -> None:
    options = _parser().parse_args()
    with _emulator() as server, _mount(server) as (filesystem, store):
        large: list[Cost] = []
        curl: list[Cost] = []
        small: dict[int, list[Cost]] = {threads: [] for threads in options.threads}
        for round_ in range(options.rounds):
            large.append(_measure(lambda: _write_large(filesystem, options.size), profile=options.profile))
            curl.append(_curl(server, options.size))
            for threads in options.threads:
                store.requests.clear()
                work = _small_files(filesystem, f"r{round_}t{threads}", options.files, options.file_size, threads)
                small[threads].append(_measure(work, profile=options.profile))
        gib = options.size / 1024
        print(f"sequential write, {options.size} MiB: {_median(large, gib, 'GiB')}")
        print(f"curl -T, {options.size} MiB:           {_median(curl, gib, 'GiB')}")
        for threads, costs in small.items():
            what = f"{options.files} files of {options.file_size} bytes, {threads} threads"
            print(f"{what}: {_median(costs, options.files, 'file')}")
        print(f"requests of the last {options.files} files: {dict(store.requests)}")


# --- private ---


def _write_large(filesystem: Filesystem, mib: int) -> None:
    data = secrets.token_bytes(MIB)
    entry, opened = filesystem.create(ROOT_INODE, b"large", 0o644, _WRITE)
    for number in range(mib):
        filesystem.write(opened.handle, number * MIB, data)
    filesystem.flush(opened.handle)
    filesystem.release(opened.handle)
    filesystem.unlink(ROOT_INODE, b"large")
    filesystem.forget(entry.attributes.inode, 1)


def _small_files(filesystem: Filesystem, name: str, count: int, size: int, threads: int) -> Callable[[], None]:
    data = secrets.token_bytes(size)
    directory = filesystem.mkdir(ROOT_INODE, name.encode(), 0o755).attributes.inode

    def write(numbers: range) -> None:
        for number in numbers:
            file = b"%06d" % number
            with contextlib.suppress(NoSuchEntry):
                filesystem.lookup(directory, file)
            entry, opened = filesystem.create(directory, file, 0o644, _WRITE)
            filesystem.write(opened.handle, 0, data)
            filesystem.flush(opened.handle)
            filesystem.release(opened.handle)
            filesystem.forget(entry.attributes.inode, 1)

    def work() -> None:
        if threads == 1:
            write(range(count))
            return
        workers = [threading.Thread(target=write, args=(range(start, count, threads),)) for start in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return work


def _measure(work: Callable[[], None], *, profile: bool) -> Cost:
    profiler = cProfile.Profile()
    started, cpu = time.perf_counter(), time.process_time()
    if profile:
        profiler.enable()
    work()
    profiler.disable()
    cost = Cost(time.perf_counter() - started, time.process_time() - cpu)
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    return cost


def _curl(server: Server, mib: int) -> Cost:
    """The same bytes by one PUT of curl, which the emulator takes unsigned."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    source = subprocess.Popen(["head", "-c", str(mib * MIB), "/dev/zero"], stdout=subprocess.PIPE)
    target = f"{server.endpoint}/{BUCKET}/curl"
    subprocess.run(["curl", "-sS", "-f", "-T", "-", "-X", "PUT", target], stdin=source.stdout, check=True)
    source.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["curl", "-sS", "-f", "-X", "DELETE", target], check=True)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.perf_counter() - started, cpu)


def _median(costs: list[Cost], units: float, unit: str) -> str:
    seconds = sorted(cost.seconds / units for cost in costs)
    cpu = statistics.median(cost.cpu / units for cost in costs)
    middle = statistics.median(seconds)
    return (
        f"{1 / middle:8.2f} {unit}/s [{1 / seconds[-1]:.2f}-{1 / seconds[0]:.2f}], "
        f"{cpu if unit == 'GiB' else cpu * 1e6:.2f} CPU-{'s' if unit == 'GiB' else 'us'}/{unit}"
    )


@contextmanager
def _mount(server: Server) -> Iterator[tuple[Filesystem, CountedStore]]:
    location = Location(BUCKET, server.endpoint, region="cn-hangzhou", path_style=True)
    write = WriteOptions(threads=4)
    client = OssClient(location, HttpOptions(), write, FileCredentials(server.credential_file))
    store = CountedStore(client)
    engine = DataEngine(
        cast("Any", store), read=ReadOptions(threads=4), write=write, ledger=MemoryLedger(budget_for(Bytes(GIB)))
    )
    filesystem = Filesystem(cast("Any", store), engine, write=write)
    try:
        yield filesystem, store
    finally:
        filesystem.close()
        engine.close()
        client.close()


@contextmanager
def _emulator() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="ossfuse-bench-") as name:
        directory = Path(name)
        key, secret = "bench", secrets.token_hex(16)
        (directory / "keys").write_text(f"{key}:{secret}\n")
        (directory / "credentials").write_text(f'{{"AccessKeyId": "{key}", "AccessKeySecret": "{secret}"}}')
        command = [sys.executable, "-m", "csi.emulator", "--data", str(directory / "data"), "--port", "0"]
        command += ["--bucket", BUCKET, "--access-key-file", str(directory / "keys"), "--insecure-anonymous"]
        command += ["--until-stdin-closes"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            endpoint = next(word for word in line.split() if word.startswith("http://"))
            yield Server(endpoint.rstrip("/.,"), str(directory / "credentials"))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the large file")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--file-size", type=int, default=102_400, metavar="BYTES")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="of the calling thread; best with --threads 1")
    return parser


if __name__ == "__main__":
    main()
