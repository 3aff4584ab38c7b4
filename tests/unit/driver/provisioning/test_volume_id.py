from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.driver.provisioning.volume_id import LONGEST_ID, VolumeId, make_volume_id, parse_volume_id
from csi.errors import InvalidOption

ENDPOINTS = [
    "https://oss-cn-hangzhou.aliyuncs.com",
    "https://oss-cn-shenzhen-finance-1-internal.aliyuncs.com",
    "http://oss-cn-hangzhou.aliyuncs.com",
    "http://127.0.0.1:18080",
    "https://oss.example.com:9000",
    "https://oss-single-label",
    "https://oss-cn-hangzhou.aliyuncs.com.evil.example",
    "http://[::1]:80",
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_id_tells_where_the_volume_is(endpoint):
    made = make_volume_id("pvc-1", endpoint=endpoint, bucket="training-data")

    assert parse_volume_id(str(made)) == made


@pytest.mark.parametrize("signer", [1, 4])
@pytest.mark.parametrize("region", ["", "cn-hangzhou"])
@pytest.mark.parametrize("path_style", [False, True])
def test_an_id_keeps_what_the_endpoint_does_not_tell(signer, region, path_style):
    made = make_volume_id(
        "pvc-1", endpoint="https://a.example", bucket="data", region=region, signer=signer, path_style=path_style
    )

    assert parse_volume_id(str(made)) == made


def test_the_same_name_gives_the_same_id():
    first = make_volume_id("pvc-1", endpoint=ENDPOINTS[0], bucket="data")

    assert first == make_volume_id("pvc-1", endpoint=ENDPOINTS[0], bucket="data")
    assert str(first) == "oss-cn-hangzhou/data/" + first.digest


@pytest.mark.parametrize(
    ("name", "endpoint", "bucket"),
    [("pvc-2", ENDPOINTS[0], "data"), ("pvc-1", ENDPOINTS[3], "data"), ("pvc-1", ENDPOINTS[0], "data2")],
)
def test_another_name_or_place_gives_another_id(name, endpoint, bucket):
    first = make_volume_id("pvc-1", endpoint=ENDPOINTS[0], bucket="data")

    assert make_volume_id(name, endpoint=endpoint, bucket=bucket).digest != first.digest


def test_the_longest_names_fit_the_size_limit_of_csi():
    made = make_volume_id("n" * 128, endpoint=ENDPOINTS[1], bucket="b" * 63, region="", signer=1)

    assert len(str(made).encode()) <= LONGEST_ID


def test_an_endpoint_that_is_too_long_for_an_id_is_refused_by_name():
    endpoint = f"https://{'a' * 60}.example.com"

    with pytest.raises(InvalidOption, match=r"url: 'https://a+.*volume id of 128 bytes"):
        make_volume_id("pvc-1", endpoint=endpoint, bucket="b" * 63)


@pytest.mark.parametrize(
    "text",
    [
        *("", "fake-vol-id", "fake-vol-id-0123", "a/b/c", "oss-cn-hangzhou/data/", "oss-cn-hangzhou/data/" + "a" * 15),
        *("oss-cn-hangzhou/UPPER/" + "a" * 16, "oss-cn-hangzhou/data/" + "A" * 16, "oss/../" + "a" * 16),
        *("h/data/" + "a" * 16 + "?", "h/data/" + "a" * 16 + "?signer=2", "h/data/" + "a" * 16 + "?signer=4"),
        *("h/data/" + "a" * 16 + "?&signer=1", "https:h.example/data/" + "a" * 16, "http://h/data/" + "a" * 16),
        "x" * 200,
    ],
)
def test_ids_of_other_forms_are_not_ours(text):
    assert parse_volume_id(text) is None


@given(st.text(max_size=140))
def test_any_text_is_an_id_of_ours_or_none(text):
    found = parse_volume_id(text)

    assert found is None or (isinstance(found, VolumeId) and str(found) == text)
