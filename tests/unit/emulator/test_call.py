from __future__ import annotations

import pytest

from csi.emulator.wire.call import address, check_object_name, parse_query, virtual_bucket
from csi.emulator.wire.refusals import Refusal

DOMAINS = ("oss.local", "storage.test")


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("data.oss.local:18080", "data"),
        ("data.OSS.local", "data"),
        ("data.oss.local.", "data"),
        ("data.storage.test", "data"),
        ("data.oss-cn-hangzhou.aliyuncs.com", "data"),
        ("data.oss-cn-hangzhou-internal.aliyuncs.com:80", "data"),
        ("oss.local:18080", ""),
        ("oss-cn-hangzhou.aliyuncs.com", ""),
        ("127.0.0.1:18080", ""),
        ("127.0.0.2", ""),
        ("[::1]:18080", ""),
        ("somewhere.else", ""),
        ("", ""),
    ],
)
def test_the_host_names_a_bucket_only_under_a_known_domain(host: str, bucket: str) -> None:
    assert virtual_bucket(host, DOMAINS) == bucket


@pytest.mark.parametrize(
    ("raw_path", "host", "bucket", "key"),
    [
        ("/data/a/b", "127.0.0.1", "data", "a/b"),
        ("/data/a%2Fb%20c+d", "127.0.0.1", "data", "a/b c+d"),
        ("/data", "127.0.0.1", "data", ""),
        ("/data/", "127.0.0.1", "data", ""),
        ("/data//a/../b/.", "127.0.0.1", "data", "/a/../b/."),
        ("/", "127.0.0.1", "", ""),
        ("/a/b", "data.oss.local", "data", "a/b"),
        ("/", "data.oss.local", "data", ""),
    ],
)
def test_both_styles_end_in_the_same_address(raw_path: str, host: str, bucket: str, key: str) -> None:
    found = address(raw_path, host, DOMAINS)

    assert (found.bucket, found.key) == (bucket, key)


def test_the_query_is_decoded_once_and_keeps_empty_values() -> None:
    assert parse_query("uploads&prefix=a+b%2Bc%252F&marker=&&x=1=2") == [
        ("uploads", ""),
        ("prefix", "a b+c%2F"),
        ("marker", ""),
        ("x", "1=2"),
    ]


@pytest.mark.parametrize("key", ["", "/a", "\\a", "x" * 1024, "ü" * 512])
def test_object_names_that_oss_refuses(key: str) -> None:
    with pytest.raises(Refusal, match="not valid"):
        check_object_name(key)


@pytest.mark.parametrize("key", ["a", "a//", ".", "..", "x" * 1023, " "])
def test_object_names_that_oss_takes(key: str) -> None:
    check_object_name(key)
