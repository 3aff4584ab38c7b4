"""PyTorch on the same data engine, without a mount: data sets and checkpoints.

    from csi.torch import OssMapDataset, OssIterableDataset, OssCheckpoint

What needs PyTorch is loaded when it is first named, so that the rest of the room works without it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from csi.errors import ExtraMissing
from csi.oss.credentials import AnonymousCredentials

__all__ = ["AnonymousCredentials"]

_HOMES: Final[dict[str, str]] = {}
_NEED_TORCH: Final = frozenset({"csi.torch.datasets", "csi.torch.checkpoint", "csi.torch.distributed"})


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home in _NEED_TORCH and find_spec("torch") is None:
        raise ExtraMissing(f"csi.torch.{name} needs PyTorch", hint="pip install 'ossfuse-csi[torch]'")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
