"""OssMapDataset: objects of OSS by their numbers, in the order the sampler asks for them.

The objects are listed once, where the data set is made; workers get the list, however they are started. A batch is
fetched with many requests at a time, and given in order; where the next batches can be known they are fetched too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch.utils.data

from csi.errors import OssFuseError, SamplesUnavailable
from csi.torch.catalogue import Entry
from csi.torch.connection import Connection
from csi.torch.dataset import OssDataset
from csi.torch.delivery import SKIPPED, Transform, identity
from csi.torch.expectation import Expectation
from csi.torch.lookahead import Batch
from csi.torch.pipeline import Lookahead, stream
from csi.torch.slots import Slot
from csi.torch.sources import Manifest
from csi.torch.upcoming import turn
from csi.torch.workers import row_of_this_process


class OssMapDataset(OssDataset, torch.utils.data.Dataset):  # type: ignore[misc] # torch is not typed here
    """Made by `from_prefix`, `from_objects`, `from_manifest_file` or `from_tar`.

    `on_error` "skip" leaves objects out that cannot be read, of a batch as the DataLoader asks for it; `statistics()`
    counts them. An object asked for by itself is always either given or an error.
    """

    _source: Sequence[Entry]

    def __init__(
        self,
        samples: Sequence[Entry],
        connection: Connection,
        *,
        transform: Transform = identity,
        on_error: str = "raise",
    ) -> None:
        super().__init__(samples, connection, transform=transform, on_error=on_error)
        self._here: _Here | None = None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        (slot,) = self._taken([index], None)
        return self._delivery.give(slot, row_of_this_process(), alone=True)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A batch, in the order asked for."""
        following = indices.following if isinstance(indices, Batch) else None
        row = row_of_this_process()
        if not indices:
            return []
        given = []
        last: OssFuseError | None = None
        for slot in self._taken([int(index) for index in indices], following):
            value = self._delivery.give(slot, row)
            if value is SKIPPED:
                last = slot.error
            else:
                given.append(value)
        if not given:
            raise SamplesUnavailable(
                f"none of the {len(indices)} samples of a batch can be read; the last one: {last}",
                hint="a batch needs one sample at least: correct what fails, or make batches larger",
            )
        return given

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_here": None}

    @classmethod
    def _source_of(cls, manifest: Manifest, connection: Connection) -> Sequence[Entry]:
        return manifest.samples(connection)

    def _taken(self, wanted: list[int], following: Sequence[int] | None) -> Iterator[Slot]:
        count = len(self._source)
        for place, index in enumerate(wanted):
            if not -count <= index < count:
                raise IndexError(f"sample {index} of a data set of {count}")
            wanted[place] = index % count
        here = self._here
        if here is None or here.process != os.getpid():
            lookahead = Lookahead(self._delivery.fetcher(), self._source.__getitem__, count)
            here = self._here = _Here(lookahead, Expectation(count, lookahead.most))
        if here.lock.acquire(blocking=False):
            try:
                if following is None and (asking := turn()) is not None:
                    following = here.expectation.after(wanted, asking, self)
                yield from here.lookahead.take(wanted, following)
            finally:
                here.lock.release()
        else:  # several threads ask at once: no order to look ahead in
            yield from stream(self._delivery.fetcher(), map(self._source.__getitem__, wanted))


class _Here:
    """What one process has of a data set. `lock` is held by the thread that follows the order of batches."""

    def __init__(self, lookahead: Lookahead, expectation: Expectation) -> None:
        self.process = os.getpid()
        self.lookahead = lookahead
        self.expectation = expectation
        self.lock = threading.Lock()
