"""Which OSS operation a request is, from its method, its address and its query parameters; and who carries it out.

The table is the whole truth about what the emulator can do; anything else is refused with NotImplemented (501) or
MethodNotAllowed (405), never answered by a neighbouring operation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from csi.emulator.operations.appends import Appends
from csi.emulator.operations.attributes import Attributes
from csi.emulator.operations.buckets import Buckets
from csi.emulator.operations.listings import Listings
from csi.emulator.operations.multipart import Multipart
from csi.emulator.operations.multipart_listings import MultipartListings
from csi.emulator.operations.objects import Objects
from csi.emulator.store.storage import Storage
from csi.emulator.wire.answers import Answer
from csi.emulator.wire.call import Call
from csi.emulator.wire.refusals import Refusal, not_implemented

Operation = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """`place`: service, bucket or object. All of `query` must be present, and `header` when named."""

    name: str
    method: str
    place: str
    query: tuple[str, ...] = ()
    header: str = ""


# The first match wins, so special forms stand before general ones.
ROUTES = (
    Route("ListBuckets", "GET", "service"),
    Route("GetBucketInfo", "GET", "bucket", ("bucketInfo",)),
    Route("GetBucketLocation", "GET", "bucket", ("location",)),
    Route("GetBucketStat", "GET", "bucket", ("stat",)),
    Route("GetBucketAcl", "GET", "bucket", ("acl",)),
    Route("PutBucketAcl", "PUT", "bucket", ("acl",)),
    Route("ListMultipartUploads", "GET", "bucket", ("uploads",)),
    Route("ListObjectsV2", "GET", "bucket", ("list-type",)),
    Route("ListObjects", "GET", "bucket"),
    Route("HeadBucket", "HEAD", "bucket"),
    Route("PutBucket", "PUT", "bucket"),
    Route("DeleteBucket", "DELETE", "bucket"),
    Route("DeleteMultipleObjects", "POST", "bucket", ("delete",)),
    Route("GetObjectAcl", "GET", "object", ("acl",)),
    Route("PutObjectAcl", "PUT", "object", ("acl",)),
    Route("GetObjectTagging", "GET", "object", ("tagging",)),
    Route("PutObjectTagging", "PUT", "object", ("tagging",)),
    Route("DeleteObjectTagging", "DELETE", "object", ("tagging",)),
    Route("GetSymlink", "GET", "object", ("symlink",)),
    Route("PutSymlink", "PUT", "object", ("symlink",)),
    Route("ListParts", "GET", "object", ("uploadId",)),
    Route("GetObjectMeta", "GET", "object", ("objectMeta",)),
    Route("GetObjectMeta", "HEAD", "object", ("objectMeta",)),
    Route("UploadPartCopy", "PUT", "object", ("uploadId", "partNumber"), "x-oss-copy-source"),
    Route("UploadPart", "PUT", "object", ("uploadId", "partNumber")),
    Route("CopyObject", "PUT", "object", (), "x-oss-copy-source"),
    Route("PutObject", "PUT", "object"),
    Route("AppendObject", "POST", "object", ("append",)),
    Route("InitiateMultipartUpload", "POST", "object", ("uploads",)),
    Route("CompleteMultipartUpload", "POST", "object", ("uploadId",)),
    Route("RestoreObject", "POST", "object", ("restore",)),
    Route("AbortMultipartUpload", "DELETE", "object", ("uploadId",)),
    Route("DeleteObject", "DELETE", "object"),
    Route("HeadObject", "HEAD", "object"),
    Route("GetObject", "GET", "object"),
)

# Parameters that select an operation this server does not have; ignoring them would do something else entirely.
_FOREIGN_NAMES = (
    "accessPoint accessPointPolicy asyncFetch callback cname comp cors encryption inventory lifecycle live logging "
    "metaQuery policy qos qosInfo referer replication requestPayment resourceGroup style transferAcceleration "
    "versioning versions vod website worm x-oss-async-process x-oss-batchGet x-oss-process dfs select "
    "select/csv select/json"
)
_FOREIGN = frozenset(_FOREIGN_NAMES.split())


def operation_name(call: Call) -> str:
    place = "object" if call.key else "bucket" if call.bucket else "service"
    foreign = _FOREIGN.intersection(call.query)
    if foreign:
        raise not_implemented(min(foreign))
    for route in ROUTES:
        if (
            route.method == call.method
            and route.place == place
            and all(name in call.query for name in route.query)
            and (not route.header or call.header(route.header))
        ):
            return route.name
    raise Refusal(
        405,
        "MethodNotAllowed",
        "The specified method is not allowed against this resource.",
        fields={"Method": call.method, "ResourceType": place.capitalize()},
    )


def operations(storage: Storage, region: str, reserved: frozenset[str]) -> Mapping[str, Operation]:
    """Every operation of ROUTES by name."""
    objects, appends, multipart = Objects(storage), Appends(storage), Multipart(storage)
    multipart_listings = MultipartListings(storage)
    attributes, listings, buckets = Attributes(storage), Listings(storage), Buckets(storage, region, reserved)
    return {
        "ListBuckets": buckets.list_all,
        "GetBucketInfo": buckets.info,
        "GetBucketLocation": buckets.location,
        "GetBucketStat": buckets.stat,
        "GetBucketAcl": buckets.get_acl,
        "PutBucketAcl": buckets.put_acl,
        "HeadBucket": buckets.head,
        "PutBucket": buckets.create,
        "DeleteBucket": buckets.delete,
        "DeleteMultipleObjects": buckets.delete_many,
        "ListObjects": listings.version1,
        "ListObjectsV2": listings.version2,
        "ListMultipartUploads": multipart_listings.list_uploads,
        "InitiateMultipartUpload": multipart.initiate,
        "UploadPart": multipart.upload_part,
        "UploadPartCopy": multipart.upload_part_copy,
        "ListParts": multipart_listings.list_parts,
        "CompleteMultipartUpload": multipart.complete,
        "AbortMultipartUpload": multipart.abort,
        "GetObjectAcl": attributes.get_acl,
        "PutObjectAcl": attributes.put_acl,
        "GetObjectTagging": attributes.get_tags,
        "PutObjectTagging": attributes.put_tags,
        "DeleteObjectTagging": attributes.delete_tags,
        "GetSymlink": attributes.get_symlink,
        "PutSymlink": attributes.put_symlink,
        "RestoreObject": attributes.restore,
        "AppendObject": appends.append,
        "CopyObject": objects.copy,
        "PutObject": objects.put,
        "GetObjectMeta": objects.meta,
        "DeleteObject": objects.delete,
        "HeadObject": objects.head,
        "GetObject": objects.get,
    }
