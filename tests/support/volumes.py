"""Volumes of the emulator mounted for tests, the whole way of a byte: kernel, csi/fuse, csi/fs, csi/data, csi/oss."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import oss2

from csi.volume.naming import SESSIONS
from tests.support.emulator import RunningEmulator
from tests.support.mounts import ServedMount, served_mount


@dataclass
class MountedVolume:
    """A bucket as a folder: `path` is the mount, `emulator.bucket` what is behind it, `prefix` where in it."""

    served: ServedMount
    emulator: RunningEmulator
    prefix: str
    session: str

    @property
    def path(self) -> Path:
        return self.served.path

    def put(self, name: str, data: bytes) -> None:
        """Another client (oss2) writes the object that the mount shows as `name`."""
        self._bucket().put_object(self.prefix + name, data)

    def get(self, name: str) -> bytes:
        """What another client (oss2) reads from the object that the mount shows as `name`."""
        return bytes(self._bucket().get_object(self.prefix + name).read())

    def stored_names(self) -> set[str]:
        """Keys below the prefix, without it, as another client lists them."""
        found = oss2.ObjectIteratorV2(self._bucket(), prefix=self.prefix)
        return {entry.key.removeprefix(self.prefix) for entry in found}

    def modified(self, name: str) -> int:
        """Last-Modified of the object, seconds since the epoch."""
        return int(self._bucket().head_object(self.prefix + name).last_modified)

    def uploads(self) -> list[str]:
        """Keys of multipart uploads that were begun and neither completed nor aborted."""
        return [upload.key for upload in oss2.MultipartUploadIterator(self._bucket())]

    def _bucket(self) -> oss2.Bucket:
        auth = oss2.Auth(self.emulator.access_key_id, self.emulator.access_key_secret)
        return oss2.Bucket(auth, self.emulator.endpoint, self.emulator.bucket, is_path_style=True)

    def gets(self, name: str) -> int:
        return len(self.emulator.requests("GetObject", self.prefix + name))


@contextlib.contextmanager
def mounted_volume(
    directory: Path,
    emulator: RunningEmulator,
    *,
    mode: str = "fast",
    arguments: str = "",
    prefix: str = "data/",
    read_only: bool = False,
    attributes: dict[str, str] | None = None,
    session: str = SESSIONS[0],
) -> Iterator[MountedVolume]:
    """Mount `prefix` of the emulator's bucket. `arguments` are `fs.jindo.args`, `attributes` anything else."""
    home = directory / uuid.uuid4().hex[:8]
    secret = home / "secret"
    secret.mkdir(parents=True)
    (secret / "akId").write_text(emulator.access_key_id)
    (secret / "akSecret").write_text(emulator.access_key_secret)
    given = {"bucket": emulator.bucket, "url": emulator.endpoint, "path": f"/{prefix}", "mode": mode}
    if arguments:
        given["fs.jindo.args"] = arguments
    given.update(attributes or {})
    volume = home / "volume.json"
    volume.write_text(json.dumps({"attributes": given, "read_only": read_only}))
    command = ["tests.support.volume_server", "--volume", str(volume), "--credentials", str(secret)]
    command += ["--session", session]
    kernel_read_only = read_only or mode == "readonly"
    with served_mount(home, command, read_only=kernel_read_only, tuning=True) as served:
        yield MountedVolume(served, emulator, prefix, session)
