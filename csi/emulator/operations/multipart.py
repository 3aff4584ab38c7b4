"""The multipart operations: initiate, upload and copy parts, list, complete, abort.

Source: API reference, "Multipart upload operations". Completing moves names, not bytes: the parts' files become the
segments of the object in one transaction, checksums are combined.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from urllib.parse import quote

from csi.emulator.operations.objects import copy_source
from csi.emulator.store.bodies import Piece, Written
from csi.emulator.store.checksums import combine_all
from csi.emulator.store.index import Segment, StoredObject
from csi.emulator.store.receive import discard, receive_body, receive_document
from csi.emulator.store.storage import Storage
from csi.emulator.store.uploads import StoredPart, Upload, Uploads
from csi.emulator.wire.answers import Answer, quoted, xml_answer
from csi.emulator.wire.call import Call, check_object_name
from csi.emulator.wire.conditions import check_copy_source, check_write
from csi.emulator.wire.description import details_of, storage_class_of
from csi.emulator.wire.documents import Node, child_text, parse, timestamp
from csi.emulator.wire.refusals import Refusal, invalid_argument, malformed_xml, no_such_upload

MIN_PART = 100 << 10
"""Every part but the last has at least 100 KB."""
MAX_PART_NUMBER = 10_000
_COPY_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Multipart:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._uploads = Uploads(storage.index)

    async def initiate(self, call: Call) -> Answer:
        check_object_name(call.key)
        bucket = self._storage.bucket(call.bucket)
        check_write(call, self._storage.index.find(bucket, call.key))
        upload = Upload(
            uuid.uuid4().hex.upper(),
            call.key,
            int(self._storage.now()),
            storage_class_of(call, bucket.storage_class),
            details_of(call),
        )
        self._uploads.create(bucket, upload)
        children: list[Node] = [
            ("Bucket", call.bucket),
            ("Key", encoded(call, call.key)),
            ("UploadId", upload.id),
            *encoding(call),
        ]
        return xml_answer("InitiateMultipartUploadResult", children)

    async def upload_part(self, call: Call) -> Answer:
        number = _part_number(call)
        find_upload(call, self._storage)
        written = await receive_body(call, self._storage)
        part = self._keep(call, number, written)
        return Answer(200, {"ETag": quoted(part.etag), "x-oss-hash-crc64ecma": str(part.crc)})

    async def upload_part_copy(self, call: Call) -> Answer:
        number = _part_number(call)
        find_upload(call, self._storage)
        _, source = copy_source(call, self._storage)
        check_copy_source(call, source)
        start, end = _copy_range(call, source.size)
        if source.body.startswith("i") or not source.body:
            written = await self._storage.on_thread(self._storage.bodies.write, self._storage.small(source)[start:end])
        else:
            pieces = self._storage.pieces(source, start, end)
            written = await self._copy(pieces)
        part = self._keep(call, number, written)
        children: list[Node] = [("LastModified", timestamp(part.modified)), ("ETag", quoted(part.etag))]
        headers = {"ETag": quoted(part.etag), "x-oss-hash-crc64ecma": str(part.crc)}
        return xml_answer("CopyPartResult", children, headers)

    async def complete(self, call: Call) -> Answer:
        body = await receive_document(call)
        upload = find_upload(call, self._storage)
        have = {part.number: part for part in self._uploads.parts(upload)}
        complete_all = call.header("x-oss-complete-all").lower() == "yes"
        if complete_all and body:
            raise invalid_argument("x-oss-complete-all takes no list of parts.", "x-oss-complete-all", "yes")
        parts = list(have.values()) if complete_all else _named_parts(body, have)
        if not parts:
            raise malformed_xml()
        for part in parts[:-1]:
            if part.size < MIN_PART:
                raise _entity_too_small(part)
        bucket = self._storage.bucket(call.bucket)
        check_write(call, self._storage.index.find(bucket, call.key))
        stored, segments = self._assemble(upload, parts)
        self._storage.remove_files(self._uploads.complete(bucket, upload, stored, segments))
        location = f"http://{call.host}/{quote(call.path.lstrip('/'))}"
        children: list[Node] = [
            *encoding(call),
            ("Location", location),
            ("Bucket", call.bucket),
            ("Key", encoded(call, call.key)),
            ("ETag", quoted(stored.etag)),
        ]
        return xml_answer(
            "CompleteMultipartUploadResult",
            children,
            {"ETag": quoted(stored.etag), "x-oss-hash-crc64ecma": str(stored.crc)},
        )

    async def abort(self, call: Call) -> Answer:
        upload = find_upload(call, self._storage)
        self._storage.remove_files(self._uploads.abort(upload))
        return Answer(204)

    # --- private ---

    def _keep(self, call: Call, number: int, written: Written) -> StoredPart:
        """Record a part; the upload may have ended while its bytes came in."""
        try:
            upload = find_upload(call, self._storage)
        except Refusal:
            discard(self._storage, written)
            raise
        part = StoredPart(number, written.size, int(self._storage.now()), written.etag, written.crc, written.file)
        self._storage.remove_files(self._uploads.put_part(upload, part))
        return part

    async def _copy(self, pieces: list[Piece]) -> Written:
        files = [piece.file for piece in pieces]
        self._storage.bodies.pin(files)
        try:
            return await self._storage.on_thread(self._storage.bodies.copy, pieces)
        finally:
            self._storage.bodies.unpin(files)

    def _assemble(self, upload: Upload, parts: list[StoredPart]) -> tuple[StoredObject, list[Segment]]:
        segments, start = [], 0
        for part in parts:
            if part.size:
                segments.append(Segment(part.file, start, part.size))
            start += part.size
        digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False)
        body = ""
        if len(segments) == 1:
            body = f"f{segments[0].file}"
        elif segments:
            body = f"s{self._storage.bodies.new_id()}"
        stored = StoredObject(
            upload.key,
            start,
            int(self._storage.now()),
            f"{digest.hexdigest().upper()}-{len(parts)}",
            combine_all((part.crc, part.size) for part in parts),
            body,
            "Multipart",
            upload.storage_class,
            upload.details,
        )
        return stored, segments


def find_upload(call: Call, storage: Storage) -> Upload:
    """The upload that uploadId and key name; NoSuchUpload when there is none."""
    check_object_name(call.key)
    upload_id = call.query["uploadId"]
    found = Uploads(storage.index).find(storage.bucket(call.bucket), call.key, upload_id)
    if found is None:
        raise no_such_upload(upload_id)
    return found


def encoded(call: Call, value: str) -> str:
    """A name as this request wants to see it."""
    return quote(value, safe="") if call.query.get("encoding-type") == "url" else value


def encoding(call: Call) -> list[Node]:
    return [("EncodingType", "url")] if call.query.get("encoding-type") == "url" else []


def _named_parts(body: bytes, have: dict[int, StoredPart]) -> list[StoredPart]:
    root = parse(body, "CompleteMultipartUpload")
    named: list[StoredPart] = []
    previous = 0
    for item in root.iter("Part"):
        digits, etag = child_text(item, "PartNumber"), child_text(item, "ETag").strip().strip('"')
        if not digits.isdigit():
            raise malformed_xml()
        number = int(digits)
        if number <= previous:
            raise Refusal(
                400,
                "InvalidPartOrder",
                "The list of parts was not in ascending order. Parts list must specified in order by part number.",
                fields={"PartNumber": digits},
            )
        previous = number
        part = have.get(number)
        if part is None or part.etag != etag.upper():
            message = (
                "One or more of the specified parts could not be found or the specified entity tag might not have "
                "matched the part's entity tag."
            )
            raise Refusal(400, "InvalidPart", message, fields={"PartNumber": digits, "ETag": etag})
        named.append(part)
    return named


def _entity_too_small(part: StoredPart) -> Refusal:
    return Refusal(
        400,
        "EntityTooSmall",
        "Your proposed upload smaller than the minimum allowed size.",
        fields={
            "MinSizeAllowed": str(MIN_PART),
            "ProposedSize": str(part.size),
            "PartNumber": str(part.number),
            "ETag": quoted(part.etag),
        },
    )


def _part_number(call: Call) -> int:
    number = call.whole_number("partNumber")
    if not 1 <= number <= MAX_PART_NUMBER:
        raise invalid_argument(
            "Part number must be an integer between 1 and 10000, inclusive.", "partNumber", str(number)
        )
    return number


def _copy_range(call: Call, size: int) -> tuple[int, int]:
    header = call.header("x-oss-copy-source-range")
    if not header:
        return 0, size
    match = _COPY_RANGE.fullmatch(header)
    if match is None:
        return 0, size  # API reference: a malformed range copies the whole object
    start, end = int(match[1]), int(match[2]) + 1
    if start >= end or end > size:
        raise Refusal(
            416,
            "InvalidRange",
            "The requested range cannot be satisfied",
            fields={"ActualObjectSize": str(size), "RangeRequested": header},
        )
    return start, end
