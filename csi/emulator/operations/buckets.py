"""Service and bucket operations: list, create, delete, info, location, ACL, stat, batch delete.

Source: API reference, "Service operations" and "Bucket operations". One owner holds everything.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from csi.emulator.store.index import Bucket
from csi.emulator.store.receive import receive_document
from csi.emulator.store.storage import Storage
from csi.emulator.wire.answers import Answer, xml_answer
from csi.emulator.wire.call import Call, check_object_name
from csi.emulator.wire.description import STORAGE_CLASSES
from csi.emulator.wire.documents import Node, child_text, element, parse, raw_document, timestamp
from csi.emulator.wire.refusals import Refusal, invalid_argument, malformed_xml

BUCKET_ACLS = ("private", "public-read", "public-read-write")
OWNER = "1000000000000000"
"""The account everything belongs to."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


def check_bucket_name(name: str) -> None:
    """3–63 lower-case letters, digits and hyphens, no hyphen at either end (PutBucket)."""
    if not _NAME.fullmatch(name):
        raise Refusal(400, "InvalidBucketName", "The specified bucket is not valid.", fields={"BucketName": name[:256]})


class Buckets:
    """`region` such as cn-hangzhou; `reserved` are names that paths of the server's own hide (STS)."""

    def __init__(self, storage: Storage, region: str, reserved: frozenset[str]) -> None:
        self._storage = storage
        self._region = region
        self._reserved = reserved

    async def list_all(self, call: Call) -> Answer:
        prefix, marker = call.query.get("prefix", ""), call.query.get("marker", "")
        limit = call.whole_number("max-keys") if call.query.get("max-keys") else 100
        if not 1 <= limit <= 1000:
            raise invalid_argument("Argument max-keys must be an integer between 1 and 1000.", "max-keys", str(limit))
        found = [b for b in self._storage.index.buckets() if b.name.startswith(prefix) and b.name > marker]
        page = found[:limit]
        children: list[Node] = [("Owner", _OWNER), ("Buckets", [("Bucket", self._summary(b)) for b in page])]
        if len(found) > limit:
            paging: list[Node] = [
                ("Prefix", prefix),
                ("Marker", marker),
                ("MaxKeys", limit),
                ("IsTruncated", "true"),
                ("NextMarker", page[-1].name),
            ]
            children = paging + children
        return xml_answer("ListAllMyBucketsResult", children)

    async def create(self, call: Call) -> Answer:
        body = await receive_document(call)
        check_bucket_name(call.bucket)
        if call.bucket in self._reserved:
            raise Refusal(400, "InvalidBucketName", "This name is a path of the emulator itself.")
        acl = _bucket_acl(call.header("x-oss-acl") or "private")
        storage_class = "Standard"
        if body:
            root = parse(body, "CreateBucketConfiguration")
            storage_class = (root.findtext("StorageClass") or storage_class).strip()
            if storage_class not in STORAGE_CLASSES:
                raise malformed_xml()
        existing = self._storage.index.bucket(call.bucket)
        if existing is None:
            self._storage.index.create_bucket(call.bucket, int(self._storage.now()), acl, storage_class)
        elif existing.storage_class != storage_class:
            raise Refusal(
                409,
                "BucketAlreadyExists",
                "The requested bucket name is not available. Please select a different name.",
            )
        elif call.header("x-oss-acl"):
            self._storage.index.set_bucket_acl(call.bucket, acl, listable=existing.listable)
        return Answer(200, {"Location": f"/{call.bucket}"})

    async def delete(self, call: Call) -> Answer:
        bucket = self._storage.bucket(call.bucket)
        if not self._storage.index.bucket_is_empty(bucket):
            raise Refusal(
                409,
                "BucketNotEmpty",
                "The bucket has objects. Please delete them first.",
                fields={"BucketName": call.bucket},
            )
        self._storage.index.delete_bucket(bucket)
        return Answer(204)

    async def head(self, call: Call) -> Answer:
        self._storage.bucket(call.bucket)
        return Answer(200, {"x-oss-bucket-region": self._region}, length=0)

    async def info(self, call: Call) -> Answer:
        bucket = self._storage.bucket(call.bucket)
        children: list[Node] = [
            *self._summary(bucket),
            ("AccessMonitor", "Disabled"),
            ("DataRedundancyType", "LRS"),
            ("CrossRegionReplication", "Disabled"),
            ("TransferAcceleration", "Disabled"),
            ("Owner", _OWNER),
            ("AccessControlList", [("Grant", bucket.acl)]),
            ("ServerSideEncryptionRule", [("SSEAlgorithm", "None")]),
            ("BucketPolicy", [("LogBucket", ""), ("LogPrefix", "")]),
            ("Comment", ""),
        ]
        return xml_answer("BucketInfo", [("Bucket", children)])

    async def location(self, call: Call) -> Answer:
        self._storage.bucket(call.bucket)
        return xml_answer("LocationConstraint", []) if not self._region else _location(self._region)

    async def get_acl(self, call: Call) -> Answer:
        bucket = self._storage.bucket(call.bucket)
        children: list[Node] = [("Owner", _OWNER), ("AccessControlList", [("Grant", bucket.acl)])]
        return xml_answer("AccessControlPolicy", children)

    async def put_acl(self, call: Call) -> Answer:
        await receive_document(call)
        bucket = self._storage.bucket(call.bucket)
        acl = _bucket_acl(call.header("x-oss-acl"))
        self._storage.index.set_bucket_acl(call.bucket, acl, listable=bucket.listable and acl != "private")
        return Answer(200)

    async def stat(self, call: Call) -> Answer:
        """GetBucketStat, counted when asked (real OSS counts about once an hour)."""
        bucket = self._storage.bucket(call.bucket)
        index = self._storage.index
        objects, size = index.query(
            "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM objects WHERE bucket = ?", (bucket.id,)
        ).fetchone()
        (uploads,) = index.query("SELECT COUNT(*) FROM uploads WHERE bucket = ?", (bucket.id,)).fetchone()
        children: list[Node] = [
            ("Storage", size),
            ("ObjectCount", objects),
            ("MultipartUploadCount", uploads),
            ("LiveChannelCount", 0),
            ("LastModifiedTime", int(self._storage.now())),
            ("StandardStorage", size),
            ("StandardObjectCount", objects),
        ]
        return xml_answer("BucketStat", children)

    async def delete_many(self, call: Call) -> Answer:
        """DeleteMultipleObjects: up to 1000 keys, missing ones count as deleted."""
        root = parse(await receive_document(call), "Delete")
        bucket = self._storage.bucket(call.bucket)
        keys = [child_text(item, "Key") for item in root.iter("Object")]
        if not 1 <= len(keys) <= 1000:
            raise malformed_xml()
        for key in keys:
            check_object_name(key)
        garbage: list[str] = []
        with self._storage.index.changing():
            for key in keys:
                garbage += self._storage.index.delete(bucket, key)
        self._storage.remove_files(garbage)
        if (root.findtext("Quiet") or "").strip().lower() == "true":
            return Answer(200)
        encode = call.query.get("encoding-type") == "url"
        elements = [element("EncodingType", "url")] if encode else []
        elements += [element("Deleted", [("Key", quote(key, safe="") if encode else key)]) for key in keys]
        return Answer(200, {"Content-Type": "application/xml"}, raw_document("DeleteResult", elements))

    def _summary(self, bucket: Bucket) -> list[Node]:
        location = f"oss-{self._region}"
        return [
            ("Name", bucket.name),
            ("Location", location),
            ("Region", self._region),
            ("CreationDate", timestamp(bucket.created)),
            ("StorageClass", bucket.storage_class),
            ("ExtranetEndpoint", f"{location}.aliyuncs.com"),
            ("IntranetEndpoint", f"{location}-internal.aliyuncs.com"),
        ]


_OWNER: list[Node] = [("ID", OWNER), ("DisplayName", OWNER)]


def _bucket_acl(acl: str) -> str:
    if acl not in BUCKET_ACLS:
        raise invalid_argument("The bucket ACL you specified is invalid.", "x-oss-acl", acl)
    return acl


def _location(region: str) -> Answer:
    return Answer(
        200,
        {"Content-Type": "application/xml"},
        raw_document("LocationConstraint", [f"oss-{region}"]),
    )
