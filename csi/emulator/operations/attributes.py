"""What hangs on an object besides its bytes: ACL, tags, symlinks, restoring from archive.

Source: API reference PutObjectACL, PutObjectTagging, PutSymlink, RestoreObject and their readers.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from urllib.parse import quote, unquote

from csi.emulator.operations.buckets import OWNER
from csi.emulator.store.index import Bucket, StoredObject
from csi.emulator.store.receive import receive_document
from csi.emulator.store.storage import Storage
from csi.emulator.wire.answers import Answer, http_date, quoted, xml_answer
from csi.emulator.wire.call import Call, check_object_name
from csi.emulator.wire.conditions import check_write
from csi.emulator.wire.description import ARCHIVED, check_acl, check_tags, details_of, storage_class_of
from csi.emulator.wire.documents import Node, child_text, parse
from csi.emulator.wire.refusals import Refusal, invalid_argument


class Attributes:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def get_acl(self, call: Call) -> Answer:
        _, stored = self._find(call)
        owner: list[Node] = [("ID", OWNER), ("DisplayName", OWNER)]
        grant = stored.details.get("acl", "default")
        return xml_answer("AccessControlPolicy", [("Owner", owner), ("AccessControlList", [("Grant", grant)])])

    async def put_acl(self, call: Call) -> Answer:
        acl = check_acl(call.header("x-oss-object-acl"))
        bucket, stored = self._find(call)
        self._change(bucket, stored, acl=acl)
        return Answer(200)

    async def get_tags(self, call: Call) -> Answer:
        _, stored = self._find(call)
        tags: list[Node] = [
            ("Tag", [("Key", name), ("Value", value)]) for name, value in stored.details.get("tags", [])
        ]
        return xml_answer("Tagging", [("TagSet", tags)])

    async def put_tags(self, call: Call) -> Answer:
        root = parse(await receive_document(call), "Tagging")
        tags = check_tags([(child_text(item, "Key"), child_text(item, "Value")) for item in root.iter("Tag")])
        bucket, stored = self._find(call)
        self._change(bucket, stored, tags=tags)
        return Answer(200)

    async def delete_tags(self, call: Call) -> Answer:
        bucket, stored = self._find(call)
        self._change(bucket, stored, tags=None)
        return Answer(204)

    async def put_symlink(self, call: Call) -> Answer:
        """The target may be missing; it is followed within the bucket by GetObject and HeadObject."""
        check_object_name(call.key)
        bucket = self._storage.bucket(call.bucket)
        check_write(call, self._storage.index.find(bucket, call.key))
        target = unquote(call.header("x-oss-symlink-target"))
        if not target:
            raise invalid_argument("The symlink target is missing.", "x-oss-symlink-target")
        check_object_name(target)
        etag = hashlib.md5(target.encode(), usedforsecurity=False).hexdigest().upper()
        stored = StoredObject(
            call.key,
            0,
            int(self._storage.now()),
            etag,
            0,
            "",
            "Symlink",
            storage_class_of(call, bucket.storage_class),
            {**details_of(call), "target": target},
        )
        self._storage.commit(bucket, stored)
        return Answer(200, {"ETag": quoted(etag)})

    async def get_symlink(self, call: Call) -> Answer:
        _, stored = self._find(call)
        if stored.type != "Symlink":
            raise Refusal(400, "NotSymlink", "The object is not symlink", fields={"Key": call.key})
        headers = {
            "ETag": quoted(stored.etag),
            "Last-Modified": http_date(stored.modified),
            "x-oss-symlink-target": quote(stored.details["target"], safe="/"),
        }
        for name, value in stored.details.get("user", {}).items():
            headers["x-oss-meta-" + name] = value
        return Answer(200, headers)

    async def restore(self, call: Call) -> Answer:
        """RestoreObject: 202 the first time, 200 once restored (at once here)."""
        await receive_document(call)
        bucket, stored = self._find(call)
        if stored.storage_class not in ARCHIVED:
            raise Refusal(400, "OperationNotSupported", "The operation is not supported for this resource")
        if stored.details.get("restored"):
            return Answer(200)
        self._change(bucket, stored, restored=True)
        return Answer(202)

    def _find(self, call: Call) -> tuple[Bucket, StoredObject]:
        bucket = self._storage.bucket(call.bucket)
        return bucket, self._storage.object(bucket, call.key)

    def _change(self, bucket: Bucket, stored: StoredObject, **changes: object) -> None:
        details = {**stored.details, **changes}
        details = {name: value for name, value in details.items() if value not in (None, [])}
        self._storage.index.put(bucket, replace(stored, details=details), keep_old_body=True)
