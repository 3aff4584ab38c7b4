"""Batches of a DataLoader whose workers may be killed, which is told as an error of ours that says what one had last.

    for images, labels in watched(loader):
        ...

PyTorch itself knows only that a worker is gone, and tells it as a RuntimeError with a process number. Which sample the
worker had is in memory that it shared (`tally`). Knows of PyTorch nothing but the words of that error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

from csi.errors import WorkerKilled
from csi.torch.dataset import OssDataset

T = TypeVar("T")

_WORKER: Final = re.compile(r"DataLoader worker \(pid(?:\(s\))? (\d+)")
_SIGNAL: Final = re.compile(r"killed by signal: ([^.]*)\.")
_CODE: Final = re.compile(r"with exit code (-?\d+)")
_WRAPPED: Final = 8

_MEMORY: Final = (
    "usually the kernel ended it because the container had no memory left (`kubectl describe pod` says OOMKilled): "
    "give it more, or lower num_workers, prefetch_factor or datasetConfig.prefetchMB; then go on from the last state"
)
_SHARED: Final = (
    "shared memory is full: mount a larger /dev/shm (an emptyDir with medium Memory), or lower num_workers or "
    "batch_size"
)
_CRASHED: Final = "its code crashed while it had this sample: try the transform on it alone, with num_workers=0"


def watched(loader: Iterable[T]) -> Iterator[T]:
    """What `loader` gives, a DataLoader or torchdata's StatefulDataLoader. Raises WorkerKilled, which is a RuntimeError
    as well, for a worker that was killed or that exited."""
    try:
        yield from loader
    except RuntimeError as error:
        told = _told(error, loader)
        if told is None:
            raise
        raise told from error


def _told(error: RuntimeError, loader: object) -> WorkerKilled | None:
    """None for another error than that of a worker that is gone."""
    text = " ".join(str(each) for each in _chain(error))
    found = _WORKER.search(text)
    if found is None:
        return None
    process = int(found[1])
    made = _data_set(loader)
    sample = made.last_of(process) if made is not None else ""
    signal, code = _SIGNAL.search(text), _CODE.search(text)
    how = f"was killed by signal {signal[1]!r}" if signal else "exited"
    how += f" with code {code[1]}" if code and not signal else ""
    at = f"the last sample it had was {sample}" if sample else "it had not come to a sample"
    return WorkerKilled(
        f"data loading worker {process} {how}; {at}",
        process=process,
        sample=sample,
        signal=signal[1] if signal else "",
        hint=_hint(signal[1] if signal else "", is_code=code is not None),
    )


def _hint(signal: str, *, is_code: bool) -> str:
    if signal.startswith("Bus error"):
        return _SHARED
    if is_code or signal.startswith(("Segmentation fault", "Aborted", "Illegal", "Floating")):
        return _CRASHED
    return _MEMORY


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _data_set(loader: Any) -> OssDataset | None:
    """That of a loader, also below others such as torch.utils.data.Subset."""
    found = loader
    for _ in range(_WRAPPED):
        found = getattr(found, "dataset", None)
        if isinstance(found, OssDataset):
            return found
    return None
