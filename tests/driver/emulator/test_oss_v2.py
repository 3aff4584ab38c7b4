"""Every operation of alibabacloud-oss-v2, Alibaba's second Python SDK (signature V4)."""

from __future__ import annotations

import datetime
import urllib.error
import urllib.request
from pathlib import Path

import alibabacloud_oss_v2 as oss
import pytest

from tests.support.emulator import RunningEmulator

ODD_KEY = "a b/c+d&ü%41=?#'\"(x)~.txt"
PART = 100 * 1024


def make_client(
    emulator: RunningEmulator, *, secret: str = "", endpoint: str = "", region: str = "cn-hangzhou"
) -> oss.Client:
    config = oss.config.load_default()
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(
        emulator.access_key_id, secret or emulator.access_key_secret
    )
    config.region = region
    config.endpoint = endpoint or emulator.endpoint
    config.retry_max_attempts = 1
    return oss.Client(config)


@pytest.fixture(params=["path", "host"])
def client(emulator: RunningEmulator, request: pytest.FixtureRequest, oss_local_names: None) -> oss.Client:
    endpoint = emulator.endpoint if request.param == "path" else f"http://oss.local:{emulator.port}"
    return make_client(emulator, endpoint=endpoint)


def put(client: oss.Client, emulator: RunningEmulator, key: str, body: bytes) -> oss.PutObjectResult:
    return client.put_object(oss.PutObjectRequest(bucket=emulator.bucket, key=key, body=body))


def read(client: oss.Client, emulator: RunningEmulator, key: str) -> bytes:
    body = client.get_object(oss.GetObjectRequest(bucket=emulator.bucket, key=key)).body
    assert body is not None
    return bytes(body.read())


def error_of(failure: pytest.ExceptionInfo[oss.exceptions.OperationError]) -> oss.exceptions.ServiceError:
    found = failure.value.unwrap()
    assert isinstance(found, oss.exceptions.ServiceError)
    return found


def test_put_get_head_and_ranges(client: oss.Client, emulator: RunningEmulator) -> None:
    name = emulator.bucket
    client.put_object(oss.PutObjectRequest(bucket=name, key=ODD_KEY, body=b"hello", metadata={"colour": "blue"}))

    ranged = oss.GetObjectRequest(bucket=name, key=ODD_KEY, range_header="bytes=1-9", range_behavior="standard")
    part = client.get_object(ranged)
    head = client.head_object(oss.HeadObjectRequest(bucket=name, key=ODD_KEY))
    meta = client.get_object_meta(oss.GetObjectMetaRequest(bucket=name, key=ODD_KEY))

    assert read(client, emulator, ODD_KEY) == b"hello"
    assert part.body is not None
    assert (part.body.read(), part.content_range) == (b"ello", "bytes 1-4/5")
    assert (head.content_length, head.object_type, head.metadata["colour"]) == (5, "Normal", "blue")
    assert (meta.content_length, meta.etag) == (5, head.etag)


def test_listing_versions_one_and_two(client: oss.Client, emulator: RunningEmulator) -> None:
    for key in ("a", "dir/1", "dir/2", ODD_KEY):
        put(client, emulator, key, key.encode())

    request = oss.ListObjectsV2Request(bucket=emulator.bucket, max_keys=1)
    pages = list(client.list_objects_v2_paginator().iter_page(request))
    grouped = client.list_objects_v2(oss.ListObjectsV2Request(bucket=emulator.bucket, delimiter="/", start_after="a b"))
    first = client.list_objects(oss.ListObjectsRequest(bucket=emulator.bucket, prefix="dir/"))

    assert [found.key for page in pages for found in page.contents or []] == ["a", ODD_KEY, "dir/1", "dir/2"]
    assert [found.prefix for found in grouped.common_prefixes] == ["a b/", "dir/"]
    assert [(found.key, found.size) for found in first.contents] == [("dir/1", 5), ("dir/2", 5)]


def test_multipart_with_part_copy(client: oss.Client, emulator: RunningEmulator) -> None:
    name = emulator.bucket
    put(client, emulator, "source", b"tail of it")
    upload = client.initiate_multipart_upload(oss.InitiateMultipartUploadRequest(bucket=name, key="k")).upload_id
    target = {"bucket": name, "key": "k", "upload_id": upload}
    one = client.upload_part(oss.UploadPartRequest(**target, part_number=1, body=b"x" * PART))
    two = client.upload_part_copy(oss.UploadPartCopyRequest(**target, part_number=2, source_key="source"))
    listed = client.list_parts(oss.ListPartsRequest(**target)).parts
    under_way = client.list_multipart_uploads(oss.ListMultipartUploadsRequest(bucket=name)).uploads
    parts = [oss.UploadPart(part_number=1, etag=one.etag), oss.UploadPart(part_number=2, etag=two.etag)]

    client.complete_multipart_upload(
        oss.CompleteMultipartUploadRequest(**target, complete_multipart_upload=oss.CompleteMultipartUpload(parts=parts))
    )

    assert [(part.part_number, part.size) for part in listed] == [(1, PART), (2, 10)]
    assert [found.key for found in under_way] == ["k"]
    assert read(client, emulator, "k") == b"x" * PART + b"tail of it"


def test_abort_append_copy_and_deletes(client: oss.Client, emulator: RunningEmulator) -> None:
    name = emulator.bucket
    upload = client.initiate_multipart_upload(oss.InitiateMultipartUploadRequest(bucket=name, key="k")).upload_id
    client.abort_multipart_upload(oss.AbortMultipartUploadRequest(bucket=name, key="k", upload_id=upload))
    first = client.append_object(oss.AppendObjectRequest(bucket=name, key="log", position=0, body=b"abc"))
    client.append_object(oss.AppendObjectRequest(bucket=name, key="log", position=first.next_position, body=b"def"))
    client.copy_object(oss.CopyObjectRequest(bucket=name, key=ODD_KEY, source_key="log"))
    assert read(client, emulator, ODD_KEY) == b"abcdef"

    client.delete_object(oss.DeleteObjectRequest(bucket=name, key="log"))
    keys = [oss.DeleteObject(key=ODD_KEY), oss.DeleteObject(key="missing & <more>")]
    deleted = client.delete_multiple_objects(oss.DeleteMultipleObjectsRequest(bucket=name, objects=keys))

    assert sorted(found.key for found in deleted.deleted_objects) == [ODD_KEY, "missing & <more>"]
    assert not client.list_objects_v2(oss.ListObjectsV2Request(bucket=name)).contents


def test_symlink_acl_tagging_restore_and_bucket_facts(client: oss.Client, emulator: RunningEmulator) -> None:
    name = emulator.bucket
    put(client, emulator, "k", b"x")
    client.put_symlink(oss.PutSymlinkRequest(bucket=name, key="link", symlink_target="k"))
    client.put_object_acl(oss.PutObjectAclRequest(bucket=name, key="k", acl="private"))
    tags = oss.Tagging(tag_set=oss.TagSet(tags=[oss.Tag(key="a", value="1")]))
    client.put_object_tagging(oss.PutObjectTaggingRequest(bucket=name, key="k", tagging=tags))
    emulator.seed("cold", b"x", storage_class="ColdArchive")
    restored = client.restore_object(oss.RestoreObjectRequest(bucket=name, key="cold"))

    assert client.get_symlink(oss.GetSymlinkRequest(bucket=name, key="link")).target == "k"
    assert read(client, emulator, "link") == b"x"
    assert client.get_object_acl(oss.GetObjectAclRequest(bucket=name, key="k")).acl == "private"
    found = client.get_object_tagging(oss.GetObjectTaggingRequest(bucket=name, key="k"))
    assert [(tag.key, tag.value) for tag in found.tag_set.tags] == [("a", "1")]
    client.delete_object_tagging(oss.DeleteObjectTaggingRequest(bucket=name, key="k"))
    assert restored.status_code == 202
    assert client.get_bucket_info(oss.GetBucketInfoRequest(bucket=name)).bucket_info.name == name
    assert client.get_bucket_stat(oss.GetBucketStatRequest(bucket=name)).object_count == 3
    assert client.get_bucket_location(oss.GetBucketLocationRequest(bucket=name)).location == "oss-cn-hangzhou"
    assert client.get_bucket_acl(oss.GetBucketAclRequest(bucket=name)).acl == "private"


def test_bucket_life(client: oss.Client, emulator: RunningEmulator) -> None:
    name = emulator.bucket + "-v2"
    assert not client.is_bucket_exist(name)

    client.put_bucket(oss.PutBucketRequest(bucket=name, acl="public-read"))
    assert client.is_bucket_exist(name)
    listed = client.list_buckets(oss.ListBucketsRequest(prefix=name)).buckets
    client.put_bucket_acl(oss.PutBucketAclRequest(bucket=name, acl="private"))
    client.delete_bucket(oss.DeleteBucketRequest(bucket=name))

    assert [found.name for found in listed] == [name]
    assert not client.is_bucket_exist(name)


def test_transfer_helpers_move_a_file_in_parallel_parts(
    client: oss.Client, emulator: RunningEmulator, tmp_path: Path
) -> None:
    data = bytes(i % 253 for i in range(700_001))
    (tmp_path / "up").write_bytes(data)
    name = emulator.bucket

    client.uploader(part_size=PART).upload_file(oss.PutObjectRequest(bucket=name, key="k"), str(tmp_path / "up"))
    client.downloader(part_size=PART).download_file(oss.GetObjectRequest(bucket=name, key="k"), str(tmp_path / "down"))
    client.copier(part_size=PART, multipart_copy_threshold=1).copy(
        oss.CopyObjectRequest(bucket=name, key="copy", source_key="k")
    )

    assert (tmp_path / "down").read_bytes() == data
    assert read(client, emulator, "copy") == data


def test_presigned_url(client: oss.Client, emulator: RunningEmulator) -> None:
    put(client, emulator, ODD_KEY, b"hello")

    signed = client.presign(
        oss.GetObjectRequest(bucket=emulator.bucket, key=ODD_KEY), expires=datetime.timedelta(minutes=1)
    )

    with urllib.request.urlopen(signed.url, timeout=20) as answer:
        assert answer.read() == b"hello"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(signed.url.replace("x-oss-expires=", "x-oss-expires=1"), timeout=20)
    assert refused.value.code == 403
    refused.value.close()


@pytest.mark.parametrize("region", ["cn-hangzhou", "xx-nowhere-7"])
def test_any_region_of_the_scope_verifies(emulator: RunningEmulator, region: str) -> None:
    client = make_client(emulator, region=region)

    put(client, emulator, "k", b"x")

    assert read(client, emulator, "k") == b"x"


def test_additional_signed_headers_are_verified(emulator: RunningEmulator) -> None:
    config = oss.config.load_default()
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(
        emulator.access_key_id, emulator.access_key_secret
    )
    config.region, config.endpoint = "cn-hangzhou", emulator.endpoint
    config.additional_headers = ["host", "range"]
    client = oss.Client(config)
    put(client, emulator, "k", b"hello")

    request = oss.GetObjectRequest(bucket=emulator.bucket, key="k", range_header="bytes=1-2")
    found = client.get_object(request)

    assert found.body is not None
    assert found.body.read() == b"el"


def test_a_wrong_secret_is_refused(emulator: RunningEmulator) -> None:
    client = make_client(emulator, secret="wrong")

    with pytest.raises(oss.exceptions.OperationError) as refused:
        put(client, emulator, "k", b"x")

    assert error_of(refused).code == "SignatureDoesNotMatch"


def test_head_errors_arrive_although_there_is_no_body(emulator: RunningEmulator) -> None:
    client = make_client(emulator)

    with pytest.raises(oss.exceptions.OperationError) as refused:
        client.head_object(oss.HeadObjectRequest(bucket=emulator.bucket, key="missing"))

    assert (error_of(refused).status_code, error_of(refused).code) == (404, "NoSuchKey")
