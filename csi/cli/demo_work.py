"""What the demo does inside the mounted folder, and how it checks every byte of it against the bucket."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from csi.cli.printing import print_table
from csi.errors import OssFuseError
from csi.oss.client import OssClient
from csi.oss.store import ListedObject
from csi.volume.spec import Location
from csi.volume.units import MIB, ObjectKey

_IMAGES: Final = 200
_IMAGE_BYTES: Final = 20_000
_LARGE_BYTES: Final = 64 * MIB
_WRITTEN_BYTES: Final = 24 * MIB
_LARGE: Final = "weights.bin"


class DemoFailed(OssFuseError):
    """A step of the demo did not do what it promises."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The data set that the demo put into the bucket: path below the prefix → SHA-256 of the content."""

    digests: Mapping[str, str]

    @classmethod
    def upload(cls, client: OssClient, location: Location) -> Samples:
        """Make it (the same bytes every time) and put it, with a progress bar on a terminal."""
        source = random.Random(0)
        names = [f"train/class{index % 10}/{index:05d}.jpg" for index in range(_IMAGES)]
        digests = {}
        with click.progressbar([*names, _LARGE], label="upload") as bar:
            for name in bar:
                data = source.randbytes(_LARGE_BYTES if name == _LARGE else _IMAGE_BYTES)
                client.put(ObjectKey(location.prefix + name), [data])
                digests[name] = hashlib.sha256(data).hexdigest()
        size = _IMAGES * _IMAGE_BYTES + _LARGE_BYTES
        click.echo(f"{len(digests)} objects, {size / 1e6:.0f} MB, under oss://{location.bucket}/{location.prefix}")
        return cls(digests)


def list_and_read(folder: Path, samples: Samples) -> None:
    """Walk the folder and read every file of it; raises DemoFailed unless all of it is as it was put."""
    start = time.monotonic()
    found = {
        os.path.relpath(os.path.join(directory, name), folder): os.path.join(directory, name)
        for directory, _, names in os.walk(folder)
        for name in names
    }
    click.echo(f"{len(found)} files found in {time.monotonic() - start:.2f} s")
    if set(found) != set(samples.digests):
        raise DemoFailed(f"the folder shows {len(found)} files, the bucket has {len(samples.digests)}")
    start = time.monotonic()
    for name, digest in samples.digests.items():
        with open(found[name], "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise DemoFailed(f"{name}: the mount does not show the bytes that are in the bucket")
    click.echo(f"all of it read in {time.monotonic() - start:.2f} s, every byte as it was put")


def write_and_check(folder: Path, client: OssClient, prefix: str) -> None:
    """Write, append, rename and remove through the folder; raises DemoFailed unless the bucket shows the same."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    content = random.Random(1).randbytes(_WRITTEN_BYTES)
    temporary = checkpoints / "model.pt.tmp"
    with temporary.open("wb") as file:
        file.write(content)
    temporary.rename(checkpoints / "model.pt")
    log = checkpoints / "train.log"
    log.write_text("epoch 1\n")
    with log.open("a") as file:
        file.write("epoch 2\n")
    (checkpoints / "scratch").write_text("not needed")
    (checkpoints / "scratch").unlink()
    os.rename(folder / "train" / "class0", folder / "train" / "class-zero")

    objects = _objects(client, f"{prefix}checkpoints/")
    wanted = {"": 0, "model.pt": len(content), "train.log": len("epoch 1\nepoch 2\n")}
    if {key.removeprefix(f"{prefix}checkpoints/"): one.size for key, one in objects.items()} != wanted:
        raise DemoFailed(f"the bucket holds {sorted(objects)}, expected {sorted(wanted)} under checkpoints/")
    _compare(client, ObjectKey(f"{prefix}checkpoints/model.pt"), content)
    _compare(client, ObjectKey(f"{prefix}checkpoints/train.log"), b"epoch 1\nepoch 2\n")
    if (checkpoints / "model.pt").read_bytes() != content or log.read_text() != "epoch 1\nepoch 2\n":
        raise DemoFailed("what was written does not come back through the mount")
    moved = _objects(client, f"{prefix}train/class-zero/")
    if not moved or _objects(client, f"{prefix}train/class0/"):
        raise DemoFailed("the renamed directory is not whole in the bucket")
    click.echo(f"directory class0 with {len(moved)} objects renamed; these objects appeared in the bucket:")
    rows = [(one.key, f"{one.size:,}", one.type, one.etag.strip('"')) for one in objects.values()]
    print_table(("KEY", "BYTES", "TYPE", "ETAG"), rows)


def _objects(client: OssClient, prefix: str) -> dict[str, ListedObject]:
    return {one.key: one for page in client.list_all(prefix) for one in page.objects}


def _compare(client: OssClient, key: ObjectKey, content: bytes) -> None:
    target = bytearray(len(content))
    client.read_whole(key, memoryview(target))
    if target != content:
        raise DemoFailed(f"{key}: the bucket does not hold the bytes that were written")
