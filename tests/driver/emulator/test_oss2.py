"""Every operation of oss2, Alibaba's first Python SDK, with signature V1 and V4, in path and virtual-host style."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import oss2
import pytest
from fastcrc.crc64 import xz as crc64
from oss2.models import BatchDeleteObjectVersionList, PartInfo, Tagging, TaggingRule

from tests.driver.emulator.conftest import make_bucket, md5
from tests.support.emulator import RunningEmulator

ODD_KEY = "a b/c+d&ü%41=?#'\"(x)~.txt"
PART = 100 * 1024


@pytest.fixture(params=["V1 path", "V4 path", "V1 host", "V4 host"])
def bucket(emulator: RunningEmulator, request: pytest.FixtureRequest, oss_local_names: None) -> oss2.Bucket:
    version, style = request.param.split()
    endpoint = emulator.endpoint if style == "path" else f"http://oss.local:{emulator.port}"
    return make_bucket(emulator, version, endpoint=endpoint)


def test_put_get_and_head_agree_on_bytes_and_metadata(bucket: oss2.Bucket) -> None:
    put = bucket.put_object(ODD_KEY, b"hello", headers={"x-oss-meta-colour": "blue", "Content-Type": "text/x-test"})
    got = bucket.get_object(ODD_KEY)
    head = bucket.head_object(ODD_KEY)

    assert got.read() == b"hello"
    assert put.etag == got.etag == head.etag == md5(b"hello")
    assert put.crc == crc64(b"hello")
    assert int(head.headers["x-oss-hash-crc64ecma"]) == crc64(b"hello")
    assert head.content_type == "text/x-test"
    assert head.content_length == 5
    assert head.object_type == "Normal"
    assert head.headers["x-oss-meta-colour"] == "blue"


def test_put_replaces_the_object_and_its_metadata(bucket: oss2.Bucket) -> None:
    bucket.put_object("k", b"old" * 10_000, headers={"x-oss-meta-a": "1"})
    bucket.put_object("k", b"new")

    assert bucket.get_object("k").read() == b"new"
    assert "x-oss-meta-a" not in bucket.head_object("k").headers


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 300_000, 3_000_000])
def test_bodies_of_every_storage_form_come_back_whole_and_in_ranges(bucket: oss2.Bucket, size: int) -> None:
    data = bytes(i * 7 % 251 for i in range(size))
    bucket.put_object("k", data)

    assert bucket.get_object("k").read() == data
    if size:
        assert bucket.get_object("k", byte_range=(size // 2, size - 1)).read() == data[size // 2 :]
        assert bucket.get_object("k", byte_range=(None, 1)).read() == data[-1:]


def test_forbid_overwrite_refuses_an_existing_key(bucket: oss2.Bucket) -> None:
    bucket.put_object("k", b"first", headers={"x-oss-forbid-overwrite": "true"})

    with pytest.raises(oss2.exceptions.ServerError) as refused:
        bucket.put_object("k", b"second", headers={"x-oss-forbid-overwrite": "true"})

    assert (refused.value.status, refused.value.code) == (409, "FileAlreadyExists")
    assert bucket.get_object("k").read() == b"first"


def test_append_grows_the_object_at_the_known_position_only(bucket: oss2.Bucket) -> None:
    first = bucket.append_object("log", 0, b"abc")
    second = bucket.append_object("log", 3, b"defg", init_crc=first.crc)

    with pytest.raises(oss2.exceptions.PositionNotEqualToLength):
        bucket.append_object("log", 3, b"again")

    assert second.next_position == 7
    assert bucket.get_object("log").read() == b"abcdefg"
    head = bucket.head_object("log")
    assert head.object_type == "Appendable"
    assert head.headers["x-oss-next-append-position"] == "7"
    assert int(head.headers["x-oss-hash-crc64ecma"]) == crc64(b"abcdefg")


def test_append_to_a_normal_object_is_refused(bucket: oss2.Bucket) -> None:
    bucket.put_object("k", b"abc")

    with pytest.raises(oss2.exceptions.ObjectNotAppendable):
        bucket.append_object("k", 3, b"d")


def test_multipart_upload_with_a_copied_part_is_one_object(bucket: oss2.Bucket) -> None:
    bucket.put_object("source", bytes(range(256)) * 1000)
    upload = bucket.init_multipart_upload(ODD_KEY, headers={"x-oss-meta-a": "1"}).upload_id
    parts = [PartInfo(3, bucket.upload_part(ODD_KEY, upload, 3, b"tail").etag)]
    parts.insert(0, PartInfo(1, bucket.upload_part(ODD_KEY, upload, 1, b"x" * PART).etag))
    copied = bucket.upload_part_copy(bucket.bucket_name, "source", (256, 256 + PART - 1), ODD_KEY, upload, 2)
    parts.insert(1, PartInfo(2, copied.etag))

    listed = bucket.list_parts(ODD_KEY, upload).parts
    done = bucket.complete_multipart_upload(ODD_KEY, upload, parts)

    expected = b"x" * PART + (bytes(range(256)) * 1000)[256 : 256 + PART] + b"tail"
    assert [(part.part_number, part.size) for part in listed] == [(1, PART), (2, PART), (3, 4)]
    assert bucket.get_object(ODD_KEY).read() == expected
    assert bucket.get_object(ODD_KEY, byte_range=(PART - 2, 2 * PART + 1)).read() == expected[PART - 2 : 2 * PART + 2]
    head = bucket.head_object(ODD_KEY)
    assert head.etag == done.etag
    assert head.etag.endswith("-3")
    assert head.object_type == "Multipart"
    assert int(head.headers["x-oss-hash-crc64ecma"]) == crc64(expected)
    assert head.headers["x-oss-meta-a"] == "1"
    assert not list(oss2.MultipartUploadIterator(bucket))


def test_an_aborted_upload_is_gone(bucket: oss2.Bucket) -> None:
    upload = bucket.init_multipart_upload("k").upload_id
    bucket.upload_part("k", upload, 1, b"x")
    assert [found.key for found in oss2.MultipartUploadIterator(bucket)] == ["k"]

    bucket.abort_multipart_upload("k", upload)

    assert not list(oss2.MultipartUploadIterator(bucket))
    with pytest.raises(oss2.exceptions.NoSuchUpload):
        bucket.upload_part("k", upload, 2, b"y")


def test_resumable_upload_and_download_use_parts_and_ranges(bucket: oss2.Bucket, tmp_path: Path) -> None:
    data = bytes(i % 253 for i in range(1_000_001))
    (tmp_path / "up").write_bytes(data)
    store: dict[str, Any] = {"store": oss2.ResumableStore(root=str(tmp_path))}

    oss2.resumable_upload(bucket, "k", str(tmp_path / "up"), multipart_threshold=1, part_size=PART, **store)
    download = {"store": oss2.ResumableDownloadStore(root=str(tmp_path))}
    oss2.resumable_download(bucket, "k", str(tmp_path / "down"), multiget_threshold=1, part_size=PART, **download)

    assert (tmp_path / "down").read_bytes() == data


@pytest.mark.parametrize("iterator", [oss2.ObjectIterator, oss2.ObjectIteratorV2])
def test_listing_pages_through_keys_and_groups(bucket: oss2.Bucket, iterator: Any) -> None:
    for key in ("a", "dir/1", "dir/2", "dir/sub/3", ODD_KEY, "z"):
        bucket.put_object(key, key.encode())

    every = [found.key for found in iterator(bucket, max_keys=2)]
    top = [found.key for found in iterator(bucket, delimiter="/", max_keys=2)]
    inside = [found.key for found in iterator(bucket, prefix="dir/", delimiter="/", max_keys=1)]

    assert every == sorted(["a", "dir/1", "dir/2", "dir/sub/3", ODD_KEY, "z"])
    assert top == ["a", "a b/", "dir/", "z"]
    assert inside == ["dir/1", "dir/2", "dir/sub/"]


def test_listing_tells_what_head_tells(bucket: oss2.Bucket) -> None:
    bucket.put_object("k", b"hello")
    head = bucket.head_object("k")

    (found,) = bucket.list_objects_v2().object_list

    assert (found.size, found.etag, found.last_modified) == (5, head.etag, head.last_modified)
    assert (found.type, found.storage_class) == ("Normal", "Standard")


def test_copy_keeps_bytes_and_metadata_or_replaces_metadata(bucket: oss2.Bucket) -> None:
    bucket.put_object(ODD_KEY, b"x" * 10_000, headers={"x-oss-meta-a": "1"})

    bucket.copy_object(bucket.bucket_name, ODD_KEY, "kept")
    replace = {"x-oss-metadata-directive": "REPLACE", "x-oss-meta-b": "2"}
    bucket.copy_object(bucket.bucket_name, ODD_KEY, "replaced", headers=replace)
    bucket.delete_object(ODD_KEY)

    assert bucket.get_object("kept").read() == b"x" * 10_000
    assert bucket.head_object("kept").headers["x-oss-meta-a"] == "1"
    assert "x-oss-meta-a" not in bucket.head_object("replaced").headers
    assert bucket.head_object("replaced").headers["x-oss-meta-b"] == "2"


def test_copy_onto_itself_changes_metadata_only(bucket: oss2.Bucket) -> None:
    bucket.put_object("k", b"x" * 10_000, headers={"x-oss-meta-a": "1"})

    bucket.update_object_meta("k", {"x-oss-meta-b": "2"})

    assert bucket.get_object("k").read() == b"x" * 10_000
    assert bucket.head_object("k").headers["x-oss-meta-b"] == "2"


def test_a_copy_of_an_appendable_object_is_independent_of_it(bucket: oss2.Bucket) -> None:
    bucket.append_object("log", 0, b"abc")
    bucket.copy_object(bucket.bucket_name, "log", "copy")
    bucket.append_object("log", 3, b"def")

    assert bucket.get_object("copy").read() == b"abc"
    assert bucket.head_object("copy").object_type == "Normal"
    assert bucket.get_object("log").read() == b"abcdef"


def test_copy_source_conditions_are_checked(bucket: oss2.Bucket) -> None:
    etag = bucket.put_object("k", b"x").etag

    bucket.copy_object(bucket.bucket_name, "k", "copy", headers={"x-oss-copy-source-if-match": etag})

    with pytest.raises(oss2.exceptions.PreconditionFailed):
        bucket.copy_object(bucket.bucket_name, "k", "other", headers={"x-oss-copy-source-if-match": md5(b"no")})


def test_delete_one_missing_and_many(bucket: oss2.Bucket) -> None:
    keys = ["a", "b & <c>", ODD_KEY]
    for key in keys:
        bucket.put_object(key, b"x" * 5000)

    bucket.delete_object("never there")
    deleted = bucket.batch_delete_objects([*keys, "missing"]).deleted_keys

    assert sorted(deleted) == sorted([*keys, "missing"])
    assert not bucket.list_objects_v2().object_list


def test_batch_delete_accepts_version_lists_only_without_versions(bucket: oss2.Bucket) -> None:
    bucket.put_object("a", b"x")
    wanted = BatchDeleteObjectVersionList([oss2.models.BatchDeleteObjectVersion(key="a")])

    bucket.delete_object_versions(wanted)

    assert not bucket.object_exists("a")


def test_object_exists_and_object_meta(bucket: oss2.Bucket) -> None:
    bucket.put_object("k", b"hello")

    assert bucket.object_exists("k")
    assert not bucket.object_exists("missing")
    assert bucket.get_object_meta("k").content_length == 5


def test_symlinks_are_followed_and_readable(bucket: oss2.Bucket) -> None:
    bucket.put_object(ODD_KEY, b"target")
    bucket.put_symlink(ODD_KEY, "link", headers={"x-oss-meta-a": "1"})
    bucket.put_symlink("nowhere", "broken")

    assert bucket.get_symlink("link").target_key == ODD_KEY
    assert bucket.get_object("link").read() == b"target"
    assert bucket.head_object("link").object_type == "Symlink"
    with pytest.raises(oss2.exceptions.ServerError) as refused:
        bucket.get_object("broken")
    assert refused.value.code == "SymlinkTargetNotExist"


def test_acl_and_tagging(bucket: oss2.Bucket) -> None:
    bucket.put_object("k", b"x", headers={"x-oss-tagging": "a=1"})
    assert bucket.get_object_acl("k").acl == "default"
    assert bucket.get_object_tagging("k").tag_set.tagging_rule == {"a": "1"}

    bucket.put_object_acl("k", oss2.OBJECT_ACL_PUBLIC_READ)
    rule = TaggingRule()
    rule.add("b&", "2<")
    bucket.put_object_tagging("k", Tagging(rule))

    assert bucket.get_object_acl("k").acl == "public-read"
    assert bucket.get_object_tagging("k").tag_set.tagging_rule == {"b&": "2<"}
    assert bucket.head_object("k").headers["x-oss-tagging-count"] == "1"
    bucket.delete_object_tagging("k")
    assert bucket.get_object_tagging("k").tag_set.tagging_rule == {}


def test_restore_of_an_archived_object(bucket: oss2.Bucket) -> None:
    bucket.put_object("k", b"cold", headers={"x-oss-storage-class": "Archive"})
    with pytest.raises(oss2.exceptions.ServerError) as refused:
        bucket.get_object("k")

    bucket.restore_object("k")

    assert (refused.value.status, refused.value.code) == (403, "InvalidObjectState")
    assert bucket.get_object("k").read() == b"cold"
    assert bucket.head_object("k").headers["x-oss-storage-class"] == "Archive"


def test_bucket_information(bucket: oss2.Bucket) -> None:
    bucket.put_object("k", b"hello")

    info = bucket.get_bucket_info()
    stat = bucket.get_bucket_stat()

    assert (info.name, info.location, info.acl.grant) == (bucket.bucket_name, "oss-cn-hangzhou", "private")
    assert bucket.get_bucket_location().location == "oss-cn-hangzhou"
    assert (stat.object_count, stat.storage_size_in_bytes) == (1, 5)


def test_bucket_life(bucket: oss2.Bucket) -> None:
    bucket.put_bucket_acl(oss2.BUCKET_ACL_PUBLIC_READ)
    assert bucket.get_bucket_acl().acl == "public-read"
    bucket.put_object("k", b"x")
    with pytest.raises(oss2.exceptions.BucketNotEmpty):
        bucket.delete_bucket()

    bucket.delete_object("k")
    bucket.delete_bucket()

    with pytest.raises(oss2.exceptions.NoSuchBucket):
        bucket.get_bucket_info()
    bucket.create_bucket()
    assert bucket.get_bucket_acl().acl == "private"


def test_presigned_urls_work_for_anybody_until_they_expire(bucket: oss2.Bucket) -> None:
    upload = bucket.sign_url("PUT", "k &+ü", 60, headers={"Content-Type": "text/plain"}, slash_safe=True)
    request = urllib.request.Request(upload, b"hello", {"Content-Type": "text/plain"}, method="PUT")
    urllib.request.urlopen(request, timeout=20).close()
    override = {"response-content-type": "text/csv"}
    download = bucket.sign_url("GET", "k &+ü", 60, params=override, slash_safe=True)
    expired = bucket.sign_url("GET", "k &+ü", -5, slash_safe=True)

    with urllib.request.urlopen(download, timeout=20) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"hello", "text/csv")
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(expired, timeout=20):
        pass
    assert refused.value.code in (400, 403)
    refused.value.close()


def test_errors_carry_code_request_id_and_message(bucket: oss2.Bucket) -> None:
    with pytest.raises(oss2.exceptions.NoSuchKey) as missing:
        bucket.get_object("missing")

    assert missing.value.status == 404
    assert missing.value.request_id
    assert missing.value.details["Key"] == "missing"


@pytest.mark.parametrize("version", ["V1", "V4"])
def test_a_wrong_secret_is_refused(emulator: RunningEmulator, version: str) -> None:
    bucket = make_bucket(emulator, version, secret="wrong")

    with pytest.raises(oss2.exceptions.SignatureDoesNotMatch):
        bucket.get_object("k")
    with pytest.raises(oss2.exceptions.SignatureDoesNotMatch):
        bucket.put_object("k", b"x")


@pytest.mark.parametrize("version", ["V1", "V4"])
def test_a_url_signed_with_a_wrong_secret_is_refused(emulator: RunningEmulator, version: str) -> None:
    emulator.seed("k", b"x")
    url = make_bucket(emulator, version, secret="wrong").sign_url("GET", "k", 60)

    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(url, timeout=20):
        pass

    assert refused.value.code == 403
    assert b"SignatureDoesNotMatch" in refused.value.read()
    refused.value.close()


def test_an_unknown_access_key_is_refused(emulator: RunningEmulator) -> None:
    auth = oss2.AuthV4("LTAInobody", "secret")
    bucket = oss2.Bucket(auth, emulator.endpoint, emulator.bucket, region="cn-hangzhou")

    with pytest.raises(oss2.exceptions.ServerError) as refused:
        bucket.get_object("k")

    assert (refused.value.status, refused.value.code) == (403, "InvalidAccessKeyId")


@pytest.mark.parametrize("version", [oss2.AUTH_VERSION_1, oss2.AUTH_VERSION_4])
def test_sts_tokens_work_until_they_expire(emulator: RunningEmulator, version: str) -> None:
    token = emulator.issue_token(600)
    auth = oss2.StsAuth(token.access_key_id, token.access_key_secret, token.security_token, version)
    bucket = oss2.Bucket(auth, emulator.endpoint, emulator.bucket, region="cn-hangzhou")

    bucket.put_object("k", b"x")
    url = bucket.sign_url("GET", "k", 60)
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.read() == b"x"
    emulator.expire_tokens()

    with pytest.raises(oss2.exceptions.ServerError) as refused:
        bucket.get_object("k")
    assert (refused.value.status, refused.value.code) == (403, "SecurityTokenExpired")


def test_a_token_of_another_key_is_refused(emulator: RunningEmulator) -> None:
    one, other = emulator.issue_token(), emulator.issue_token()
    auth = oss2.StsAuth(one.access_key_id, one.access_key_secret, other.security_token, oss2.AUTH_VERSION_4)
    bucket = oss2.Bucket(auth, emulator.endpoint, emulator.bucket, region="cn-hangzhou")

    with pytest.raises(oss2.exceptions.ServerError) as refused:
        bucket.get_object("k")

    assert (refused.value.status, refused.value.code) == (403, "InvalidSecurityToken")


def test_service_lists_buckets(emulator: RunningEmulator) -> None:
    auth = oss2.AuthV4(emulator.access_key_id, emulator.access_key_secret)
    service = oss2.Service(auth, emulator.endpoint, region="cn-hangzhou")

    names = [found.name for found in oss2.BucketIterator(service, max_keys=1)]

    assert emulator.bucket in names
    assert names == sorted(names)


def test_anybody_reads_a_public_bucket_but_nobody_writes_it(emulator: RunningEmulator) -> None:
    name = emulator.create_bucket(public=True)
    emulator.seed("k", b"open", bucket=name)
    anonymous = oss2.Bucket(oss2.AnonymousAuth(), emulator.endpoint, name)

    assert anonymous.get_object("k").read() == b"open"
    assert [found.key for found in oss2.ObjectIteratorV2(anonymous)] == ["k"]
    with pytest.raises(oss2.exceptions.AccessDenied):
        anonymous.put_object("k", b"closed")


def test_nobody_reads_a_private_bucket_without_a_key(emulator: RunningEmulator) -> None:
    emulator.seed("k", b"x")
    anonymous = oss2.Bucket(oss2.AnonymousAuth(), emulator.endpoint, emulator.bucket)

    with pytest.raises(oss2.exceptions.AccessDenied):
        anonymous.get_object("k")
    with pytest.raises(oss2.exceptions.AccessDenied):
        anonymous.list_objects_v2()
