"""Where in a training job this process is: which worker of a DataLoader, which rank of a distributed group."""

from __future__ import annotations

import torch.distributed
import torch.utils.data


def worker_of_this_process() -> tuple[int, int]:
    """The number of this data loading worker, and how many there are; 0 of 1 in the process that trains."""
    info = torch.utils.data.get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def row_of_this_process() -> int:
    """Where this process counts in a `Tally`."""
    info = torch.utils.data.get_worker_info()
    return 0 if info is None else info.id + 1


def rank_of_this_process() -> tuple[int, int] | None:
    """The rank of this process and the size of its group, None without `torch.distributed`."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return None
