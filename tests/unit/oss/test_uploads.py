"""Listings of uploads and parts, page by page."""

from __future__ import annotations

import pytest

from csi.errors import ServerFailure
from csi.oss.exchange import HttpAnswer
from csi.volume.spec import HttpOptions
from csi.volume.units import ObjectKey
from tests.support.scripted_transport import scripted_client

KEY = ObjectKey("a/b")


def parts(*moments: str, marker: int, more: bool) -> HttpAnswer:
    listed = "".join(
        f"<Part><PartNumber>1</PartNumber><LastModified>{moment}</LastModified></Part>" for moment in moments
    )
    ending = f"<NextPartNumberMarker>{marker}</NextPartNumberMarker><IsTruncated>{str(more).lower()}</IsTruncated>"
    return HttpAnswer(200, {}, f"<ListPartsResult>{listed}{ending}</ListPartsResult>".encode())


def test_the_newest_part_is_looked_for_on_every_page() -> None:
    client, transport = scripted_client(
        parts("2026-01-01T00:00:00.000Z", "2026-01-03T00:00:00.000Z", marker=1000, more=True),
        parts("2026-01-02T00:00:00.000Z", marker=1200, more=False),
    )
    assert client.newest_part(KEY, "id") == 1767398400.0
    assert "part-number-marker=0" in transport.requests[0].url
    assert "part-number-marker=1000" in transport.requests[1].url


def test_a_server_that_repeats_a_page_is_asked_no_more() -> None:
    client, transport = scripted_client(parts("2026-01-01T00:00:00.000Z", marker=0, more=True))
    assert client.newest_part(KEY, "id") == 1767225600.0
    assert len(transport.requests) == 1


def test_uploads_of_other_keys_with_the_same_beginning_are_left_out() -> None:
    body = (
        "<ListMultipartUploadsResult><EncodingType>url</EncodingType>"
        "<Upload><Key>a%2Fb</Key><UploadId>1</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
        "<Upload><Key>a%2Fbc</Key><UploadId>2</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
        "<Upload><Key>a%2Fb</Key><UploadId>3</UploadId><Initiated>some day</Initiated></Upload>"
        "</ListMultipartUploadsResult>"
    )
    client, _ = scripted_client(HttpAnswer(200, {}, body.encode()))
    found = client.pending_uploads(KEY)
    assert [(upload.upload_id, upload.initiated) for upload in found] == [("1", 1767225600.0), ("3", 0.0)]


def test_an_answer_that_is_not_xml_is_a_failure_of_the_server() -> None:
    client, _ = scripted_client(HttpAnswer(200, {}, b"<html>come back later"), http=HttpOptions(retries=0))
    with pytest.raises(ServerFailure, match="not XML"):
        client.pending_uploads(KEY)
