"""ListParts and ListMultipartUploads.

Source: API reference of both operations.
"""

from __future__ import annotations

from csi.emulator.operations.multipart import encoded, encoding, find_upload
from csi.emulator.store.storage import Storage
from csi.emulator.store.uploads import Upload, Uploads
from csi.emulator.wire.answers import Answer, quoted, xml_answer
from csi.emulator.wire.call import Call
from csi.emulator.wire.documents import Node, timestamp
from csi.emulator.wire.refusals import invalid_argument


class MultipartListings:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._uploads = Uploads(storage.index)

    async def list_parts(self, call: Call) -> Answer:
        upload = find_upload(call, self._storage)
        limit = _limit(call, "max-parts")
        marker = call.whole_number("part-number-marker") if call.query.get("part-number-marker") else 0
        found = self._uploads.parts(upload, marker)
        page = found[:limit]
        children: list[Node] = [
            *encoding(call),
            ("Bucket", call.bucket),
            ("Key", encoded(call, call.key)),
            ("UploadId", upload.id),
            ("StorageClass", upload.storage_class),
            ("PartNumberMarker", marker),
            ("NextPartNumberMarker", page[-1].number if page else 0),
            ("MaxParts", limit),
            ("IsTruncated", "true" if len(found) > limit else "false"),
        ]
        children += [
            (
                "Part",
                [
                    ("PartNumber", part.number),
                    ("LastModified", timestamp(part.modified)),
                    ("ETag", quoted(part.etag)),
                    ("HashCrc64ecma", str(part.crc)),
                    ("Size", part.size),
                ],
            )
            for part in page
        ]
        return xml_answer("ListPartsResult", children)

    async def list_uploads(self, call: Call) -> Answer:
        bucket = self._storage.bucket(call.bucket)
        limit = _limit(call, "max-uploads")
        prefix, delimiter = call.query.get("prefix", ""), call.query.get("delimiter", "")
        key_marker, id_marker = call.query.get("key-marker", ""), call.query.get("upload-id-marker", "")
        uploads: list[Upload] = []
        groups: list[str] = []
        truncated = False
        next_key, next_id = "", ""
        for upload in self._uploads.after(bucket, prefix, key_marker, id_marker if key_marker else ""):
            cut = upload.key.find(delimiter, len(prefix)) if delimiter else -1
            group = upload.key[: cut + len(delimiter)] if cut >= 0 else ""
            if group and (group in groups or group == key_marker):
                continue
            if len(uploads) + len(groups) == limit:
                truncated = True
                break
            if group:
                groups.append(group)
                next_key, next_id = group, ""
            else:
                uploads.append(upload)
                next_key, next_id = upload.key, upload.id
        children: list[Node] = [
            *encoding(call),
            ("Bucket", call.bucket),
            ("KeyMarker", encoded(call, key_marker)),
            ("UploadIdMarker", id_marker),
            ("NextKeyMarker", encoded(call, next_key) if truncated else ""),
            ("NextUploadIdMarker", next_id if truncated else ""),
            ("Delimiter", encoded(call, delimiter)),
            ("Prefix", encoded(call, prefix)),
            ("MaxUploads", limit),
            ("IsTruncated", "true" if truncated else "false"),
        ]
        children += [
            (
                "Upload",
                [
                    ("Key", encoded(call, upload.key)),
                    ("UploadId", upload.id),
                    ("StorageClass", upload.storage_class),
                    ("Initiated", timestamp(upload.initiated)),
                ],
            )
            for upload in uploads
        ]
        children += [("CommonPrefixes", [("Prefix", encoded(call, group))]) for group in groups]
        return xml_answer("ListMultipartUploadsResult", children)


def _limit(call: Call, name: str) -> int:
    if not call.query.get(name):
        return 1000
    limit = call.whole_number(name)
    if not 1 <= limit <= 1000:
        raise invalid_argument(f"Argument {name} must be an integer between 1 and 1000.", name, str(limit))
    return limit
