"""Uploads that a killed process left behind: found and ended by the next one that writes the same object.

A process killed without a last word (SIGKILL, the kernel out of memory, a node gone) cannot end its multipart upload,
whose parts are then kept and paid for. OSS does not tell who began an upload, and another process may be writing the
same object at this moment, so only what has been silent for `QUIET` counts as left behind: no part of it arrived for
that long. A lifecycle rule of the bucket is still the way to be rid of what nobody writes again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Final

from csi.errors import OssFuseError
from csi.oss.store import ObjectStore
from csi.volume.units import ObjectKey, Seconds

_log = logging.getLogger(__name__)

QUIET: Final = Seconds(3600.0)


def end_stale_uploads(store: ObjectStore, key: ObjectKey, now: float, ours: Callable[[], Collection[str]]) -> int:
    """Abort the uploads of `key` that were left behind; returns how many. `ours` are being written by this process, and
    `now` is seconds since the epoch. Never raises: it is a courtesy, for which the right to list uploads may be
    missing."""
    ended = 0
    try:
        for upload in store.pending_uploads(key):
            if not 0 < upload.initiated < now - QUIET or store.newest_part(key, upload.upload_id) > now - QUIET:
                continue
            if upload.upload_id in ours():
                continue
            store.abort_multipart(key, upload.upload_id)
            ended += 1
            _log.warning("upload %s of %s had been left behind and is aborted", upload.upload_id, key)
    except OssFuseError as error:
        _log.info("uploads of %s left behind, if any, stay: %s", key, error)
    return ended
