"""Operations that must not happen twice, when it is not known whether they happened once."""

import pytest

from csi import errors
from csi.oss.checksum import crc64_of
from csi.oss.exchange import HttpAnswer
from csi.volume.spec import WriteOptions
from tests.support.scripted_transport import refusal, scripted_client

LOST = errors.EndpointUnreachable("connection reset")
BODY = b"twelve bytes"
CRC = str(crc64_of([BODY]))


def object_with(size, crc, etag='"E"', **headers):
    return HttpAnswer(200, {"content-length": str(size), "etag": etag, "x-oss-hash-crc64ecma": str(crc), **headers})


def ranged(content, total):
    def answer(request):
        named = next(header for header in request.headers if header.startswith(b"range:")).decode()
        first, _, last = named.removeprefix("range: bytes=").partition("-")
        piece = content[int(first) : int(last) + 1]
        request.target[: len(piece)] = piece
        return HttpAnswer(206, {"content-range": f"bytes {first}-{last}/{total}"}, received=len(piece))

    return answer


def test_an_append_that_had_arrived_is_not_a_conflict():
    before = b"before--"
    client, _ = scripted_client(
        LOST,
        refusal(409, "PositionNotEqualToLength", x_oss_next_append_position="20"),
        object_with(20, 77),
        ranged(before + BODY, 20),
    )

    result = client.append("log", 8, [BODY])

    assert (result.next_position, result.crc64) == (20, 77)


def test_an_append_that_had_arrived_is_found_under_the_next_one():
    client, _ = scripted_client(
        LOST,
        refusal(409, "PositionNotEqualToLength"),
        object_with(25, 77),
        ranged(BODY + b"another writer", 25),
    )

    result = client.append("log", 0, [BODY])

    assert (result.next_position, result.crc64) == (12, None)


def test_bytes_of_another_writer_at_our_position_are_a_conflict():
    client, _ = scripted_client(
        LOST,
        refusal(409, "PositionNotEqualToLength", x_oss_next_append_position="12"),
        object_with(12, 77),
        ranged(b"not the same", 12),
    )

    with pytest.raises(errors.AppendConflict) as failure:
        client.append("log", 0, [BODY])

    assert failure.value.next_position == 12


def test_a_shorter_object_than_ours_is_a_conflict():
    client, _ = scripted_client(LOST, refusal(409, "PositionNotEqualToLength"), object_with(3, 77))

    with pytest.raises(errors.AppendConflict):
        client.append("log", 0, [BODY])


def test_a_conflict_of_the_first_attempt_is_reported_without_looking():
    client, transport = scripted_client(refusal(409, "PositionNotEqualToLength"))

    with pytest.raises(errors.AppendConflict):
        client.append("log", 0, [BODY])

    assert len(transport.requests) == 1


def test_an_append_that_had_not_arrived_is_made():
    client, transport = scripted_client(
        LOST, HttpAnswer(200, {"x-oss-request-id": "65A0", "x-oss-next-append-position": "12"})
    )

    assert client.append("log", 0, [BODY]).next_position == 12
    assert [bytes(b"".join(r.body)) for r in transport.requests] == [BODY, BODY]
    assert all(request.once for request in transport.requests)


def test_a_put_that_had_arrived_is_ours_by_its_content():
    client, _ = scripted_client(LOST, refusal(409, "FileAlreadyExists"), object_with(12, CRC, '"OURS"'))

    assert client.put("k", [BODY], forbid_overwrite=True).etag == '"OURS"'


def test_a_put_that_met_another_object_is_refused():
    client, _ = scripted_client(LOST, refusal(409, "FileAlreadyExists"), object_with(12, 1))

    with pytest.raises(errors.ObjectExists):
        client.put("k", [BODY], forbid_overwrite=True)


def test_an_empty_object_that_is_there_counts_as_anothers():
    client, _ = scripted_client(LOST, refusal(409, "FileAlreadyExists"), object_with(0, 0))

    with pytest.raises(errors.ObjectExists):
        client.put("k", [], forbid_overwrite=True)


def test_an_existing_object_refuses_the_first_attempt_though_its_content_is_the_same():
    client, _ = scripted_client(refusal(409, "FileAlreadyExists"), object_with(12, CRC))

    with pytest.raises(errors.ObjectExists):
        client.put("k", [BODY], forbid_overwrite=True)


def test_a_completion_that_had_arrived_is_recognised_by_the_checksum():
    client, _ = scripted_client(LOST, refusal(404, "NoSuchUpload"), object_with(12, CRC, '"OURS-1"'))

    assert client.complete_multipart("k", "u", [(1, '"P"')], crc64=int(CRC)).etag == '"OURS-1"'


def test_a_completion_without_a_checksum_is_recognised_by_the_form_of_the_object():
    there = object_with(12, CRC, '"OURS-2"', **{"x-oss-object-type": "Multipart"})
    client, _ = scripted_client(LOST, refusal(404, "NoSuchUpload"), there)

    assert client.complete_multipart("k", "u", [(1, '"P"'), (2, '"Q"')]).etag == '"OURS-2"'


@pytest.mark.parametrize("there", [object_with(12, 1), refusal(404, "NoSuchKey")])
def test_a_completion_that_left_nothing_of_ours_has_failed(there):
    client, _ = scripted_client(LOST, refusal(404, "NoSuchUpload"), there)

    with pytest.raises(errors.ObjectNotFound, match="NoSuchUpload"):
        client.complete_multipart("k", "u", [(1, '"P"')], crc64=int(CRC))


def test_an_upload_that_never_was_cannot_be_completed():
    client, transport = scripted_client(refusal(404, "NoSuchUpload"))

    with pytest.raises(errors.ObjectNotFound):
        client.complete_multipart("k", "u", [(1, '"P"')], crc64=int(CRC))

    assert len(transport.requests) == 1


def test_a_completed_object_of_another_checksum_is_an_error():
    client, _ = scripted_client(HttpAnswer(200, {"x-oss-request-id": "65A0", "x-oss-hash-crc64ecma": "1"}))

    with pytest.raises(errors.ChecksumMismatch):
        client.complete_multipart("k", "u", [(1, '"P"')], crc64=2)


def test_a_volume_that_does_not_compare_checksums_takes_what_oss_says():
    client, _ = scripted_client(
        HttpAnswer(200, {"x-oss-request-id": "65A0", "x-oss-hash-crc64ecma": "1"}),
        HttpAnswer(200, {"x-oss-request-id": "65A0", "x-oss-hash-crc64ecma": "1"}),
        write=WriteOptions(crc64=False),
    )

    assert client.put("k", [BODY]).crc64 == 1
    assert client.complete_multipart("k", "u", [(1, '"P"')], crc64=2).crc64 == 1
