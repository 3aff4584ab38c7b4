"""Safetensors in a bucket: the header is read, and of the tensors only those, or those parts, that are asked for.

    files = OssSafetensor(endpoint, cred_path=cred_path, config_path=config_path)
    with files.safe_open("oss://bucket/model.safetensors") as model:
        weight = model.get_tensor("layer.0.weight")
        shard = model.get_slice("layer.1.weight")[rank * rows : (rank + 1) * rows]

Names and meanings are those of the library `safetensors`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch

from csi.errors import CheckpointMalformed, InvalidOperation
from csi.torch.boxes import Box, box_of, runs_of
from csi.torch.checkpoint import CheckpointStore, OssFiles
from csi.torch.checkpoint.loading import Loading
from csi.torch.refusals import FileClosed
from csi.torch.tensor_header import Header, TensorEntry, encode_header, read_header
from csi.torch.uri import parse_object
from csi.volume.units import KIB, MIB

_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
_FIRST_READ = 128 * KIB
"""Most headers are shorter; then the header takes one request."""
_CLOSE = 32 * KIB
"""Runs of bytes this near to each other are fetched together."""
_TOGETHER = 32 * MIB


class OssSafetensor(CheckpointStore):
    """Files of tensors by their addresses."""

    def safe_open(self, oss_uri: str, device: str | int = "cpu") -> OssSafeOpen:
        """One version of a file, of which only what is asked for is fetched. Raises CheckpointMalformed, …"""
        return OssSafeOpen(self._files, oss_uri, device, exact=True)

    def load_file(self, oss_uri: str, device: str | int = "cpu") -> dict[str, torch.Tensor]:
        """All tensors."""
        with OssSafeOpen(self._files, oss_uri, device, exact=False) as opened:
            return {name: opened.get_tensor(name) for name in opened.offset_keys()}

    def save_file(
        self, tensors: Mapping[str, torch.Tensor], oss_uri: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write dense, contiguous tensors; the object appears whole or not at all. Raises InvalidOperation."""
        # as the library does: the largest items first, so that everything is aligned to its size
        ordered = sorted(tensors.items(), key=lambda item: (-_saveable(*item).element_size(), item[0]))
        names = {getattr(torch, name): code for code, name in _DTYPES.items() if hasattr(torch, name)}
        entries: dict[str, TensorEntry] = {}
        offset = 0
        for name, tensor in ordered:
            if tensor.dtype not in names:
                raise InvalidOperation(f"tensor {name!r} has type {tensor.dtype}, which safetensors does not know")
            end = offset + tensor.numel() * tensor.element_size()
            entries[name] = TensorEntry(names[tensor.dtype], tuple(tensor.shape), offset, end)
            offset = end
        with self._files.writer(oss_uri) as writer:
            writer.write(encode_header(entries, metadata))
            for _, tensor in ordered:
                here = (
                    tensor.resolve_conj().resolve_neg().cpu()
                )  # what is in memory may be conjugated or negated lazily
                writer.write(_memory(here))
                del here  # not before: the writer reads from its memory


class OssSafeOpen:
    """An open file of tensors, for one thread at a time."""

    def __init__(self, files: OssFiles, oss_uri: str, device: str | int, *, exact: bool) -> None:
        engine = files.engine()
        uri = parse_object(oss_uri)
        version = engine.version_of(uri)
        self._uri = uri
        self._engine = engine  # lives as long as this
        self._device = device
        self._loading: Loading | None = engine.load(uri, version, exact=exact)
        try:
            self._header: Header = read_header(self._fetch, int(version.size), str(uri), first=_FIRST_READ)
        except BaseException:
            self.close()
            raise

    def keys(self) -> list[str]:
        return list(self._header.entries)

    def offset_keys(self) -> list[str]:
        """Names in the order of the bytes, which is the one to read in."""
        return sorted(self._header.entries, key=lambda name: self._header.entries[name].start)

    def metadata(self) -> dict[str, str]:
        return dict(self._header.metadata)

    def get_tensor(self, name: str) -> torch.Tensor:
        """A whole tensor. Raises KeyError when there is none of this name."""
        entry = self._header.entries[name]
        tensor = torch.empty(entry.shape, dtype=self._dtype(name, entry))
        self._fetch(self._header.begin + entry.start, _memory(tensor))
        return self._placed(tensor)

    def get_slice(self, name: str) -> OssSafeSlice:
        """A tensor of which a part will be asked for: `[…]` fetches it."""
        return OssSafeSlice(self, name, self._header.entries[name])

    def close(self) -> None:
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.close()
            self._engine.released()

    def __enter__(self) -> OssSafeOpen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for slices ---

    def fetch_box(self, name: str, entry: TensorEntry, box: Box) -> torch.Tensor:
        """The elements in `box`, close together or not."""
        dtype = self._dtype(name, entry)
        tensor = torch.empty(box.sizes, dtype=dtype)
        target = _memory(tensor)
        begin = self._header.begin + entry.start
        item = tensor.element_size()
        filled = 0
        for group in runs_of(entry.shape, box, item, near=_CLOSE, largest=_TOGETHER):
            if len(group) == 1:
                start, size = group[0]
                self._fetch(begin + start, target[filled : filled + size])
                filled += size
                continue
            first = group[0][0]
            span = memoryview(bytearray(group[-1][0] + group[-1][1] - first))
            self._fetch(begin + first, span)
            for start, size in group:
                target[filled : filled + size] = span[start - first : start - first + size]
                filled += size
        return self._placed(tensor[box.picks] if box.picks else tensor)

    def _fetch(self, offset: int, target: memoryview) -> None:
        if self._loading is None:
            raise FileClosed(f"{self._uri}: I/O operation on closed file")
        if len(target):
            self._loading.read(offset, target)

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self._device == "cpu" else tensor.to(self._device)

    def _dtype(self, name: str, entry: TensorEntry) -> torch.dtype:
        found = getattr(torch, _DTYPES.get(entry.dtype, "-"), None)
        if found is None:
            raise CheckpointMalformed(f"{self._uri}: tensor {name!r} has type {entry.dtype}, which is not known here")
        size = torch.empty(0, dtype=found).element_size()
        for length in entry.shape:
            size *= length
        if size != entry.end - entry.start:
            raise CheckpointMalformed(
                f"{self._uri}: tensor {name!r} of shape {list(entry.shape)} and type {entry.dtype} "
                f"has {entry.end - entry.start} bytes, not {size}"
            )
        return found


class OssSafeSlice:
    """What `get_slice` gives: `slice[0:10, :, 3]`, with integers, slices and `...` as for a tensor."""

    def __init__(self, opened: OssSafeOpen, name: str, entry: TensorEntry) -> None:
        self._opened = opened
        self._name = name
        self._entry = entry

    def get_shape(self) -> list[int]:
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        return self._entry.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        box = box_of(index, self._entry.shape)
        return self._opened.fetch_box(self._name, self._entry, box)


def _saveable(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout != torch.strided:
        raise InvalidOperation(f"tensor {name!r} is sparse", hint="save tensor.to_dense()")
    if not tensor.is_contiguous():
        raise InvalidOperation(f"tensor {name!r} is not contiguous", hint="save tensor.contiguous()")
    return tensor


def _memory(tensor: torch.Tensor) -> memoryview:
    """The bytes of a dense, contiguous tensor on the CPU; `tensor` has to be held meanwhile."""
    size = tensor.numel() * tensor.element_size()
    if not size:
        return memoryview(bytearray())
    return memoryview((ctypes.c_ubyte * size).from_address(tensor.data_ptr())).cast("B")
