"""Signature V4 against the vectors published in Alibaba's own SDKs (Go, Java, PHP, Swift use the same ones)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from multidict import CIMultiDict

from csi.emulator.identity.signatures import Verifier
from csi.emulator.wire.call import Call
from csi.emulator.wire.refusals import Refusal


class OneKey:
    """Knows the key of the vectors."""

    def secret(self, access_key_id: str, security_token: str) -> str:
        assert (access_key_id, security_token) in (("ak", ""), ("ak", "token"))
        return "sk"


class NoBody:
    length = 0

    async def read(self) -> bytes:
        return b""


@dataclass(frozen=True)
class Vector:
    time: int
    date: str
    parameters: str
    token: str = ""


VECTORS = {
    "plain": Vector(
        1702743657,
        "20231216T162057Z",
        "Signature=e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe",
    ),
    "token": Vector(
        1702784856,
        "20231217T034736Z",
        "Signature=b94a3f999cf85bcdc00d332fbd3734ba03e48382c36fa4d5af5df817395bd9ea",
        "token",
    ),
    "additional headers": Vector(
        1702747512,
        "20231216T172512Z",
        "AdditionalHeaders=abc;zabc,Signature=4a4183c187c07c8947db7620deb0a6b38d9fbdd34187b6dbaccb316fa251212f",
    ),
}


def call_of(vector: Vector, **changed: str) -> Call:
    scope = f"{vector.date[:8]}/cn-hangzhou/oss/aliyun_v4_request"
    headers = CIMultiDict(
        {
            "x-oss-head1": "value",
            "abc": "value",
            "ZAbc": "value",
            "XYZ": "value",
            "content-type": "text/plain",
            "x-oss-content-sha256": "UNSIGNED-PAYLOAD",
            "x-oss-date": vector.date,
            "Authorization": f"OSS4-HMAC-SHA256 Credential=ak/{scope},{vector.parameters}",
        }
    )
    if vector.token:
        headers["x-oss-security-token"] = vector.token
    headers.update({name.replace("_", "-"): value for name, value in changed.items()})
    pairs = [
        ("param1", "value1"),
        ("+param1", "value3"),
        ("|param1", "value4"),
        ("+param2", ""),
        ("|param2", ""),
        ("param2", ""),
    ]
    return Call("PUT", "", "bucket", "1234+-/123/1.txt", dict(pairs), pairs, headers, NoBody())


def verifier_at(time: float) -> Verifier:
    return Verifier(OneKey(), lambda: time)  # type: ignore[arg-type]  # only `secret` is used


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors_verify(name: str) -> None:
    vector = VECTORS[name]

    assert verifier_at(vector.time).caller(call_of(vector)) == "ak"


@pytest.mark.parametrize("header", ["x_oss_head1", "content_type", "x_oss_extra", "abc"])
def test_a_changed_signed_header_does_not_verify(header: str) -> None:
    vector = VECTORS["additional headers"]

    with pytest.raises(Refusal) as refused:
        verifier_at(vector.time).caller(call_of(vector, **{header: "changed"}))

    assert refused.value.code == "SignatureDoesNotMatch"


def test_an_unsigned_header_may_change() -> None:
    vector = VECTORS["plain"]

    assert verifier_at(vector.time).caller(call_of(vector, abc="changed")) == "ak"


@pytest.mark.parametrize("seconds", [-901, 901])
def test_fifteen_minutes_of_skew_are_the_limit(seconds: int) -> None:
    vector = VECTORS["plain"]

    with pytest.raises(Refusal) as refused:
        verifier_at(vector.time + seconds).caller(call_of(vector))

    assert refused.value.code == "RequestTimeTooSkewed"
    assert verifier_at(vector.time + seconds // 901 * 899).caller(call_of(vector)) == "ak"


def test_a_refusal_shows_what_was_signed_but_no_token() -> None:
    vector = VECTORS["token"]

    with pytest.raises(Refusal) as refused:
        verifier_at(vector.time).caller(call_of(vector, content_type="changed"))

    assert "x-oss-head1:value" in refused.value.fields["CanonicalRequest"]
    assert "x-oss-security-token:***" in refused.value.fields["CanonicalRequest"]


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("AWS4-HMAC-SHA256 Credential=ak", "InvalidArgument"),
        ("OSS4-HMAC-SHA256 Credential=ak/20231216/r/s3/aliyun_v4_request,Signature=0", "InvalidArgument"),
        ("OSS4-HMAC-SHA256 nonsense", "InvalidArgument"),
    ],
)
def test_a_malformed_authorization_is_said_so(authorization: str, code: str) -> None:
    vector = VECTORS["plain"]

    with pytest.raises(Refusal) as refused:
        verifier_at(vector.time).caller(call_of(vector, Authorization=authorization))

    assert refused.value.code == code
