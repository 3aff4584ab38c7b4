"""Both official SDKs sign the same random requests as we do."""

import datetime
import re
from unittest import mock
from urllib.parse import quote

import oss2
import oss2.http
import pytest
from alibabacloud_oss_v2.credentials import StaticCredentialsProvider
from alibabacloud_oss_v2.signer.v1 import SignerV1
from alibabacloud_oss_v2.signer.v4 import SignerV4
from alibabacloud_oss_v2.types import HttpRequest, SigningContext
from hypothesis import given, settings
from hypothesis import strategies as st

from csi.oss.credentials import Credentials
from csi.oss.signing import Unsigned, V1Signer, V4Signer, encode_query

NOW = datetime.datetime(2023, 12, 3, 12, 12, 12, tzinfo=datetime.UTC)

text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
tokens = st.sampled_from(["", "CAIS-a-token/with+signs=="])
keys = st.one_of(st.just(""), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
header_values = st.text("abcXYZ019 ;=/+é中", min_size=1, max_size=12).map(str.strip).filter(bool)
headers = st.dictionaries(
    st.sampled_from(["content-type", "content-md5", "x-oss-meta-a", "x-oss-meta-b2", "x-oss-acl", "range", "if-match"]),
    header_values,
    max_size=5,
)
queries = st.dictionaries(
    st.one_of(
        st.sampled_from(["uploads", "uploadId", "partNumber", "append", "position", "delete", "symlink", "acl"]),
        st.sampled_from(["prefix", "list-type", "continuation-token", "start-after", "max-keys"]),
    ),
    st.one_of(st.just(""), text),
    max_size=5,
)
methods = st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE"])


def ours(signer, method, key, query, given_headers, token):
    request = Unsigned(method, "examplebucket", key, list(query.items()), dict(given_headers))
    signer.sign(request, Credentials("LTAIkeyid", "s3cr3tkey", token), NOW.timestamp())
    return request.headers["authorization"]


def by_oss2(auth_class, method, key, query, given_headers, token):
    provider = oss2.credentials.StaticCredentialsProvider("LTAIkeyid", "s3cr3tkey", token)
    request = oss2.http.Request(
        method, "http://x/", params=dict(query), headers=dict(given_headers), region="cn-hangzhou", product="oss"
    )

    class Frozen(datetime.datetime):
        @classmethod
        def utcnow(cls):
            return NOW.replace(tzinfo=None)

    http_date = "Sun, 03 Dec 2023 12:12:12 GMT"
    with mock.patch("oss2.auth.datetime", Frozen), mock.patch("oss2.utils.http_date", return_value=http_date):
        auth_class(provider)._sign_request(request, "examplebucket", key)
    return request.headers["authorization"]


def by_sdk_v2(signer, method, key, query, given_headers, token):
    encoded = "&".join(quote(n, safe="") + (f"={quote(v, safe='')}" if v else "") for n, v in query.items())
    context = SigningContext(
        bucket="examplebucket",
        key=key,
        request=HttpRequest(method, f"http://x/?{encoded}", headers=dict(given_headers)),
        credentials=StaticCredentialsProvider("LTAIkeyid", "s3cr3tkey", token or None).get_credentials(),
        product="oss",
        region="cn-hangzhou",
        signing_time=NOW,
    )
    signer.sign(context)
    return context.request.headers["Authorization"]


def fields(authorization):
    """The parts of a V4 authorization: SDKs put different white space between them."""
    return dict(re.findall(r"(\w+)=([^,\s]+)", authorization))


@given(methods, keys, queries, headers, tokens)
@settings(max_examples=150, deadline=None)
def test_v1_signs_as_oss2(method, key, query, given_headers, token):
    expected = by_oss2(oss2.ProviderAuth, method, key, query, given_headers, token)

    assert ours(V1Signer(), method, key, query, given_headers, token) == expected


@given(methods, keys, queries, headers, tokens)
@settings(max_examples=150, deadline=None)
def test_v4_signs_as_oss2(method, key, query, given_headers, token):
    expected = by_oss2(oss2.ProviderAuthV4, method, key, query, given_headers, token)

    assert fields(ours(V4Signer("cn-hangzhou"), method, key, query, given_headers, token)) == fields(expected)


@given(methods, keys, queries, headers)
@settings(max_examples=150, deadline=None)
def test_v1_signs_as_the_second_sdk(method, key, query, given_headers):
    expected = by_sdk_v2(SignerV1(), method, key, query, given_headers, "")

    assert ours(V1Signer(), method, key, query, given_headers, "") == expected


@given(methods, keys, queries, headers, tokens)
@settings(max_examples=150, deadline=None)
def test_v4_signs_as_the_second_sdk(method, key, query, given_headers, token):
    expected = by_sdk_v2(SignerV4(), method, key, query, given_headers, token)

    assert ours(V4Signer("cn-hangzhou"), method, key, query, given_headers, token) == expected


def test_v4_signs_the_vector_published_with_the_sdks():
    request = Unsigned(
        "PUT",
        "bucket",
        "1234+-/123/1.txt",
        [
            ("param1", "value1"),
            ("+param1", "value3"),
            ("|param1", "value4"),
            ("+param2", ""),
            ("|param2", ""),
            ("param2", ""),
        ],
        {"x-oss-head1": "value", "abc": "value", "zabc": "value", "xyz": "value", "content-type": "text/plain"},
    )

    V4Signer("cn-hangzhou").sign(request, Credentials("ak", "sk"), 1702743657.0)

    assert request.headers["authorization"] == (
        "OSS4-HMAC-SHA256 Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,"
        "Signature=e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe"
    )


def test_v4_makes_a_new_key_when_the_day_or_the_secret_changes():
    signer = V4Signer("cn-hangzhou")
    calls = [("one", 0.0), ("one", 86400.0), ("two", 86400.0), ("one", 0.0)]

    signatures = []
    for secret, now in calls:
        request = Unsigned("GET", "b", "k", [], {})
        signer.sign(request, Credentials("id", secret), now)
        signatures.append(request.headers["authorization"])

    assert signatures[0] == signatures[3]
    assert len(set(signatures)) == 3


@pytest.mark.parametrize("signer", [V1Signer(), V4Signer("r")])
def test_a_key_that_is_not_unicode_can_be_signed(signer):
    request = Unsigned("GET", "b", b"dir/\xff\xfe".decode("utf-8", "surrogateescape"), [], {})

    signer.sign(request, Credentials("id", "secret"), 0.0)

    assert request.headers["authorization"]


@pytest.mark.parametrize("make", [V1Signer, lambda: V4Signer("r")])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "b", "b/c"]),
            st.sampled_from(["k", "c/k", "é"]),
            st.booleans(),
            st.sampled_from(
                [Credentials("id", "secret"), Credentials("id", "other"), Credentials("id", "secret", "t")]
            ),
            st.sampled_from([0.0, 0.9, 1.0, 86_399.5, 86_400.0]),
        ),
        max_size=12,
    )
)
def test_what_is_kept_from_get_to_get_changes_no_signature(make, gets):
    signer = make()
    for bucket, key, ranged, credentials, now in gets:
        new = make().lines_of_get(bucket, key, ranged=ranged, credentials=credentials, now=now)
        assert signer.lines_of_get(bucket, key, ranged=ranged, credentials=credentials, now=now) == new


def test_a_query_is_encoded_once_and_ordered():
    assert encode_query([("uploads", ""), ("prefix", "a b/+%&é"), ("delimiter", "/")]) == (
        "delimiter=%2F&prefix=a%20b%2F%2B%25%26%C3%A9&uploads"
    )
