"""The same bytes through a library that reads objects without a mount: a ceiling, with the report of the load program.

    library.py NAME ENDPOINT BUCKET sequential KEY SIZE STREAMS
    library.py NAME ENDPOINT BUCKET files PREFIX COUNT THREADS

Runs in the virtual environment of the benchmarks; standard input is a credential file. Large objects are read in ranges
of 8 MiB by four threads for each stream; of each piece the first page is checked.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

RANGE = 8 << 20
PAGE = 4096
READERS_A_STREAM = 4

Read = Callable[[str, int, int], Any]
"""(key, offset, size) → bytes; size 0 is the whole object."""


def obstore(endpoint: str, bucket: str) -> Read:
    import obstore as library  # type: ignore[import-not-found]  # noqa: PLC0415
    from obstore.store import S3Store  # type: ignore[import-not-found]  # noqa: PLC0415

    store = S3Store(
        bucket,
        endpoint=endpoint,
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
        skip_signature=True,
        region="us-east-1",
    )

    def read(key: str, offset: int, size: int) -> Any:
        if size:
            return memoryview(library.get_range(store, key, start=offset, length=size))
        return memoryview(library.get(store, key).bytes())

    return read


def opendal(endpoint: str, bucket: str) -> Read:
    import opendal as library  # noqa: PLC0415

    operator = library.Operator(
        "s3",
        bucket=bucket,
        endpoint=endpoint,
        region="us-east-1",
        allow_anonymous="true",
        disable_config_load="true",
        disable_ec2_metadata="true",
    )

    def read(key: str, offset: int, size: int) -> Any:
        if not size:
            return memoryview(operator.read(key))
        with operator.open(key, "rb") as file:
            file.seek(offset)
            return memoryview(file.read(size))

    return read


def pyjindosdk(endpoint: str, bucket: str) -> Read:
    from pyjindo import fs, util  # type: ignore[import-untyped]  # noqa: PLC0415

    config = util.read_config() if hasattr(util, "read_config") else fs.Config()
    address = urlsplit(endpoint)
    config.set("fs.oss.endpoint", address.netloc)
    config.set("fs.oss.second.level.domain.enable", "true")
    keys = json.loads(sys.stdin.read())  # it will not go unsigned
    config.set("fs.oss.accessKeyId", keys["AccessKeyId"])
    config.set("fs.oss.accessKeySecret", keys["AccessKeySecret"])
    config.set("logger.dir", "/tmp")
    system = fs.connect(f"oss://{bucket}/", "root", config)

    def read(key: str, offset: int, size: int) -> Any:
        with system.open(f"oss://{bucket}/{key}", "rb") as file:
            return memoryview(file.pread(size, offset) if size else file.read())

    return read


LIBRARIES: dict[str, Callable[[str, str], Read]] = {"obstore": obstore, "opendal": opendal, "pyjindosdk": pyjindosdk}


def identity(key: str) -> int:
    """FNV-1a of the base name."""
    value = 2166136261
    for byte in key.rpartition("/")[2].encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def wrong_pages(data: memoryview, file: int, offset: int) -> int:
    """Only the first page of each piece is checked here: Python would cost more than the libraries."""
    return int(int.from_bytes(data[:8], "little") != (file << 32 | offset // PAGE))


class Tally:
    def __init__(self) -> None:
        self.bytes = self.operations = self.wrong = 0
        self.error = ""


def share(pieces: list[tuple[str, int, int]], read: Read, tally: Tally) -> None:
    try:
        for key, offset, size in pieces:
            data = read(key, offset, size)
            tally.bytes += len(data)
            tally.operations += 1
            tally.wrong += wrong_pages(data, identity(key), offset)
    except Exception as error:  # whatever a library raises is told
        tally.error = f"{type(error).__name__}: {error}"[:200]


def main() -> None:
    name, endpoint, bucket, what, path = sys.argv[1:6]
    amount, threads = int(sys.argv[6]), int(sys.argv[7])
    read = LIBRARIES[name](endpoint, bucket)
    if what == "sequential":
        pieces = [(path, offset, min(RANGE, amount - offset)) for offset in range(0, amount, RANGE)]
        threads = max(threads, 1) * READERS_A_STREAM
    else:
        pieces = [(f"{path}{number:06d}", 0, 0) for number in range(amount)]
    tallies = [Tally() for _ in range(threads)]
    workers = [
        threading.Thread(target=share, args=(pieces[index::threads], read, tallies[index])) for index in range(threads)
    ]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    report = {"seconds": time.monotonic() - start}
    for field in ("bytes", "operations", "wrong"):
        report[field] = sum(getattr(tally, field) for tally in tallies)
    print(json.dumps(report | {"error": next((tally.error for tally in tallies if tally.error), "")}))


if __name__ == "__main__":
    main()
