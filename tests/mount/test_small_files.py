"""Small files that the kernel session reads by itself: which bytes come, by how many requests, whatever else happens.

The listing has told of the files; what another client does is done with oss2, past the mount.
"""

from __future__ import annotations

import concurrent.futures
import os

from tests.mount.conftest import MountVolume
from tests.support.volumes import MountedVolume

SIZE = 100 * 1024


def content(number: int) -> bytes:
    return bytes([number % 251]) * (SIZE - 8) + number.to_bytes(8, "big")


def filled(mount_volume: MountVolume, count: int = 40, **options: object) -> MountedVolume:
    volume = mount_volume(**options)
    for number in range(count):
        volume.put(f"d/{number:04}", content(number))
    assert len(os.listdir(volume.path / "d")) == count
    return volume


def test_each_listed_file_is_fetched_once(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda number: (volume.path / f"d/{number:04}").read_bytes(), range(40)))
    assert read == [content(number) for number in range(40)]
    assert [volume.gets(f"d/{number:04}") for number in range(40)] == [1] * 40
