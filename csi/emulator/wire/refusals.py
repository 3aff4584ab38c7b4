"""What the emulator says no with: one exception carrying HTTP status, OSS error code, message and extra XML fields.

Codes and messages are those of the OSS API reference (error responses of each operation). A refusal never contains a
secret. It must not know how an answer is sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from csi.errors import OssFuseError


class Refusal(OssFuseError):
    """An OSS error answer. `fields` are further elements of the error XML, `headers` further response headers."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})


def invalid_argument(message: str, name: str = "", value: str = "") -> Refusal:
    fields = {"ArgumentName": name, "ArgumentValue": value} if name else {}
    return Refusal(400, "InvalidArgument", message, fields=fields)


def invalid_object_name(name: str) -> Refusal:
    return Refusal(400, "InvalidObjectName", "The specified object is not valid.", fields={"ObjectName": name[:1024]})


def no_such_key(key: str) -> Refusal:
    return Refusal(404, "NoSuchKey", "The specified key does not exist.", fields={"Key": key})


def no_such_bucket(name: str) -> Refusal:
    return Refusal(404, "NoSuchBucket", "The specified bucket does not exist.", fields={"BucketName": name})


def no_such_upload(upload_id: str) -> Refusal:
    message = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted."
    return Refusal(404, "NoSuchUpload", message, fields={"UploadId": upload_id})


def precondition_failed(condition: str) -> Refusal:
    message = "At least one of the pre-conditions you specified did not hold."
    return Refusal(412, "PreconditionFailed", message, fields={"Condition": condition})


def file_already_exists() -> Refusal:
    message = "The object you specified already exists and can not be overwritten."
    return Refusal(409, "FileAlreadyExists", message)


def access_denied(message: str = "You have no right to access this object because of bucket acl.") -> Refusal:
    return Refusal(403, "AccessDenied", message)


def entity_too_large(limit: int, proposed: int) -> Refusal:
    message = "Your proposed upload exceeds the maximum allowed size."
    return Refusal(400, "EntityTooLarge", message, fields={"MaxSizeAllowed": str(limit), "ProposedSize": str(proposed)})


def not_implemented(what: str) -> Refusal:
    return Refusal(
        501,
        "NotImplemented",
        "A header or query you provided implies functionality that is not implemented.",
        fields={"Header": what},
    )


def malformed_xml() -> Refusal:
    message = "The XML you provided was not well-formed or did not validate against our published schema."
    return Refusal(400, "MalformedXML", message)
