"""One pass of a DataLoader over small objects, with the report of the load program.

    torch_images.py CLIENT ENDPOINT BUCKET map|iterable PREFIX ALL COUNT SIZE WORKERS SEED

CLIENT is `ossfuse` or `osstorchconnector`; `oss2 data set`, the class that the guide shows; `ossfuse mount`, which
reads files below the folder PREFIX as torchvision's ImageFolder does. The data set has ALL objects, of which COUNT are
taken, in an order made from SEED (0: of the names). Nothing is decoded: each object's size and first page are checked,
and none may come twice. Listing comes before the clock, but for iterable data sets, which list while they are read.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.clients import OSS2, OUR_MOUNT
from benchmarks.programs.library import identity
from benchmarks.programs.torch_client import Meter, arguments, module_of, report

BATCH = 64


def look_at(name: str, body: bytes) -> tuple[int, int]:
    """(number of the object, its size), the number being -1 when it holds other bytes than it should."""
    right = int.from_bytes(body[:8], "little") == identity(name) << 32
    return (int(name) if right else -1), len(body)


def transform(item: Any) -> tuple[int, int]:
    return look_at(item.key.rpartition("/")[2], item.read())


class Oss2DataSet(Dataset[tuple[int, int]]):
    """The guide's, without its two mistakes and its decoding."""

    def __init__(self, endpoint: str, bucket: str, keys: list[str]) -> None:
        import oss2  # noqa: PLC0415

        given = json.loads(sys.stdin.read())
        auth = oss2.Auth(given["AccessKeyId"], given["AccessKeySecret"])
        self._bucket = oss2.Bucket(auth, endpoint, bucket)
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> tuple[int, int]:
        key = self._keys[index]
        return look_at(key.rpartition("/")[2], self._bucket.get_object(key).read())


class Folder(Dataset[tuple[int, int]]):
    """The files of a folder, listed once."""

    def __init__(self, root: str) -> None:
        self._paths = sorted(entry.path for entry in os.scandir(root) if entry.is_file())

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[int, int]:
        path = self._paths[index]
        with open(path, "rb") as file:
            return look_at(os.path.basename(path), file.read())


def data_set(client: str, kind: str, endpoint: str, bucket: str, prefix: str, everything: int, directory: str) -> Any:
    if client == OUR_MOUNT:
        return Folder(prefix)
    if client == OSS2:
        return Oss2DataSet(endpoint, bucket, [f"{prefix}{number:06d}" for number in range(everything)])
    module = module_of(client)
    chosen = module.OssIterableDataset if kind == "iterable" else module.OssMapDataset
    return chosen.from_prefix(f"oss://{bucket}/{prefix}", transform=transform, **arguments(endpoint, directory))


def order(everything: int, count: int, seed: int) -> list[int]:
    if not seed:
        return list(range(count))
    return torch.randperm(everything, generator=torch.Generator().manual_seed(seed))[:count].tolist()


def main() -> None:
    client, endpoint, bucket, kind, prefix = sys.argv[1:6]
    everything, count, size, workers, seed = map(int, sys.argv[6:11])
    with tempfile.TemporaryDirectory() as directory:
        before = time.monotonic()
        made = data_set(client, kind, endpoint, bucket, prefix, everything, directory)
        listing = time.monotonic() - before
        mapped = not isinstance(made, torch.utils.data.IterableDataset)
        found = len(made) if mapped else everything
        loader: DataLoader[Any] = DataLoader(
            made,
            batch_size=min(BATCH, count),
            num_workers=workers,
            sampler=order(everything, count, seed) if mapped else None,
            multiprocessing_context="fork" if workers else None,
        )
        meter = Meter()
        numbers: list[int] = []
        wrong = total = 0
        first = 0.0
        batches = iter(loader)
        for batch in batches:
            first = first or time.monotonic() - before - listing
            wrong += int((batch[0] < 0).sum()) + int((batch[1] != size).sum())
            numbers += batch[0].tolist()
            total += int(batch[1].sum())
            if len(numbers) >= count:
                break
        meter.stop()
        del batches  # waits for the workers
        error = f"the data set has {found} objects instead of {everything}" if found != everything else ""
        if len(set(numbers)) != len(numbers) or len(numbers) < count:
            error = f"{len(numbers)} items with {len(set(numbers))} different ones instead of {count}"
        report(
            seconds=meter.seconds,
            bytes=total,
            operations=len(numbers),
            listing_seconds=listing,
            median=first,
            wrong=wrong,
            error=error,
            cpu=meter.cpu,
        )


if __name__ == "__main__":
    main()
