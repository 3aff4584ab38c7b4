import base64

import pytest

from csi import errors
from csi.oss.answers import error_of, metadata_of, shown
from csi.oss.exchange import HttpAnswer
from csi.oss.requests import Call
from tests.support.scripted_transport import LOCATION, refusal

CALL = Call("GetObject", "GET", "data/x")


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (404, "NoSuchKey", errors.ObjectNotFound, ""),
        (404, "NoSuchUpload", errors.ObjectNotFound, "aborted"),
        (404, "NoSuchBucket", errors.BucketNotFound, "check bucket bkt and endpoint https://oss-cn-hangzhou"),
        (403, "InvalidAccessKeyId", errors.AuthenticationFailed, "AccessKeyId"),
        (403, "SignatureDoesNotMatch", errors.AuthenticationFailed, "check AccessKeySecret and the region"),
        (403, "SecurityTokenExpired", errors.AuthenticationFailed, "SecurityToken"),
        (403, "RequestTimeTooSkewed", errors.AuthenticationFailed, "clock"),
        (403, "AccessDenied", errors.PermissionDenied, "oss:GetObject on oss://bkt/data/x"),
        (403, "InvalidObjectState", errors.ObjectArchived, "restore"),
        (412, "PreconditionFailed", errors.PreconditionFailed, ""),
        (409, "FileAlreadyExists", errors.ObjectExists, ""),
        (409, "PositionNotEqualToLength", errors.AppendConflict, "appended"),
        (409, "ObjectNotAppendable", errors.AppendConflict, "AppendObject"),
        (416, "InvalidRange", errors.RangeNotSatisfiable, ""),
        (400, "EntityTooLarge", errors.ObjectTooLarge, "fs.oss.blocklet.size.mb"),
        (400, "InvalidArgument", errors.RequestRejected, ""),
        (400, "RequestTimeout", errors.ServerFailure, ""),
        (429, "", errors.ServerFailure, ""),
        (500, "InternalError", errors.ServerFailure, ""),
        (503, "ServiceUnavailable", errors.ServerFailure, ""),
        (403, "SomethingNew", errors.PermissionDenied, ""),
        (302, "", errors.RequestRejected, "endpoint"),
    ],
)
def test_a_refusal_becomes_its_typed_error(status, code, kind, hint):
    error = error_of(refusal(status, code), CALL, LOCATION)

    assert type(error) is kind
    assert (error.status, error.code, error.request_id) == (status, code, "65A0")
    assert (error.operation, error.key) == ("GetObject", "data/x")
    assert hint in error.hint
    assert "GetObject oss://bkt/data/x" in error.message


def test_a_message_names_the_ec_of_the_refusal():
    error = error_of(refusal(403, "AccessDenied", "denied by policy", x_oss_ec="0003-00000001"), CALL, LOCATION)

    assert "denied by policy" in str(error)
    assert "0003-00000001" in str(error)


@pytest.mark.parametrize("number", ["#1114112", "#99999999999999999999"])
def test_a_message_with_what_is_no_character_is_told_as_it_is(number):
    error = error_of(refusal(403, "AccessDenied", f"odd &{number};"), CALL, LOCATION)
    assert f"odd &{number};" in str(error)


def test_a_head_refusal_is_read_from_its_header():
    document = b"<Error><Code>NoSuchBucket</Code></Error>"
    answer = HttpAnswer(404, {"x-oss-err": base64.b64encode(document).decode()})

    assert type(error_of(answer, CALL, LOCATION)) is errors.BucketNotFound


def test_what_was_signed_is_never_repeated():
    document = (
        b"<Error><Code>SignatureDoesNotMatch</Code><Message>the string LTAIkey s3cr3t</Message>"
        b"<OSSAccessKeyId>LTAIkey</OSSAccessKeyId><StringToSign>GET s3cr3t</StringToSign></Error>"
    )

    error = error_of(HttpAnswer(403, {}, document), CALL, LOCATION)

    assert "s3cr3t" not in str(error)
    assert "LTAIkey" not in repr(error.args)


def test_an_append_conflict_knows_where_the_object_ends():
    error = error_of(refusal(409, "PositionNotEqualToLength", x_oss_next_append_position="17"), CALL, LOCATION)

    assert error.next_position == 17


def test_a_busy_server_may_ask_for_patience():
    assert error_of(refusal(503, "ServiceUnavailable", retry_after="7"), CALL, LOCATION).retry_after == 7.0


@pytest.mark.parametrize(
    "body", [b"", b"<html>502</html>", b"\xff\xfe\x00", b"<Code>", b"<Error><Code></Code></Error>"]
)
def test_an_answer_that_is_not_of_oss_is_still_an_error(body):
    assert type(error_of(HttpAnswer(502, {}, body), CALL, LOCATION)) is errors.ServerFailure


def test_a_key_with_format_characters_does_not_break_the_hint():
    call = Call("GetObject", "GET", "a{0}{resource}\n%s")

    error = error_of(refusal(403, "AccessDenied"), call, LOCATION)

    assert "a{0}{resource}\\n%s" in error.hint


def test_metadata_is_read_from_headers():
    headers = {
        "content-length": "10",
        "content-range": "bytes 0-9/344606",
        "etag": '"5B3C1A2E053D763E1B002CC607C5A0FE"',
        "last-modified": "Fri, 24 Feb 2012 06:07:48 GMT",
        "x-oss-object-type": "Appendable",
        "x-oss-storage-class": "IA",
        "x-oss-hash-crc64ecma": "15752265236471863010",
        "content-type": "text/plain",
        "x-oss-meta-symlink-target": "a%20b",
        "x-oss-next-append-position": "344606",
    }

    metadata = metadata_of("k", HttpAnswer(200, headers))

    assert (metadata.size, metadata.modified, metadata.type) == (344606, 1330063668.0, "Appendable")
    assert (metadata.crc64, metadata.next_append_position) == (15752265236471863010, 344606)
    assert metadata.user == {"symlink-target": "a%20b"}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Thu, 01 Jan 1970 00:00:01 GMT", 1.0),
        ("Thu, 1 Jan 1970 00:00:01 +0000", 1.0),
        ("", 0.0),
        ("nonsense", 0.0),
        ("Thu, xx Jan 1970 00:00:01 GMT", 0.0),
    ],
)
def test_dates_are_read_in_any_usual_form(text, moment):
    assert metadata_of("k", HttpAnswer(200, {"last-modified": text})).modified == moment


def test_names_are_shown_on_one_line():
    assert shown("a\nb\x1b\udcff") == "a\\nb\\x1b\\udcff"
    assert len(shown("x" * 5000)) < 400
