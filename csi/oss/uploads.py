"""Multipart uploads that are under way: which there are of one object, and when each was last heard of.

For whoever cleans up after a process that was killed while it wrote. Knows nothing of what is stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree import ElementTree

from csi.oss.answers import decoded, document_in
from csi.oss.exchange import HttpAnswer
from csi.oss.requests import Call
from csi.oss.session import Session
from csi.oss.store import PendingUpload
from csi.volume.units import ObjectKey


def pending(session: Session, key: ObjectKey) -> list[PendingUpload]:
    """See `ObjectStore.pending_uploads`."""
    query = [("uploads", ""), ("encoding-type", "url"), ("max-uploads", "1000"), ("prefix", key)]
    root = _document(session, Call("ListMultipartUploads", "GET", query=query))
    is_encoded = root.findtext("EncodingType", "") == "url"
    found = []
    for node in root.findall("Upload"):
        if decoded(node.findtext("Key", ""), is_encoded) == key:
            found.append(PendingUpload(node.findtext("UploadId", ""), _moment(node.findtext("Initiated", ""))))
    return found


def newest_part(session: Session, key: ObjectKey, upload_id: str) -> float:
    """See `ObjectStore.newest_part`."""
    return max(_parts(session, key, upload_id), default=0.0)


def _parts(session: Session, key: ObjectKey, upload_id: str) -> Iterator[float]:
    marker = "0"
    while True:
        query = [("uploadId", upload_id), ("max-parts", "1000"), ("part-number-marker", marker)]
        root = _document(session, Call("ListParts", "GET", key, query=query))
        yield from (_moment(node.findtext("LastModified", "")) for node in root.findall("Part"))
        following = root.findtext("NextPartNumberMarker", "")
        if root.findtext("IsTruncated", "") != "true" or following == marker:
            return
        marker = following


def _document(session: Session, call: Call) -> ElementTree.Element:
    documents: list[ElementTree.Element] = []

    def parse(answer: HttpAnswer) -> None:
        documents.append(document_in(answer.body, call))

    # parsed as a check, so that the error page of a passing proxy is another failed attempt
    session.call(call, check=parse)
    return documents[-1]


def _moment(text: str) -> float:
    """Seconds since the epoch; 0 for what is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
