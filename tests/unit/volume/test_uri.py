import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import InvalidOption, UnsupportedVolume
from csi.volume.spec import Location
from csi.volume.uri import locate, normalise_prefix, parse_bucket, parse_endpoint, parse_region

HANGZHOU = "https://oss-cn-hangzhou.aliyuncs.com"


@pytest.mark.parametrize(
    ("given_parts", "expected"),
    [
        (
            {"uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com/a/b/"},
            Location("bkt", HANGZHOU, "a/b/", "cn-hangzhou"),
        ),
        (
            {"uri": "OSS://bkt.OSS-CN-Hangzhou-internal.aliyuncs.com"},
            Location("bkt", "https://oss-cn-hangzhou-internal.aliyuncs.com", "", "cn-hangzhou"),
        ),
        (
            {"uri": "oss://bkt/a", "endpoint": "oss-cn-hangzhou.aliyuncs.com"},
            Location("bkt", HANGZHOU, "a/", "cn-hangzhou"),
        ),
        ({"bucket": "bkt", "endpoint": HANGZHOU, "path": "/a/b"}, Location("bkt", HANGZHOU, "a/b/", "cn-hangzhou")),
        ({"bucket": "bkt", "endpoint": HANGZHOU, "path": "/"}, Location("bkt", HANGZHOU, "", "cn-hangzhou")),
        (
            {
                "uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com/a",
                "endpoint": "http://oss-cn-hangzhou.aliyuncs.com",
                "bucket": "bkt",
            },
            Location("bkt", "http://oss-cn-hangzhou.aliyuncs.com", "a/", "cn-hangzhou"),
        ),
        (
            {"bucket": "bkt", "endpoint": "http://127.0.0.1:18080"},
            Location("bkt", "http://127.0.0.1:18080", path_style=True),
        ),
        ({"uri": "oss://bkt.127.0.0.1:18080/x"}, Location("bkt", "https://127.0.0.1:18080", "x/", path_style=True)),
        ({"bucket": "bkt", "endpoint": "http://localhost:80/"}, Location("bkt", "http://localhost", path_style=True)),
        ({"bucket": "bkt", "endpoint": "http://[::1]:8080"}, Location("bkt", "http://[::1]:8080", path_style=True)),
        ({"bucket": "bkt", "endpoint": "https://data.example.com:443"}, Location("bkt", "https://data.example.com")),
        (
            {"bucket": "bkt", "endpoint": "data.example.com", "region": "cn-beijing", "path_style": True},
            Location("bkt", "https://data.example.com", "", "cn-beijing", True),
        ),
        ({"uri": "oss://bkt/50%25/ü?#", "endpoint": HANGZHOU}, Location("bkt", HANGZHOU, "50%25/ü?#/", "cn-hangzhou")),
    ],
)
def test_every_spelling_leads_to_the_one_location(given_parts: dict, expected: Location) -> None:
    assert locate(**given_parts) == expected


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"),
        ("oss-cn-hangzhou-internal.aliyuncs.com", "cn-hangzhou"),
        ("vpc100-oss-cn-beijing.aliyuncs.com", "cn-beijing"),
        ("oss-cn-shanghai-finance-1.aliyuncs.com", "cn-shanghai-finance-1"),
        ("oss-us-west-1-internal.aliyuncs.com", "us-west-1"),
        ("cn-hangzhou-internal.oss-data-acc.aliyuncs.com", "cn-hangzhou"),
        ("oss-accelerate.aliyuncs.com", ""),
        ("oss-accelerate-overseas.aliyuncs.com", ""),
        ("data.example.com", ""),
    ],
)
def test_the_region_is_read_from_the_endpoint(host: str, region: str) -> None:
    assert parse_endpoint(host).region == region


@pytest.mark.parametrize(
    ("given_parts", "named"),
    [
        ({}, "no bucket"),
        ({"bucket": "bkt"}, "no endpoint"),
        ({"uri": "oss://bkt/a"}, "no endpoint"),
        ({"uri": "s3://bkt/a"}, "s3://bkt/a"),
        ({"uri": "bkt/a"}, "uri"),
        ({"uri": "oss:///a"}, "bucket name"),
        ({"uri": "oss://bkt./a"}, "uri"),
        ({"uri": "oss://Bkt.oss-cn-hangzhou.aliyuncs.com/"}, "did you mean bkt"),
        ({"uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com//a"}, "path"),
        ({"uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com/a/../b"}, "path"),
        ({"uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com/a/./b"}, "path"),
        ({"uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com/", "bucket": "other"}, "other"),
        ({"uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com/a", "path": "b"}, "'b/'"),
        ({"uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com/", "endpoint": "oss-cn-beijing.aliyuncs.com"}, "beijing"),
        ({"bucket": "bkt", "endpoint": "https://bkt.oss-cn-hangzhou.aliyuncs.com"}, "leave the bucket out"),
        ({"bucket": "bkt", "endpoint": "ftp://x.com"}, "ftp"),
        ({"bucket": "bkt", "endpoint": "https://x.com/path"}, "x.com/path"),
        ({"bucket": "bkt", "endpoint": "https://x.com:0"}, ":0"),
        ({"bucket": "bkt", "endpoint": "https://x.com:65536"}, "65536"),
        ({"bucket": "bkt", "endpoint": "https://x.com:"}, "x.com:"),
        ({"bucket": "bkt", "endpoint": "999.1.1.1"}, "999"),
        ({"bucket": "bkt", "endpoint": "https://-x.com"}, "-x"),
        ({"bucket": "bkt", "endpoint": HANGZHOU, "path": "a\0b"}, "path"),
        ({"bucket": "bkt", "endpoint": HANGZHOU, "path": "a" * 1023}, "1024 bytes"),
        ({"bucket": "bkt", "endpoint": HANGZHOU, "path": "\udc80"}, "path"),
    ],
)
def test_what_could_address_other_data_is_refused_by_name(given_parts: dict, named: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        locate(**given_parts)
    assert named in str(refusal.value)


@pytest.mark.parametrize(
    "given_parts",
    [
        {"uri": "oss://bkt.cn-hangzhou.oss-dls.aliyuncs.com/"},
        {"uri": "oss://bkt/", "endpoint": "cn-hangzhou.oss-dls.aliyuncs.com"},
        {"uri": "oss://bkt/", "endpoint": "https://CN-hangzhou.oss-dls.aliyuncs.com:443"},
    ],
)
def test_oss_hdfs_is_refused_with_the_reason(given_parts: dict) -> None:
    with pytest.raises(UnsupportedVolume, match="OSS-HDFS, which speaks a protocol of its own that only JindoSDK"):
        locate(**given_parts)


@pytest.mark.parametrize(
    "given_parts",
    [
        {"uri": "oss://LTAI-id:hunter2@bkt/a"},
        {"uri": "s3://LTAI-id:hunter2@bkt/a"},
        {"bucket": "bkt", "endpoint": "https://LTAI-id:hunter2@oss-cn-hangzhou.aliyuncs.com"},
        {"bucket": "bkt", "endpoint": "ftp://LTAI-id:hunter2@oss-cn-hangzhou.aliyuncs.com"},
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(given_parts: dict) -> None:
    with pytest.raises(InvalidOption) as refusal:
        locate(**given_parts)
    assert "hunter2" not in f"{refusal.value} {refusal.value!r} {refusal.value.value}"
    assert "LTAI" not in str(refusal.value)


@pytest.mark.parametrize("name", ["ab", "a" * 64, "-abc", "abc-", "a_b", "a.b", "ABC", "", "bücket"])
def test_bucket_names_follow_the_rules_of_oss(name: str) -> None:
    with pytest.raises(InvalidOption, match="3 to 63"):
        parse_bucket(name)


@pytest.mark.parametrize("text", ["oss-cn-hangzhou", "cn-hangzhou-internal", "CN-hangzhou", "cn_hangzhou", "-", "a--b"])
def test_a_region_is_an_id(text: str) -> None:
    with pytest.raises(InvalidOption, match="region"):
        parse_region(text)


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=40))
def test_any_text_is_a_location_or_refused(uri: str, endpoint: str, path: str) -> None:
    for first in (uri, f"oss://{uri}", f"oss://bkt.{uri}"):
        with contextlib.suppress(InvalidOption, UnsupportedVolume):
            locate(uri=first, endpoint=endpoint, path=path)


@given(
    st.lists(st.text(alphabet="ab.é ", min_size=1, max_size=5).filter(lambda name: name not in (".", "..")), max_size=5)
)
def test_a_normal_prefix_stays_as_it_is(segments: list[str]) -> None:
    prefix = "".join(f"{segment}/" for segment in segments)
    assert normalise_prefix("path", prefix) == prefix
    assert normalise_prefix("path", f"/{prefix}") == prefix
    assert normalise_prefix("path", prefix.removesuffix("/")) == prefix
