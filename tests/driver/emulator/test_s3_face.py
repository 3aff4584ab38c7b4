"""The S3 face, by a client we did not write (boto3): the same index and bytes as through OSS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import oss2
import pytest
from botocore import UNSIGNED  # type: ignore[import-untyped]
from botocore.client import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from fastcrc.crc64 import xz as crc64

from tests.driver.emulator.conftest import RawClient, make_bucket
from tests.support.emulator import RunningEmulator, start_emulator

MIB = 1 << 20


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningEmulator]:
    with start_emulator(tmp_path / "data", arguments=("--s3",)) as found:
        yield found


def client_of(running: RunningEmulator, *, signed: bool = False, checksums: str = "when_required") -> Any:
    settings: dict[str, Any] = {"s3": {"addressing_style": "path"}, "request_checksum_calculation": checksums}
    settings |= {"retries": {"max_attempts": 1}}
    if not signed:
        settings["signature_version"] = UNSIGNED
    return boto3.client(
        "s3",
        endpoint_url=running.endpoint,
        region_name="us-east-1",
        aws_access_key_id="anybody",
        aws_secret_access_key="anything",
        config=Config(**settings),
    )


@pytest.fixture
def s3(running: RunningEmulator) -> Any:
    return client_of(running)


def test_what_s3_puts_oss_gets(running: RunningEmulator, s3: Any) -> None:
    s3.put_object(Bucket=running.bucket, Key="d/a b+ü", Body=b"content", Metadata={"colour": "blue"})
    found = make_bucket(running, "V4").get_object("d/a b+ü")
    assert found.read() == b"content"
    assert found.headers["x-oss-meta-colour"] == "blue"


def test_what_oss_puts_s3_gets_by_range_and_with_its_metadata(running: RunningEmulator, s3: Any) -> None:
    make_bucket(running, "V1").put_object("k", b"0123456789", headers={"x-oss-meta-colour": "blue"})
    assert s3.get_object(Bucket=running.bucket, Key="k", Range="bytes=2-4")["Body"].read() == b"234"
    assert s3.head_object(Bucket=running.bucket, Key="k")["Metadata"] == {"colour": "blue"}


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed by anybody"])
def test_everybody_may_do_everything(running: RunningEmulator, signed: bool) -> None:
    s3 = client_of(running, signed=signed)
    s3.put_object(Bucket=running.bucket, Key="k", Body=b"1")
    s3.delete_object(Bucket=running.bucket, Key="k")
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=running.bucket, Key="k")


def test_an_oss_signature_is_still_verified(running: RunningEmulator, s3: Any) -> None:
    wrong = oss2.Bucket(oss2.Auth(running.access_key_id, "not the secret"), running.endpoint, running.bucket)
    with pytest.raises(oss2.exceptions.SignatureDoesNotMatch):
        wrong.put_object("k", b"1")


def test_a_body_in_signed_chunks_with_a_trailing_checksum_arrives_plain(running: RunningEmulator) -> None:
    body = bytes(range(256)) * 1024
    s3 = client_of(running, signed=True, checksums="when_supported")
    s3.put_object(Bucket=running.bucket, Key="k", Body=body)
    assert make_bucket(running, "V4").get_object("k").read() == body


def test_listings_of_both_versions_page_through_a_thousand_keys_at_a_time(running: RunningEmulator, s3: Any) -> None:
    running.seed("p/{n:05d}", count=2500, size=1)
    keys = [f"p/{n:05d}" for n in range(2500)]
    for operation in ("list_objects_v2", "list_objects"):
        pages = list(s3.get_paginator(operation).paginate(Bucket=running.bucket, Prefix="p/"))
        assert [len(page["Contents"]) for page in pages] == [1000, 1000, 500]
        assert [item["Key"] for page in pages for item in page["Contents"]] == keys


def test_a_delimiter_groups_and_a_limit_of_none_is_answered(running: RunningEmulator, s3: Any) -> None:
    running.seed_many([{"key": "a/1"}, {"key": "a/2"}, {"key": "b"}])
    found = s3.list_objects_v2(Bucket=running.bucket, Delimiter="/")
    assert [group["Prefix"] for group in found["CommonPrefixes"]] == ["a/"]
    assert [item["Key"] for item in found["Contents"]] == ["b"]
    s3.list_objects_v2(Bucket=running.bucket, MaxKeys=0)


def test_multipart_and_copy_of_a_part(running: RunningEmulator, s3: Any) -> None:
    part = bytes(range(256)) * (5 * MIB // 256)
    s3.put_object(Bucket=running.bucket, Key="source", Body=part)
    name = {"Bucket": running.bucket, "Key": "whole"}
    upload = s3.create_multipart_upload(**name)["UploadId"]
    first = s3.upload_part(**name, UploadId=upload, PartNumber=1, Body=part)["ETag"]
    copied = s3.upload_part_copy(
        **name,
        UploadId=upload,
        PartNumber=2,
        CopySource={"Bucket": running.bucket, "Key": "source"},
        CopySourceRange="bytes=0-99",
    )["CopyPartResult"]["ETag"]
    parts = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": copied}]
    s3.complete_multipart_upload(**name, UploadId=upload, MultipartUpload={"Parts": parts})
    found = make_bucket(running, "V4").get_object("whole")
    assert crc64(found.read()) == crc64(part + part[:100]) == found.server_crc


def test_copy_and_delete_of_many(running: RunningEmulator, s3: Any) -> None:
    running.seed_many([{"key": "a", "content": "1"}, {"key": "b"}, {"key": "c"}])
    s3.copy_object(Bucket=running.bucket, Key="a2", CopySource={"Bucket": running.bucket, "Key": "a"})
    s3.delete_objects(Bucket=running.bucket, Delete={"Objects": [{"Key": "b"}, {"Key": "c"}]})
    listed = s3.list_objects_v2(Bucket=running.bucket)["Contents"]
    assert [item["Key"] for item in listed] == ["a", "a2"]


def test_the_bucket_is_where_clients_think_it_is(running: RunningEmulator, s3: Any) -> None:
    assert s3.get_bucket_location(Bucket=running.bucket)["LocationConstraint"] is None
    assert (
        s3.head_bucket(Bucket=running.bucket)["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"
    )


def test_without_the_option_an_unsigned_write_is_refused(tmp_path: Path) -> None:
    with start_emulator(tmp_path / "data") as plain, pytest.raises(ClientError, match="AccessDenied"):
        client_of(plain).put_object(Bucket=plain.bucket, Key="k", Body=b"1")


# --- bodies that a server in front left as files ---


@pytest.mark.parametrize("size", [0, 10, 5000, 3 * MIB])
def test_a_body_that_lies_as_a_file_is_taken_over(tmp_path: Path, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    left = tmp_path / "left"
    left.mkdir()
    (left / "1").write_bytes(body)
    with start_emulator(tmp_path / "data", arguments=("--bodies-left", str(left))) as running:
        put = RawClient(running)("PUT", "k", headers={"x-body-file": str(left / "1")})
        (left / "1").unlink()
        found = make_bucket(running, "V4").get_object("k")
        assert (put.status, found.read(), found.server_crc) == (200, body, crc64(body))


def test_a_body_elsewhere_is_refused_and_one_with_another_md5_too(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    (left / "1").write_bytes(bytes(2 * MIB))
    (tmp_path / "secret").write_text("secret")
    with start_emulator(tmp_path / "data", arguments=("--bodies-left", str(left))) as running:
        client = RawClient(running)
        assert client("PUT", "k", headers={"x-body-file": str(left / ".." / "secret")}).code == "InvalidArgument"
        wrong = {"x-body-file": str(left / "1"), "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
        assert client("PUT", "k", headers=wrong).code == "InvalidDigest"
