"""What an unsigned request may do: read (and where allowed list or write) public buckets and objects.

Source: API reference, bucket ACL and object ACL. A signed request may do everything: there is one owner.
"""

from __future__ import annotations

from csi.emulator.store.storage import Storage
from csi.emulator.wire.call import Call
from csi.emulator.wire.refusals import access_denied

_READS = frozenset({"GetObject", "HeadObject", "GetObjectMeta", "GetSymlink"})
_LISTS = frozenset({"ListObjects", "ListObjectsV2", "HeadBucket", "GetBucketInfo", "GetBucketLocation"})
_WRITES = frozenset({"PutObject", "AppendObject", "DeleteObject"})


def check_anonymous(call: Call, storage: Storage) -> None:
    """AccessDenied unless the bucket's or object's ACL lets anybody do this."""
    if not call.bucket:
        raise access_denied("Anonymous user has no right to access this bucket.")
    bucket = storage.bucket(call.bucket)
    if call.operation in _LISTS and bucket.listable:
        return
    if call.operation in _READS | _WRITES:
        stored = storage.index.find(bucket, call.key)
        acl = stored.details.get("acl", "default") if stored else "default"
        effective = bucket.acl if acl == "default" else acl
        if effective == "public-read-write" or (effective == "public-read" and call.operation in _READS):
            return
    raise access_denied()
