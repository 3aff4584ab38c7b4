"""One rank of a process group: what an iterable data set gives it, as a line of JSON.

`python -m tests.torch.rank_program RANK RANKS RENDEZVOUS WORKERS`, the arguments of the data set on standard input.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch.distributed
from torch.utils.data import DataLoader, DistributedSampler

from csi.torch import OssIterableDataset, OssMapDataset


def key_of(item: Any) -> str:
    item.read()
    return str(item.key)


def main() -> None:
    rank, ranks, rendezvous, workers = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    given = json.loads(sys.stdin.read())
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    iterable = OssIterableDataset.from_prefix(transform=key_of, shuffle=True, seed=7, **given)
    mapped = OssMapDataset.from_prefix(transform=key_of, **given)
    epochs = []
    for epoch in range(2):
        iterable.set_epoch(epoch)
        loader = DataLoader(iterable, batch_size=4, num_workers=workers)
        epochs.append([key for batch in loader for key in batch])
    sampler = DistributedSampler(mapped, drop_last=False, shuffle=True, seed=3)
    by_sampler = [
        key for batch in DataLoader(mapped, batch_size=4, num_workers=workers, sampler=sampler) for key in batch
    ]
    print(json.dumps({"epochs": epochs, "sampled": by_sampler}))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
