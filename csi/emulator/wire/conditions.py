"""Ranges and preconditions of GetObject, HeadObject, PutObject and the copies, by OSS's rules.

Source: API reference GetObject ("Range", "x-oss-range-behavior", "If-*"), CopyObject ("x-oss-copy-source-if-*"). It
must not know storage.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

from csi.emulator.store.index import StoredObject
from csi.emulator.wire.answers import http_date, quoted
from csi.emulator.wire.call import Call
from csi.emulator.wire.refusals import Refusal, file_already_exists, precondition_failed

_RANGE = re.compile(r"bytes=(\d*)-(\d*)(?:,.*)?")  # OSS serves the first of several ranges


def requested_range(header: str, size: int, *, standard: bool) -> tuple[int, int] | None:
    """[start, end) to send as 206, or None for the whole object with 200.

    Without `x-oss-range-behavior: standard` a range that does not lie inside the object is ignored; with it the end
    is cut to the object and a start past it is refused with InvalidRange (416).
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return _suffix(header, int(last), size, standard=standard)
    start, end = int(first), int(last) + 1 if last else size
    if last and end <= start:
        return None
    if start >= size:
        if standard:
            raise _invalid_range(header, size)
        return None
    if end > size:
        return (start, size) if standard else None
    return start, end


def check_read(call: Call, stored: StoredObject) -> None:
    """Raises PreconditionFailed (412) or NotModified (304); If-Match before dates, as RFC 9110 §13.2.2 orders them."""
    _check(call, stored, "If-")


def check_copy_source(call: Call, stored: StoredObject) -> None:
    _check(call, stored, "x-oss-copy-source-if-")


def check_write(call: Call, existing: StoredObject | None) -> None:
    """x-oss-forbid-overwrite (409 FileAlreadyExists), If-Match and If-None-Match (412) of a write."""
    if existing is not None and call.flag("x-oss-forbid-overwrite"):
        raise file_already_exists()
    wanted = call.header("If-Match")
    if wanted and (existing is None or not _matches(wanted, existing.etag)):
        raise precondition_failed("If-Match")
    unwanted = call.header("If-None-Match")
    if unwanted and existing is not None and _matches(unwanted, existing.etag):
        raise precondition_failed("If-None-Match")


def _suffix(header: str, count: int, size: int, *, standard: bool) -> tuple[int, int] | None:
    if count == 0 or size == 0:
        if standard:
            raise _invalid_range(header, size)
        return None
    if count > size:
        return (0, size) if standard else None
    return size - count, size


def _invalid_range(header: str, size: int) -> Refusal:
    return Refusal(
        416,
        "InvalidRange",
        "The requested range cannot be satisfied",
        fields={"ActualObjectSize": str(size), "RangeRequested": header},
        headers={"Content-Range": f"bytes */{size}"},
    )


def _check(call: Call, stored: StoredObject, prefix: str) -> None:
    wanted = call.header(prefix + "Match")
    if wanted:
        if not _matches(wanted, stored.etag):
            raise precondition_failed("If-Match")
    else:
        unmodified = _seconds(call.header(prefix + "Unmodified-Since"))
        if unmodified is not None and stored.modified > unmodified:
            raise precondition_failed("If-Unmodified-Since")
    unwanted = call.header(prefix + "None-Match")
    if unwanted:
        if _matches(unwanted, stored.etag):
            raise _not_modified(stored)
        return
    modified = _seconds(call.header(prefix + "Modified-Since"))
    if modified is not None and stored.modified <= modified:
        raise _not_modified(stored)


def _not_modified(stored: StoredObject) -> Refusal:
    headers = {"ETag": quoted(stored.etag), "Last-Modified": http_date(stored.modified)}
    return Refusal(304, "NotModified", "Not Modified", headers=headers)


def _matches(header: str, etag: str) -> bool:
    return any(tag.strip().strip('"') in (etag, "*") for tag in header.split(","))


def _seconds(date: str) -> float | None:
    """An HTTP date, None when absent or malformed (then it is no condition)."""
    if not date:
        return None
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
