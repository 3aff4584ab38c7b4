"""Every operation of the client against the emulator, which verifies every signature."""

import os
import threading

import pytest

from csi import errors
from csi.oss import multipart
from csi.oss.checksum import combine, crc64_of
from csi.oss.credentials import AnonymousCredentials, Credentials, StaticCredentials
from csi.oss.requests import Call
from csi.volume.spec import HttpOptions, WriteOptions

ODD_KEYS = [
    "plain",
    "dir/ with?query#and%25 a+b=c&é中文\U0001f600",
    "x//y/./../z",
    "line\nbreak\r\ttab",
    "control\x01\x7f",
    "a&b<c>\"d'e]]>",
    "~*()!'$,;:@",
    "trailing/",
    " leading and trailing ",
    "back\\slash",
    "%2F%00",
    "k" * 1023,
]


def read(client, key):
    target = memoryview(bytearray(1 << 20))
    metadata, size = client.read_whole(key, target)
    return bytes(target[:size]), metadata


@pytest.mark.parametrize("signature_version", [1, 4])
@pytest.mark.parametrize("key", ODD_KEYS, ids=range(len(ODD_KEYS)))
def test_a_key_of_any_characters_makes_the_whole_round(make_client, key, signature_version):
    client = make_client(http=HttpOptions(signature_version=signature_version))

    put = client.put(key, [b"hello", b"", memoryview(b" world")], user={"Colour": "bl\xe9u"}, content_type="text/x-y")

    content, metadata = read(client, key)
    assert content == b"hello world"
    assert (metadata.etag, metadata.crc64) == (put.etag, put.crc64)
    assert (metadata.user, metadata.content_type) == ({"colour": "bléu"}, "text/x-y")
    assert client.head(key) == metadata
    listed = client.list_page(key).objects
    assert [(o.key, o.size, o.etag, o.modified) for o in listed] == [(key, 11, put.etag, metadata.modified)]
    client.copy(key, "copy/of" + key[:1000], size=11, if_match=put.etag)
    assert read(client, "copy/of" + key[:1000])[0] == b"hello world"
    assert client.delete_many([key]) == []
    with pytest.raises(errors.ObjectNotFound):
        client.head(key)


def test_as_many_metadata_as_fit_in_8_kib_make_the_whole_round(client):
    user = {f"name-{number}": "v" for number in range(500)}

    client.put("k", [b"x"], user=user)

    assert client.head("k").user == user
    assert read(client, "k")[1].user == user


def test_a_key_that_is_not_unicode_is_refused_by_name(client):
    with pytest.raises(errors.RequestRejected, match="InvalidObjectName"):
        client.put(b"\xff\xfe".decode("utf-8", "surrogateescape"), [b"x"])


def test_a_range_lands_where_it_should(client):
    content = os.urandom(300_000)
    etag = client.put("k", [content]).etag
    target = memoryview(bytearray(100_000))

    metadata = client.read_into("k", 150_000, target, if_match=etag)

    assert bytes(target) == content[150_000:250_000]
    assert metadata.size == 300_000


@pytest.mark.parametrize(("offset", "size"), [(0, 11), (5, 6), (10, 1), (10, 100)])
def test_a_range_past_the_end_is_refused(client, offset, size):
    client.put("k", [b"0123456789"])

    with pytest.raises(errors.RangeNotSatisfiable):
        client.read_into("k", offset, memoryview(bytearray(size)))


def test_no_bytes_of_an_object_may_be_asked_for(client):
    client.put("k", [b"0123456789"])

    assert client.read_into("k", 10, memoryview(b"")).size == 10


def test_an_empty_object_is_read_whole(client):
    client.put("k", [])

    assert read(client, "k")[0] == b""


def test_an_object_larger_than_the_buffer_is_refused(client):
    client.put("k", [bytes(100_000)])

    with pytest.raises(errors.RangeNotSatisfiable, match="100000"):
        client.read_whole("k", memoryview(bytearray(99_999)))


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 100_000])
def test_the_start_of_an_object_of_any_size_is_one_request_and_tells_its_size(client, emulator, size):
    content = os.urandom(size)
    client.put("k", [content])
    emulator.reset_counters()
    target = memoryview(bytearray(4096))

    metadata, received = client.read_start("k", target)

    assert metadata.size == size
    assert bytes(target[:received]) == content[:4096]
    assert emulator.count("GetObject") == (1 if size else 2)


@pytest.mark.parametrize("whole", [True, False])
def test_a_changed_object_is_not_read_as_the_old_one(client, whole):
    old = client.put("k", [b"old"]).etag
    client.put("k", [b"new"])
    target = memoryview(bytearray(3))

    with pytest.raises(errors.PreconditionFailed):
        client.read_whole("k", target, if_match=old) if whole else client.read_into("k", 0, target, if_match=old)

    assert bytes(target) == bytes(3)


@pytest.mark.parametrize("operation", ["head", "read", "copy", "complete"])
def test_what_is_not_there_is_not_found(client, operation):
    calls = {
        "head": lambda: client.head("absent"),
        "read": lambda: client.read_whole("absent", memoryview(bytearray(1))),
        "copy": lambda: client.copy("absent", "b", size=1),
        "complete": lambda: client.complete_multipart("absent", "0" * 32, [(1, '"E"')]),
    }

    with pytest.raises(errors.ObjectNotFound):
        calls[operation]()


@pytest.mark.parametrize("operation", ["delete", "delete_many", "abort"])
def test_what_is_not_there_is_deleted_already(client, operation):
    calls = {
        "delete": lambda: client.delete("absent"),
        "delete_many": lambda: client.delete_many(["absent", "absent\x01"]),
        "abort": lambda: client.abort_multipart("absent", "0" * 32),
    }

    assert not calls[operation]()


def test_overwriting_can_be_forbidden(client):
    client.put("k", [b"first"], forbid_overwrite=True)

    with pytest.raises(errors.ObjectExists):
        client.put("k", [b"second"], forbid_overwrite=True)

    assert read(client, "k")[0] == b"first"


def test_a_listing_is_split_at_the_delimiter_and_continued(client):
    for key in ["p/a", "p/b/1", "p/b/2", "p/c", "p/d/1", "q"]:
        client.put(key, [b"x"])

    pages = []
    token = ""
    while True:
        page = client.list_page("p/", delimiter="/", token=token, max_keys=1)
        pages.append(([o.key for o in page.objects], list(page.prefixes)))
        token = page.next_token
        if not token:
            break

    assert pages == [(["p/a"], []), ([], ["p/b/"]), (["p/c"], []), ([], ["p/d/"])]


def test_a_long_listing_arrives_in_order_and_complete(client, emulator):
    emulator.seed("d/{n:05d}", b"", count=2500)

    keys = [o.key for page in client.list_all("d/", start_after="d/00009") for o in page.objects]

    assert keys == [f"d/{n:05d}" for n in range(10, 2500)]
    assert emulator.count("ListObjectsV2") + emulator.count("ListObjects") == 3


def test_a_multipart_object_has_the_checksum_of_its_parts(client):
    pieces = [os.urandom(150_000), os.urandom(120_000), b"tail"]
    upload_id = client.initiate_multipart("k", user={"a": "1"}, content_type="text/x-y")

    parts = [client.upload_part("k", upload_id, n, [piece]) for n, piece in enumerate(pieces, start=1)]
    crc = parts[0].crc64
    for part in parts[1:]:
        crc = combine(crc, part.crc64, part.size)
    result = client.complete_multipart("k", upload_id, [(p.number, p.etag) for p in reversed(parts)], crc64=crc)

    content, metadata = read(client, "k")
    assert content == b"".join(pieces)
    assert (metadata.etag, metadata.type, metadata.user) == (result.etag, "Multipart", {"a": "1"})
    assert metadata.content_type == "text/x-y"
    assert result.crc64 == crc == crc64_of(pieces)


def test_parts_are_copied_from_an_object_of_one_version(client):
    source = client.put("source", [bytes(200_000) + b"the end"])
    upload_id = client.initiate_multipart("k")

    first = client.upload_part_copy("k", upload_id, 1, "source", 0, 150_000, if_match=source.etag)
    last = client.upload_part_copy("k", upload_id, 2, "source", 200_000, 7)
    client.complete_multipart("k", upload_id, [(1, first), (2, last)])

    assert read(client, "k")[0] == bytes(150_000) + b"the end"


def test_a_part_is_not_copied_from_another_version(client):
    client.put("source", [bytes(200_000)])
    upload_id = client.initiate_multipart("k")

    with pytest.raises(errors.PreconditionFailed):
        client.upload_part_copy("k", upload_id, 1, "source", 0, 7, if_match='"OTHER"')


def test_appends_follow_each_other(client):
    first = client.append("log", 0, [b"one ", b"two "], content_type="text/x-log")
    second = client.append("log", first.next_position, [b"three"])

    content, metadata = read(client, "log")
    assert content == b"one two three"
    assert second.crc64 == metadata.crc64 == crc64_of([content])
    assert (second.next_position, metadata.next_append_position, metadata.type) == (13, 13, "Appendable")
    assert metadata.content_type == "text/x-log"


def test_an_append_elsewhere_than_the_end_says_where_the_end_is(client):
    client.append("log", 0, [b"12345"])

    with pytest.raises(errors.AppendConflict) as failure:
        client.append("log", 3, [b"x"])

    assert failure.value.next_position == 5


def test_what_was_put_cannot_be_appended_to(client):
    client.put("k", [b"x"])

    with pytest.raises(errors.AppendConflict, match="ObjectNotAppendable"):
        client.append("k", 1, [b"y"])


def test_a_copy_keeps_metadata_unless_new_is_given(client):
    client.put("k", [b"x"], user={"a": "1"}, content_type="text/x-y")

    client.copy("k", "kept", size=1)
    client.copy("k", "replaced", size=1, user={"b": "2"}, content_type="text/x-z")

    kept, replaced = client.head("kept"), client.head("replaced")
    assert (kept.user, kept.content_type) == ({"a": "1"}, "text/x-y")
    assert (replaced.user, replaced.content_type) == ({"b": "2"}, "text/x-z")


def test_a_copy_is_made_of_the_version_that_was_meant(client):
    client.put("k", [b"x"])

    with pytest.raises(errors.PreconditionFailed):
        client.copy("k", "copy", size=1, if_match='"OTHER"')


@pytest.fixture
def large(monkeypatch, emulator):
    """The key and size of an object that is too large for CopyObject, by limits a thousandth of the real ones."""
    monkeypatch.setattr(multipart, "LARGEST_SIMPLE_COPY", 1 << 20)
    monkeypatch.setattr(multipart, "COPY_PART", 256 << 10)
    size = (1 << 20) + 5
    emulator.seed("large", os.urandom(size), user={"a": "1"}, headers={"Content-Type": "text/x-y"})
    return "large", size


def test_a_large_object_is_copied_by_parts(client, emulator, large):
    key, size = large
    source = client.head(key)

    result = client.copy(key, "copy", size=size, if_match=source.etag)

    copied = client.head("copy")
    assert (copied.size, copied.etag, copied.crc64) == (size, result.etag, source.crc64)
    assert (copied.user, copied.content_type) == (source.user, source.content_type)
    assert emulator.count("UploadPartCopy") == 5
    assert emulator.count("CopyObject") == 0


def test_a_large_object_that_changes_while_it_is_copied_is_not_mixed(client, emulator, large):
    key, size = large
    with pytest.raises(errors.PreconditionFailed):
        client.copy(key, "copy", size=size, if_match='"OTHER"')

    with pytest.raises(errors.ObjectNotFound):
        client.head("copy")
    assert emulator.count("AbortMultipartUpload") == 1


def test_a_large_copy_that_fails_leaves_no_upload(client, emulator, large):
    key, size = large
    emulator.fault(operation="UploadPartCopy", status=403, code="AccessDenied", skip=2)

    with pytest.raises(errors.PermissionDenied):
        client.copy(key, "copy", size=size)

    assert emulator.count("AbortMultipartUpload") == 1


@pytest.mark.parametrize("target", ["../up/é file", "/absolute", "plain", "with%20percent", "a\nb", "//", "x" * 4000])
def test_a_symlink_says_what_it_was_told(client, target):
    client.put_symlink("link", target)

    assert client.get_symlink("link") == target
    assert [o.type for o in client.list_page("link").objects] == ["Symlink"]


def test_many_objects_are_deleted_in_batches(client, emulator):
    emulator.seed("d/{n:05d}", b"", count=1500)
    keys = [f"d/{n:05d}" for n in range(1500)] + ["d/\x02"]
    client.put("d/\x02", [b""])

    assert client.delete_many(keys) == []

    assert list(client.list_page("d/").objects) == []
    assert emulator.count("DeleteMultipleObjects") == 2


def test_every_created_object_is_encrypted_as_asked(make_client, emulator):
    client = make_client(write=WriteOptions(server_side_encryption="AES256"))

    client.put("put", [b"x"])
    client.append("append", 0, [b"x"])
    client.copy("put", "copy", size=1)
    upload_id = client.initiate_multipart("multipart")
    part = client.upload_part("multipart", upload_id, 1, [b"x"])
    client.complete_multipart("multipart", upload_id, [(1, part.etag)])

    heads = [
        client.session.call(Call("HeadObject", "HEAD", key)).headers for key in ("put", "append", "copy", "multipart")
    ]
    assert [h.get("x-oss-server-side-encryption") for h in heads] == ["AES256"] * 4


def test_many_threads_share_a_client(make_client):
    client = make_client(http=HttpOptions(max_connections=4))
    content = {f"k{n}": os.urandom(50_000) for n in range(16)}
    for key, data in content.items():
        client.put(key, [data])
    wrong = []

    def work(key, data):
        for _ in range(5):
            if read(client, key)[0] != data:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=item) for item in content.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert wrong == []
    assert client.statistics().errors == 0


@pytest.mark.parametrize("signature_version", [1, 4])
def test_temporary_credentials_are_accepted(make_client, emulator, signature_version):
    token = emulator.issue_token()
    credentials = StaticCredentials(Credentials(token.access_key_id, token.access_key_secret, token.security_token))
    client = make_client(credentials=credentials, http=HttpOptions(signature_version=signature_version))

    client.put("k", [b"x"])

    assert read(client, "k")[0] == b"x"


@pytest.mark.parametrize("signature_version", [1, 4])
def test_a_wrong_secret_is_refused(make_client, emulator, signature_version):
    credentials = StaticCredentials(Credentials(emulator.access_key_id, "not-the-secret"))
    client = make_client(credentials=credentials, http=HttpOptions(signature_version=signature_version))

    with pytest.raises(errors.AuthenticationFailed, match="SignatureDoesNotMatch"):
        client.list_page("")


def test_a_public_bucket_needs_no_credentials(make_client, emulator):
    bucket = emulator.create_bucket(public=True)
    make_client(bucket=bucket).put("k", [b"x"])

    assert read(make_client(bucket=bucket, credentials=AnonymousCredentials()), "k")[0] == b"x"


def test_a_private_bucket_refuses_the_anonymous(make_client):
    with pytest.raises(errors.PermissionDenied, match="AccessDenied"):
        make_client(credentials=AnonymousCredentials()).list_page("")
