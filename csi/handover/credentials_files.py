"""The credentials of one volume as files for its sidecar, replaced as a whole the way Kubernetes' AtomicWriter does.

`<directory>/<key>` is a symlink to `..data/<key>`, and `..data` a symlink to the current generation; replacing that
one symlink swaps every key at once, so a reader never sees half of a new pair. The directory (0500) and files (0400)
belong to the sidecar's user, live on tmpfs, and nothing else ever carries a secret to the sidecar. Every step goes
through directory descriptors and never follows a link, because the sidecar owns what it could plant there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from csi.errors import CredentialsMissing, MountError

SECRET_KEYS: Final = ("akId", "akSecret", "AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration")
_DATA: Final = "..data"
_NEW_DATA: Final = "..data_new"
_LARGEST: Final = 64 * 1024


class CredentialFiles:
    """Files under `directory`, owned by `uid`:`gid`; `shown` is its name in messages. Not thread-safe: one thread
    publishes one volume."""

    def __init__(self, directory: Path, uid: int, gid: int, *, shown: str = "") -> None:
        self._directory = directory
        self._shown = shown or str(directory)
        self._uid = uid
        self._gid = gid

    def write(self, credentials: Mapping[str, str]) -> bool:
        """Make the files say `credentials` (other keys of a Secret are left out); False when they did already.

        Raises CredentialsMissing for a value no credential can have, MountError when the files cannot be written.
        """
        wanted = {key: _checked(key, credentials[key]) for key in SECRET_KEYS if key in credentials}
        try:
            self._directory.mkdir(mode=0o500, exist_ok=True)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(directory, 0o500)
                os.fchown(directory, self._uid, self._gid)
                if self._current(directory) == wanted:
                    return False
                self._swap(directory, wanted)
            finally:
                os.close(directory)
        except OSError as error:
            raise MountError(
                f"credentials could not be written to {self._shown}: {os.strerror(error.errno or 0)}",
                errno=error.errno or 0,
                hint="check that the directory is writable and its tmpfs is not full",
            ) from error
        return True

    def _swap(self, directory: int, wanted: Mapping[str, bytes]) -> None:
        generation = f"..{secrets.token_hex(8)}"
        os.mkdir(generation, 0o700, dir_fd=directory)
        inside = os.open(generation, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            for key, value in wanted.items():
                self._write_file(inside, key, value)
            os.fchmod(inside, 0o500)
            os.fchown(inside, self._uid, self._gid)
        finally:
            os.close(inside)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_NEW_DATA, dir_fd=directory)
        os.symlink(generation, _NEW_DATA, dir_fd=directory)
        os.rename(_NEW_DATA, _DATA, src_dir_fd=directory, dst_dir_fd=directory)
        for key in wanted:
            with contextlib.suppress(FileExistsError):
                os.symlink(f"{_DATA}/{key}", key, dir_fd=directory)
        for name in os.listdir(directory):
            if name in SECRET_KEYS and name not in wanted:
                os.unlink(name, dir_fd=directory)
            elif name.startswith("..") and name not in (_DATA, generation):
                _remove_generation(directory, name)

    def _write_file(self, directory: int, key: str, value: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(key, flags, 0o400, dir_fd=directory)
        try:
            os.write(descriptor, value)
            os.fchmod(descriptor, 0o400)
            os.fchown(descriptor, self._uid, self._gid)
        finally:
            os.close(descriptor)

    def _current(self, directory: int) -> dict[str, bytes] | None:
        try:
            generation = os.readlink(_DATA, dir_fd=directory)
            if "/" in generation:
                return None
            inside = os.open(generation, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            return None
        try:
            return {name: _read_file(inside, name) for name in os.listdir(inside)}
        except OSError:
            return None
        finally:
            os.close(inside)


def _read_file(directory: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(descriptor, _LARGEST + 1)
    finally:
        os.close(descriptor)


def _remove_generation(directory: int, name: str) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        for file in os.listdir(inside):
            os.unlink(file, dir_fd=inside)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=directory)


def _checked(key: str, value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    if len(data) > _LARGEST:
        raise CredentialsMissing(
            f"{key} in the secret is {len(data)} bytes long", hint=f"no credential is over {_LARGEST} bytes: check it"
        )
    return data
