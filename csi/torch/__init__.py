"""PyTorch on the same data engine, without a mount: data sets and checkpoints.

    from csi.torch import OssMapDataset, OssIterableDataset, OssCheckpoint

What needs PyTorch is loaded when it is first named, so that the rest of the room works without it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from csi.errors import ExtraMissing
from csi.oss.credentials import AnonymousCredentials

if TYPE_CHECKING:
    from csi.torch.archiving import generate_tar_archive
    from csi.torch.checkpoint import OssCheckpoint
    from csi.torch.distributed import OssDCPFileSystem
    from csi.torch.iterable_dataset import OssIterableDataset
    from csi.torch.lookahead import LookAhead
    from csi.torch.manifests import imagenet_manifest_parser
    from csi.torch.map_dataset import OssMapDataset
    from csi.torch.safetensor import OssSafetensor
    from csi.torch.samples import OssObject
    from csi.torch.watching import watched

__all__ = [
    "AnonymousCredentials",
    "LookAhead",
    "OssCheckpoint",
    "OssDCPFileSystem",
    "OssIterableDataset",
    "OssMapDataset",
    "OssObject",
    "OssSafetensor",
    "generate_tar_archive",
    "imagenet_manifest_parser",
    "watched",
]

_HOMES: Final = {
    "LookAhead": "csi.torch.lookahead",
    "OssCheckpoint": "csi.torch.checkpoint",
    "OssDCPFileSystem": "csi.torch.distributed",
    "OssIterableDataset": "csi.torch.iterable_dataset",
    "OssMapDataset": "csi.torch.map_dataset",
    "OssObject": "csi.torch.samples",
    "OssSafetensor": "csi.torch.safetensor",
    "generate_tar_archive": "csi.torch.archiving",
    "imagenet_manifest_parser": "csi.torch.manifests",
    "watched": "csi.torch.watching",
}
_NEED_TORCH: Final = frozenset(
    {"csi.torch.distributed", "csi.torch.iterable_dataset", "csi.torch.map_dataset", "csi.torch.safetensor"}
)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home in _NEED_TORCH and find_spec("torch") is None:
        raise ExtraMissing(
            f"csi.torch.{name} needs PyTorch", hint="pip install '.[torch]' in a checkout of ossfuse-csi"
        )
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
