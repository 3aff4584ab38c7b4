"""VolumeSpec as JSON and back, exactly: what travels to the sidecar, and what the hash in the mount's name is of.

`decode_spec(encode_spec(spec)) == spec` for every spec. Decoding is strict, because both ends are ours and may be of
different versions: an unknown, missing or wrongly typed field is a ProtocolError, never a default.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
import types
import typing
from typing import Any

from csi.errors import ProtocolError
from csi.volume.spec import CacheOptions, VolumeSpec

VERSION = 1
_LATER: tuple[tuple[str, str, object], ...] = (("", "cache", CacheOptions()), ("write", "md5", False))
"""Fields that an earlier release does not know, by group, as it behaves without them. Where they are so they are left
out, so that its sidecars understand what they get and the hashes of its mounts stay true."""
_HASH_LENGTH = 16


def encode_spec(spec: VolumeSpec) -> str:
    """The one JSON text of `spec`, with the version of this encoding: sorted keys, no white space, ASCII."""
    fields = _encode(spec)
    for group, name, before in _LATER:
        inner = fields[group] if group else fields
        if inner[name] == _encode(before):
            del inner[name]
    document = {"version": VERSION, "spec": fields}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def decode_spec(text: str) -> VolumeSpec:
    """The inverse of `encode_spec`; raises ProtocolError for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("volume spec: not JSON") from None
    if not isinstance(document, dict) or set(document) != {"version", "spec"}:
        raise ProtocolError("volume spec: expected an object with 'version' and 'spec'")
    if type(document["version"]) is not int or document["version"] != VERSION:
        raise ProtocolError(
            f"volume spec: version {str(document['version'])[:20]!r}, expected {VERSION}",
            hint="use node plugin and sidecar of the same release",
        )
    fields = document["spec"]
    for group, name, before in _LATER:
        inner = fields.get(group) if group and isinstance(fields, dict) else fields
        if isinstance(inner, dict):
            inner.setdefault(name, _encode(before))
    spec = _decode(VolumeSpec, fields, "spec")
    if not isinstance(spec, VolumeSpec):
        raise ProtocolError("volume spec: not a spec")
    return spec


def spec_hash(spec: VolumeSpec) -> str:
    """16 hexadecimal digits that differ when the effective options differ."""
    return hashlib.sha256(encode_spec(spec).encode()).hexdigest()[:_HASH_LENGTH]


def _encode(value: object) -> Any:
    if dataclasses.is_dataclass(value):
        return {item.name: _encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return value.value if isinstance(value, enum.Enum) else value


def _decode(kind: Any, value: object, path: str) -> object:
    kind = getattr(kind, "__supertype__", kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_fields(kind, value, path)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _decode(next(part for part in typing.get_args(kind) if part is not types.NoneType), value, path)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            raise _wrong(path, value, " or ".join(str(member.value) for member in kind)) from None
    if kind is float and type(value) in (int, float):
        number = float(typing.cast(float, value)) if abs(typing.cast(float, value)) < 2**63 else math.inf
        if math.isfinite(number):
            return number
    elif type(value) is kind:
        return value
    raise _wrong(path, value, kind.__name__)


def _decode_fields(kind: type, value: object, path: str) -> object:
    names = {item.name for item in dataclasses.fields(kind)}
    if not isinstance(value, dict):
        raise _wrong(path, value, "object")
    unknown, missing = sorted(map(str, value.keys() - names)), sorted(names - value.keys())
    if unknown or missing:
        raise ProtocolError(f"volume spec: {path} has unknown fields {unknown} and lacks {missing}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _decode(hints[name], value[name], f"{path}.{name}") for name in names})


def _wrong(path: str, value: object, expected: str) -> ProtocolError:
    return ProtocolError(f"volume spec: {path} is {str(value)[:100]!r}, expected {expected}")
