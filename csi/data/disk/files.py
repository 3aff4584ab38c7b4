"""The system calls of the disk cache, in one place so that tests can make them fail.

Every path is relative to a directory's descriptor and no symbolic link is followed: the directory may be shared with
others, and must not lead elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OWN_FILE = 0o600
_OWN_DIRECTORY = 0o700


class Files:
    """All of these raise OSError."""

    def open_directory(self, path: str) -> int:
        return os.open(path, _DIRECTORY)

    def own_directory(self, root: int, path: str) -> int:
        """A descriptor of the directory `path`, which is made if it is not there."""
        self.make_directory(root, path)
        return os.open(path, _DIRECTORY | os.O_NOFOLLOW, dir_fd=root)

    def make_directory(self, root: int, path: str) -> None:
        try:
            os.mkdir(path, _OWN_DIRECTORY, dir_fd=root)
        except FileExistsError:
            return

    def open(self, root: int, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, _OWN_FILE, dir_fd=root)

    def open_direct(self, root: int, path: str, flags: int) -> int | None:
        """The same, past the kernel's page cache; None where the file system does not have that."""
        try:
            return self.open(root, path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None

    def read_nothing_else(self, descriptor: int) -> None:
        """Ask the kernel to read no further than it is told from now on."""
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def read(self, descriptor: int, targets: Sequence[memoryview | bytearray], offset: int) -> int:
        return os.preadv(descriptor, targets, offset)

    def write(self, descriptor: int, parts: Sequence[memoryview | bytes], offset: int) -> None:
        """All of `parts`."""
        left = [part for part in parts if len(part)]
        while left:
            done = os.pwritev(descriptor, left, offset)
            offset += done
            while left and done >= len(left[0]):
                done -= len(left.pop(0))
            if done:
                left[0] = left[0][done:]

    def extend(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def status(self, descriptor: int) -> os.stat_result:
        return os.fstat(descriptor)

    def used_now(self, descriptor: int, when: float) -> None:
        os.utime(descriptor, (when, when))

    def link(self, root: int, before: str, after: str) -> bool:
        """Give the file `before` the name `after` as well; False: something has that name."""
        try:
            os.link(before, after, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
        except FileExistsError:
            return False
        return True

    def remove(self, root: int, path: str) -> bool:
        """False: it was not there."""
        try:
            os.unlink(path, dir_fd=root)
        except FileNotFoundError:
            return False
        return True

    def entries(self, root: int, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """Name and status of what is in the directory `path` while it is looked at; none when there is no such
        directory."""
        try:
            directory = os.open(path, _DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
        except FileNotFoundError:
            return
        try:
            with os.scandir(directory) as found:
                for entry in found:
                    try:
                        yield entry.name, entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
        finally:
            os.close(directory)

    def lock(self, descriptor: int, *, alone: bool, wait: bool) -> bool:
        """flock(2), which other processes see and which ends with this one; False: others have it."""
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        try:
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
