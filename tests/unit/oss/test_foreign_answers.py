"""A 2xx that OSS did not give, or that began before the request failed, changes nothing: nobody is told it had."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csi import errors
from csi.oss.client import OssClient
from csi.oss.exchange import HttpAnswer
from csi.oss.store import ObjectVersion
from csi.volume.spec import HttpOptions
from csi.volume.units import Bytes, ETag, ObjectKey
from tests.support.scripted_transport import refusal, scripted_client

ONCE = HttpOptions(retries=0)
FAILED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code><Message>try again</Message>'
    b"<RequestId>65A0</RequestId></Error>"
)
ANSWERS = {
    "empty": HttpAnswer(200, {}),
    "a page of a portal": HttpAnswer(200, {"etag": '"5f-264"', "content-type": "text/html"}, b"<html>log in</html>"),
    "no content": HttpAnswer(204, {"server": "proxy"}),
    "an error after the status": HttpAnswer(200, {"x-oss-request-id": "65A0"}, FAILED),
}
CHANGES: dict[str, Callable[[OssClient], object]] = {
    "PutObject": lambda client: client.put("k", [b"x"]),
    "PutSymlink": lambda client: client.put_symlink("k", "to"),
    "AppendObject": lambda client: client.append("k", 0, [b"x"]),
    "CopyObject": lambda client: client.copy("k", "l", size=1),
    "InitiateMultipartUpload": lambda client: client.initiate_multipart("k"),
    "UploadPart": lambda client: client.upload_part("k", "u", 1, [b"x"]),
    "UploadPartCopy": lambda client: client.upload_part_copy("k", "u", 1, "l", 0, 1),
    "CompleteMultipartUpload": lambda client: client.complete_multipart("k", "u", [(1, '"P"')]),
    "AbortMultipartUpload": lambda client: client.abort_multipart("k", "u"),
    "DeleteObject": lambda client: client.delete("k"),
    "DeleteMultipleObjects": lambda client: client.delete_many(["k"]),
}


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_change_is_not_believed(operation: str, answer: str) -> None:
    client, _ = scripted_client(ANSWERS[answer], http=ONCE)
    with pytest.raises(errors.ServerFailure, match=f"{operation} .*{ANSWERS[answer].status}"):
        CHANGES[operation](client)


def test_it_says_what_to_look_at() -> None:
    client, _ = scripted_client(ANSWERS["a page of a portal"], http=ONCE)
    with pytest.raises(errors.ServerFailure) as failure:
        client.put("k", [b"x"])
    assert "check that the endpoint is an OSS endpoint" in failure.value.hint


def test_the_change_is_made_again() -> None:
    made = HttpAnswer(200, {"x-oss-request-id": "65A1", "etag": '"E"'})
    client, transport = scripted_client(ANSWERS["an error after the status"], made)
    assert client.put("k", [b"x"]).etag == '"E"'
    assert len(transport.requests) == 2


def test_a_completion_that_was_answered_by_another_is_recognised_by_the_object() -> None:
    made = HttpAnswer(200, {"content-length": "9", "etag": '"O-1"', "x-oss-object-type": "Multipart"})
    client, _ = scripted_client(ANSWERS["empty"], refusal(404, "NoSuchUpload"), made)
    assert client.complete_multipart("k", "u", [(1, '"P"')]).etag == '"O-1"'


@pytest.mark.parametrize("size", [4, 9], ids=["whole", "a range"])
def test_bytes_without_a_version_are_not_taken_for_another_version(size: int) -> None:
    """A reader would be told that the object was changed."""
    status, headers = (200, {}) if size == 4 else (206, {"content-range": "bytes 0-3/9"})
    client, _ = scripted_client(HttpAnswer(status, {**headers, "content-length": "4"}, received=4), http=ONCE)
    version = ObjectVersion(ObjectKey("k"), ETag('"E"'), Bytes(size))
    with pytest.raises(errors.ServerFailure, match="no ETag") as failure:
        client.fill(version, 0, memoryview(bytearray(4)))
    assert "check that the endpoint is an OSS endpoint" in failure.value.hint
