"""Mounts for this lane: one for a whole module where tests keep to a folder of their own, else one for a test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from csi.handover.kernel import MNT_DETACH, LinuxKernel
from tests.support.emulator import RunningEmulator
from tests.support.volumes import MountedVolume, mounted_volume

MountVolume = Callable[..., MountedVolume]

WRITING_MODES = ("fast", "incremental", "consistent", "custom")
CACHES = ("", "-odirect_io")


VOLUMES = [(mode, cache, "own") for mode in WRITING_MODES for cache in CACHES]
VOLUMES += [("fast", cache, "pyfuse3") for cache in CACHES]


def _name(parameter: tuple[str, str, str]) -> str:
    mode, cache, session = parameter
    return f"{mode}{cache}" if session == "own" else f"{mode}{cache}-{session}"


@pytest.fixture(scope="module", params=VOLUMES, ids=_name)
def writable_volume(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, emulator_process: RunningEmulator
) -> Iterator[MountedVolume]:
    """A mount in each mode that writes, with the page cache and without, for all tests of a module; one mode also over
    the other kernel session."""
    mode, cache, session = request.param
    own = replace(emulator_process, bucket=emulator_process.create_bucket())
    with mounted_volume(tmp_path_factory.mktemp("volume"), own, mode=mode, arguments=cache, session=session) as volume:
        yield volume


@pytest.fixture
def folder(writable_volume: MountedVolume) -> Path:
    """An empty directory in `writable_volume`."""
    made = writable_volume.path / uuid.uuid4().hex[:8]
    made.mkdir()
    return made


@pytest.fixture
def mount_volume(tmp_path: Path, emulator: RunningEmulator) -> Iterator[MountVolume]:
    """Mounts the bucket of this test, as often and in whatever way the test asks; all are gone at its end."""
    with ExitStack() as stack:

        def mount(**options: object) -> MountedVolume:
            return stack.enter_context(mounted_volume(tmp_path, emulator, **options))  # type: ignore[arg-type]

        yield mount


@pytest.fixture(scope="module")
def tmpfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A local file system to compare with."""
    path = tmp_path_factory.mktemp("tmpfs")
    LinuxKernel().mount("tmpfs", str(path), "tmpfs", 0, "size=256m")
    try:
        yield path
    finally:
        LinuxKernel().umount2(str(path), MNT_DETACH)
