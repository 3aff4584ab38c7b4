"""From a sample on its way to what the training code gets: transform, failures, counting. The same for all data sets.

A failure to fetch is raised by the sample's `read`, inside the transform, which may deal with it; without a transform
it is raised by the data set. A data set told to skip leaves out what fails for a reason that lies in the one object.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Final

from csi.errors import (
    ChecksumMismatch,
    InvalidOption,
    ObjectArchived,
    ObjectNotFound,
    OssFuseError,
    PermissionDenied,
    PreconditionFailed,
    RangeNotSatisfiable,
    RequestRejected,
)
from csi.torch.connection import Connection
from csi.torch.fetching import Fetcher
from csi.torch.samples import OssObject
from csi.torch.slots import Slot
from csi.torch.tally import DatasetStatistics, Tally

_log = logging.getLogger(__name__)

Transform = Callable[[OssObject], Any]

SKIPPED: Final = object()
"""Instead of a sample that is left out."""

_OF_ONE_OBJECT: Final = (
    ObjectNotFound,
    ObjectArchived,
    PermissionDenied,
    PreconditionFailed,
    ChecksumMismatch,
    RangeNotSatisfiable,
    RequestRejected,
)
"""What may be skipped. A bucket, a key pair or a network that does not work concerns all samples, and ends training."""


def identity(sample: OssObject) -> OssObject:
    """The transform of who wants the object itself."""
    return sample


class Delivery:
    """Pickles; has a fetcher in each process that asks for one."""

    def __init__(self, connection: Connection, transform: Transform | None, on_error: str) -> None:
        if on_error not in ("raise", "skip"):
            raise InvalidOption("on_error", on_error, "'raise' or 'skip'")
        self.connection = connection
        self.tally = Tally()
        self._transform = transform if transform is not None else identity
        self._skips = on_error == "skip"
        self._fetcher: Fetcher | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_fetcher": None}

    def fetcher(self) -> Fetcher:
        """That of this process."""
        fetcher = self._fetcher
        if fetcher is None or fetcher.process != os.getpid():
            fetcher = self._fetcher = Fetcher(self.connection)
        return fetcher

    def give(self, slot: Slot, row: int, *, alone: bool = False) -> Any:
        """What the training code gets for a sample that was fetched, or SKIPPED, unless it was asked for `alone`.

        `row` is that of the process in the tally.
        """
        error = slot.error
        skips = self._skips and not alone
        if error is not None and (skips or self._transform is identity):
            if not (skips and self._may_skip(error, slot, row)):
                raise error
            return SKIPPED
        fetched = slot.fetched
        sample = OssObject(slot.entry, self.fetcher(), fetched, error)
        if row:
            self.tally.note(row, f"oss://{slot.entry.place.bucket}/{slot.entry.key}")
        try:
            if self._transform is identity and fetched is not None and fetched.data is None:
                self.fetcher().confirm(slot.entry, fetched.version)
            given = self._transform(sample)
        except OssFuseError as failure:
            if not (skips and self._may_skip(failure, slot, row)):
                raise
            return SKIPPED
        self.tally.count(row, 1, len(fetched.data) if fetched is not None and fetched.data is not None else 0)
        return given

    def statistics(self) -> DatasetStatistics:
        return self.tally.statistics()

    def _may_skip(self, error: OssFuseError, slot: Slot, row: int) -> bool:
        if not isinstance(error, _OF_ONE_OBJECT):
            return False
        self.tally.skip(row)
        _log.warning("skipped /%s/%s: %s", slot.entry.place.bucket, slot.entry.key, error)
        return True
