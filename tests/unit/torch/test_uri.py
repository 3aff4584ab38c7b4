"""Addresses as training code writes them."""

from __future__ import annotations

import pytest

from csi.errors import InvalidOption
from csi.torch.uri import Place, parse_object, parse_prefix


@pytest.mark.parametrize(
    ("text", "place", "key"),
    [
        ("oss://bucket/a/b.jpg", Place("bucket"), "a/b.jpg"),
        ("/bucket/a/b.jpg", Place("bucket"), "a/b.jpg"),
        (
            "oss://bucket.oss-cn-wulanchabu.aliyuncs.com/a",
            Place("bucket", "oss-cn-wulanchabu.aliyuncs.com"),
            "a",
        ),
        ("oss://bucket.oss.local:18080/a", Place("bucket", "oss.local:18080"), "a"),
        ("oss://bucket/a%20b//../c ", Place("bucket"), "a%20b//../c "),
    ],
)
def test_an_address_is_a_bucket_an_endpoint_and_a_verbatim_key(text: str, place: Place, key: str) -> None:
    uri = parse_object(text)
    assert (uri.place, uri.key) == (place, key)


@pytest.mark.parametrize(
    "text", ["bucket/key", "http://bucket/key", "oss://", "oss://B/key", "oss://bucket./key", "//bucket/key", ""]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption):
        parse_object(text)


def test_an_object_needs_a_key_and_a_prefix_does_not() -> None:
    assert parse_prefix("oss://bucket").key == ""
    with pytest.raises(InvalidOption, match="the key is missing"):
        parse_object("oss://bucket/")


def test_a_secret_in_an_address_is_not_repeated() -> None:
    with pytest.raises(InvalidOption) as refused:
        parse_object("oss://id:hunter2@bucket/key")
    assert "hunter2" not in str(refused.value)


def test_a_key_longer_than_oss_allows_is_refused() -> None:
    with pytest.raises(InvalidOption, match="1023"):
        parse_object("oss://bucket/" + "x" * 1024)
