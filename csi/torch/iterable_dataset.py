"""OssIterableDataset: objects of OSS one after another, each to exactly one worker of one rank, in an order that can be
asked for again.

The order follows from seed and epoch alone, so that a state is little more than a position: loading it goes on with the
very next sample. Objects below a prefix are listed once, where the data set is made; a manifest is read as a stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.utils.data

from csi.errors import InvalidOption, StateMismatch
from csi.torch import order
from csi.torch.archives import TarSamples
from csi.torch.catalogue import Entry
from csi.torch.connection import Connection
from csi.torch.dataset import OssDataset
from csi.torch.delivery import SKIPPED, Transform, identity
from csi.torch.order import Share, Shuffling
from csi.torch.pipeline import stream
from csi.torch.sources import Manifest
from csi.torch.workers import rank_of_this_process, row_of_this_process, worker_of_this_process


class OssIterableDataset(OssDataset, torch.utils.data.IterableDataset):  # type: ignore[misc] # torch is not typed here
    """Made by `from_prefix`, `from_objects`, `from_manifest_file` or `from_tar`.

    `shuffle` mixes runs of `shuffle_chunk_size` samples and draws from a buffer of as many, by `seed` and the epoch
    (`set_epoch`, which workers notice too). `rank` of `world_size` says which share is this process's; left out, they
    are those of `torch.distributed` if it is initialised. `on_error` "skip" leaves objects out that cannot be read;
    `statistics()` counts them. `state_dict` and `load_state_dict` are for torchdata's StatefulDataLoader.
    """

    def __init__(
        self,
        source: Sequence[Entry] | Manifest,
        connection: Connection,
        *,
        transform: Transform = identity,
        on_error: str = "raise",
        shuffle: bool = False,
        shuffle_chunk_size: int = 1000,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if shuffle_chunk_size < 1:
            raise InvalidOption("shuffle_chunk_size", shuffle_chunk_size, "1 or more")
        super().__init__(source, connection, transform=transform, on_error=on_error)
        self._shuffling = Shuffling(seed, shuffle_chunk_size, shuffle_chunk_size) if shuffle else None
        self._run = shuffle_chunk_size
        self._given_rank = _checked(rank, world_size)
        self._rank: tuple[int, int] | None = None  # of the process that started this worker
        self._epoch: int | None = None  # of the iteration that was begun last, once that is certain
        self._position = 0
        self._resumed: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        # A state is for this iterator, also if nobody asks it for a sample: torchdata does not when the state was taken
        # at the end of an epoch, and has another iterator made for the next one.
        state, self._resumed = self._resumed, None
        self._epoch, self._position = (int(state["epoch"]), int(state["position"])) if state is not None else (None, 0)
        return self._samples(self._epoch, self._position)

    def _samples(self, epoch: int | None, start: int) -> Iterator[Any]:
        """`epoch` None is the one that is set when the first sample is asked for."""
        delivery, row = self._delivery, row_of_this_process()
        goes_on = epoch is not None
        if epoch is None:
            epoch = delivery.tally.epoch
        entries = self._entries(self._share(), epoch)
        self._epoch, self._position = epoch, start
        for slot in stream(delivery.fetcher(), islice(entries, start, None)):
            if goes_on:  # not with an epoch of which nothing is left: the next one may have been set already
                delivery.tally.epoch, goes_on = epoch, False
            self._position += 1
            given = delivery.give(slot, row)
            if given is not SKIPPED:
                yield given

    def set_epoch(self, epoch: int) -> None:
        """Another order from the next iteration on, in workers too."""
        self._delivery.tally.epoch = int(epoch)

    def shuffle(self, generator: torch.Generator | None = None) -> None:
        """Shuffle from the next iteration on, by a seed drawn from `generator` (None: that of torch)."""
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
        self._shuffling = Shuffling(seed, self._run, self._run)

    def state_dict(self) -> dict[str, Any]:
        """Where this process is: `load_state_dict` in a process with the same share goes on from there."""
        if self._resumed is not None:
            return dict(self._resumed)
        epoch = self._epoch if self._epoch is not None else self._delivery.tally.epoch
        return {"epoch": epoch, "position": self._position} | self._order()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the sample that was given last when `state` was taken, at the next iteration.

        Raises StateMismatch for a state of another data set, or of one shuffled or shared out in another way.
        """
        for name, ours in self._order().items():
            if name not in state or state[name] != ours:
                raise StateMismatch(
                    f"the state to be loaded has {name} {state.get(name)!r}, this data set has {ours!r}",
                    hint="go on with the same objects, seed, ranks and num_workers as when the state was saved",
                )
        self._resumed = dict(state)

    def __getstate__(self) -> dict[str, object]:
        # a worker that is not forked does not know the group
        return self.__dict__ | {"_rank": self._group()}

    @classmethod
    def _source_of(cls, manifest: Manifest, connection: Connection) -> Manifest:
        return manifest

    def _order(self) -> dict[str, int | None]:
        """What the order of this process's samples follows from, beside the epoch."""
        share, shuffling = self._share(), self._shuffling
        return {
            "samples": len(self._source) if not isinstance(self._source, Manifest) else None,
            "seed": shuffling.seed if shuffling is not None else None,
            "run": shuffling.run if shuffling is not None else None,
            "consumers": share.count,
            "ranks": share.ranks,
            "consumer": share.number,
        }

    def _entries(self, share: Share, epoch: int) -> Iterator[Entry]:
        source = self._source
        if isinstance(source, Manifest):
            return order.dealt(source.stream(self._delivery.connection), share, self._shuffling, epoch)
        block = source.neighbours if isinstance(source, TarSamples) else 1
        return map(source.__getitem__, order.numbers(len(source), share, self._shuffling, epoch, block=block))

    def _share(self) -> Share:
        rank, ranks = self._group() or (0, 1)
        worker, workers = worker_of_this_process()
        return Share(worker * ranks + rank, ranks * workers, ranks)

    def _group(self) -> tuple[int, int] | None:
        return self._given_rank or self._rank or rank_of_this_process()


def _checked(rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise InvalidOption("rank", (rank, world_size), "rank and world_size together, 0 <= rank < world_size")
    return rank, world_size
