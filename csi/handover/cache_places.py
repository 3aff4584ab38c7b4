"""Host directories for disk caches: made by root, used by sidecars that are nobody.

A sidecar cannot make a directory in /var, so whoever publishes its volume does: the path as root's own, with one folder
in it that is the sidecars' alone. Below what the administrator allowed no symbolic link is followed and nothing that
belongs to sidecars is entered, so no cache can lead anywhere else, whatever is written into one. A disk that refuses is
no reason to refuse the volume: the sidecar goes without a cache, and both say so.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from typing import Final

from csi.errors import InvalidOption
from csi.handover.process import SIDECAR_GID, SIDECAR_UID
from csi.volume.caching import EMPTY_DIR, is_allowed, refusal
from csi.volume.naming import CACHE_FOLDER
from csi.volume.spec import CacheOptions

_log = logging.getLogger(__name__)

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW: Final = _DIRECTORY | os.O_NOFOLLOW


class CachePlaces:
    """`allowed`: prefixes of host paths that volumes may name; None: any, because who names them is root. `in_pods`:
    sidecars run in pods, which have an emptyDir where one is asked for."""

    def __init__(
        self, allowed: Sequence[str] | None, *, in_pods: bool, uid: int = SIDECAR_UID, gid: int = SIDECAR_GID
    ) -> None:
        self._allowed = allowed
        self._in_pods = in_pods
        self._uid = uid
        self._gid = gid

    def prepare(self, cache: CacheOptions) -> None:
        """Make what a sidecar needs for `cache`. Raises InvalidOption for a place that it may not have."""
        if cache.place == EMPTY_DIR and not self._in_pods:
            raise InvalidOption.stating(
                "cache",
                f"cache: {EMPTY_DIR} is part of a pod, and this volume is served by a process of the machine",
                hint="name a directory instead, such as cache: /var/cache/ossfuse",
            )
        path = cache.host_path
        if not path:
            return
        prefix = path
        if self._allowed is not None:
            above = [allowed for allowed in self._allowed if is_allowed(path, (allowed,))]
            if not above:
                raise refusal(path, self._allowed)
            prefix = max(above, key=len)
        try:
            self._make(prefix, [part for part in path[len(prefix) :].split("/") if part], path)
        except OSError as error:
            _log.warning("cache: %s cannot be prepared, its volume goes without: %s", path, error.strerror)

    def _make(self, prefix: str, below: Sequence[str], path: str) -> None:
        os.makedirs(prefix, 0o755, exist_ok=True)
        directory = os.open(prefix, _DIRECTORY)
        try:
            for part in below:
                inner = self._enter(directory, part, path)
                os.close(directory)
                directory = inner
            if not os.fstat(directory).st_mode & stat.S_IXOTH:
                _log.warning("cache: %s cannot be entered by sidecars: chmod o+x it", path)
            self._make_folder(directory, path)
        finally:
            os.close(directory)

    def _enter(self, directory: int, part: str, path: str) -> int:
        inner = _make_and_open(directory, part, 0o755, path)
        if os.fstat(inner).st_uid == self._uid:
            os.close(inner)
            raise InvalidOption.stating(
                "cache",
                f"cache: {path!r} is inside a directory of another volume's cache",
                hint="use a path of its own",
            )
        return inner

    def _make_folder(self, directory: int, path: str) -> None:
        folder = _make_and_open(directory, CACHE_FOLDER, 0o700, path)
        try:
            owner = os.fstat(folder).st_uid
            if owner not in (os.geteuid(), self._uid):
                raise InvalidOption.stating(
                    "cache",
                    f"cache: {CACHE_FOLDER} in {path!r} belongs to user {owner}, not to sidecars ({self._uid})",
                    hint="remove it, or use another path",
                )
            if owner != self._uid:
                os.fchown(folder, self._uid, self._gid)
        finally:
            os.close(folder)


def _make_and_open(directory: int, part: str, mode: int, path: str) -> int:
    """A descriptor of the directory `part` of `directory`, which is made if it is not there."""
    try:
        os.mkdir(part, mode, dir_fd=directory)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(part, dir_fd=directory, follow_symlinks=False).st_mode):
            raise InvalidOption.stating(
                "cache",
                f"cache: {part!r} in {path!r} is a symbolic link or a file",
                hint="caches follow no links below what the administrator allows; name the directory itself",
            ) from None
    return os.open(part, _BELOW, dir_fd=directory)
