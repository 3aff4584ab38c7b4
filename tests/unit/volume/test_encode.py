import dataclasses
import enum
import json
import types
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import ProtocolError
from csi.volume.encode import decode_spec, encode_spec, spec_hash
from csi.volume.spec import Location, Mode, VolumeSpec

PLAIN = VolumeSpec(Location("bkt", "https://oss-cn-hangzhou.aliyuncs.com"))


def strategy(kind: typing.Any) -> st.SearchStrategy:
    """Values of any field of a spec, whether a parser would make them or not."""
    kind = getattr(kind, "__supertype__", kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{item.name: strategy(hints[item.name]) for item in dataclasses.fields(kind)})
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return st.one_of(st.none() if part is types.NoneType else strategy(part) for part in typing.get_args(kind))
    if issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    if kind is bool:
        return st.booleans()
    if kind is float:
        return st.floats(min_value=-1e15, max_value=1e15)
    return st.integers() if kind is int else st.text(max_size=20)


@given(strategy(VolumeSpec))
def test_a_spec_comes_back_as_it_went(spec: VolumeSpec) -> None:
    assert decode_spec(encode_spec(spec)) == spec
    assert spec_hash(decode_spec(encode_spec(spec))) == spec_hash(spec)


@given(strategy(VolumeSpec), strategy(VolumeSpec))
def test_two_specs_have_one_hash_only_if_they_are_equal(one: VolumeSpec, other: VolumeSpec) -> None:
    assert (spec_hash(one) == spec_hash(other)) == (one == other)


def test_a_volume_without_what_is_new_is_what_an_earlier_release_encoded() -> None:
    encoded = json.loads(encode_spec(PLAIN))["spec"]
    assert "cache" not in encoded
    assert "md5" not in encoded["write"]
    assert spec_hash(PLAIN) == "d2733f387988be97"


def test_a_hash_is_16_hexadecimal_digits_and_the_same_in_every_process() -> None:
    assert len(spec_hash(PLAIN)) == 16
    assert int(spec_hash(PLAIN), 16) >= 0
    assert spec_hash(PLAIN) == spec_hash(decode_spec(json.dumps(json.loads(encode_spec(PLAIN)), indent=4)))


def changed(path: str, value: object) -> str:
    document = json.loads(encode_spec(PLAIN))
    *groups, last = path.split(".")
    inner = document
    for group in groups:
        inner = inner[group]
    inner[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("version", True),
        ("extra", 1),
        ("spec", []),
        ("spec.mode", "quick"),
        ("spec.mode", None),
        ("spec.extra", 1),
        ("spec.read.threads", "16"),
        ("spec.read.threads", 16.0),
        ("spec.read.threads", True),
        ("spec.read.threads", None),
        ("spec.read.extra", 1),
        ("spec.http.timeout", "30"),
        ("spec.http.timeout", True),
        ("spec.http.timeout", 10**400),
        ("spec.write.append", 1),
        ("spec.write.flush_interval", "x"),
        ("spec.location.bucket", 5),
        ("spec.credentials", None),
    ],
)
def test_what_is_not_a_spec_of_this_version_is_refused(path: str, value: object) -> None:
    with pytest.raises(ProtocolError, match="volume spec"):
        decode_spec(changed(path, value))


@pytest.mark.parametrize("path", ["version", "spec", "spec.mode", "spec.read.threads", "spec.location"])
def test_a_missing_field_is_not_a_default(path: str) -> None:
    document = json.loads(encode_spec(PLAIN))
    *groups, last = path.split(".")
    inner = document
    for group in groups:
        inner = inner[group]
    del inner[last]
    with pytest.raises(ProtocolError, match="volume spec"):
        decode_spec(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"version":1,"spec":NaN}'])
def test_what_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="volume spec"):
        decode_spec(text)


def test_the_mode_survives_by_name() -> None:
    spec = dataclasses.replace(PLAIN, mode=Mode.READONLY)
    assert json.loads(encode_spec(spec))["spec"]["mode"] == "readonly"
