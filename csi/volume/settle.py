"""Rules between options: what one value means for another, once each has been read by itself.

`settle` works on the draft of a VolumeSpec, a map from field (`read.threads`) to value. Windows and parts are cut to
what the memory limit allows, because a guide's value must not become an out-of-memory kill; everything that would
contradict itself is refused. A cut is told in a note, never made in silence.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TypeVar

from csi.errors import InvalidOption
from csi.volume.caching import NONE
from csi.volume.quantity import format_bytes
from csi.volume.spec import MEMORY_FLOOR, SMALLEST_BUFFER, SMALLEST_CACHE, AuthType
from csi.volume.units import Bytes, Seconds

_SHARE = 4
"""One reader's window, one part and one buffer each take at most this fraction of the memory limit."""
_LEAST_DEADLINE = Seconds(60.0)
_TRIES = 2
_ROLE_FIELDS = (
    (
        "credentials.role_arn",
        "roleArn",
        re.compile(r"acs:ram::[0-9]+:role/[A-Za-z0-9_.@/-]{1,128}"),
        "a role such as acs:ram::1234567890123456:role/training",
    ),
    (
        "credentials.oidc_provider_arn",
        "oidcProviderArn",
        re.compile(r"acs:ram::[0-9]+:oidc-provider/[A-Za-z0-9_.@/-]{1,128}"),
        "a provider such as acs:ram::1234567890123456:oidc-provider/ack-rrsa-c0ffee",
    ),
    (
        "credentials.service_account_name",
        "serviceAccountName",
        re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)?"),
        "the name of a service account",
    ),
)
_T = TypeVar("_T")


class Draft:
    """Fields of a VolumeSpec on their way to being one. Used by one thread, inside one call of the parser."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.notes: dict[str, str] = {}

    def get(self, field: str, kind: type[_T]) -> _T:
        """The value of `field`, which is a `kind`."""
        value = self.values[field]
        if not isinstance(value, kind):
            raise TypeError(f"{field} is {value!r}, not a {kind.__name__}")
        return value

    def change(self, field: str, value: object, note: str) -> None:
        self.values[field] = value
        self.notes[field] = note


def settle(draft: Draft, given: Collection[str], *, region_known: bool) -> None:
    """Apply the rules; `given` are the fields the user wrote. Raises InvalidOption for contradictions."""
    _resources(draft, given)
    _sizes(draft)
    _encryption(draft)
    _requests(draft, given, region_known)
    _credentials(draft, given)
    _cache(draft, given)


def _resources(draft: Draft, given: Collection[str]) -> None:
    limit = draft.get("resources.memory_limit", int)
    if limit < MEMORY_FLOOR:
        raise InvalidOption(
            "fs.jindo.fuse.pod.mem.limit",
            format_bytes(limit),
            f"at least {format_bytes(MEMORY_FLOOR)}, the least a sidecar can work in",
        )
    if "resources.memory_request" not in given:
        draft.change("resources.memory_request", Bytes(limit), "the memory limit")
    elif (request := draft.get("resources.memory_request", int)) > limit:
        raise InvalidOption(
            "fs.jindo.fuse.pod.mem.request",
            format_bytes(request),
            f"at most {format_bytes(limit)}, the value of fs.jindo.fuse.pod.mem.limit",
        )
    cpu_limit = draft.values["resources.cpu_limit_millis"]
    cpu_request = draft.get("resources.cpu_request_millis", int)
    if not isinstance(cpu_limit, int) or cpu_request <= cpu_limit:
        return
    if "resources.cpu_request_millis" in given:
        raise InvalidOption(
            "fs.jindo.fuse.pod.cpu.request",
            f"{cpu_request}m",
            f"at most {cpu_limit}m, the value of fs.jindo.fuse.pod.cpu.limit",
        )
    draft.change("resources.cpu_request_millis", cpu_limit, "the CPU limit")


def _sizes(draft: Draft) -> None:
    limit = draft.get("resources.memory_limit", int)
    share = limit // _SHARE // SMALLEST_BUFFER * SMALLEST_BUFFER
    why = f"a quarter of the memory limit {format_bytes(limit)}"
    for field in ("read.readahead_size", "read.buffer_size", "write.buffer_size", "write.part_size"):
        size = draft.get(field, int)
        if size > share:
            draft.change(field, Bytes(share), f"cut from {format_bytes(size)}: {why}")
    size, count = draft.get("read.readahead_size", int), draft.get("read.readahead_count", int)
    if size * count > share:
        window = format_bytes(size * count)
        note = f"cut from {count}: a window of {window} is over {why}"
        draft.change("read.readahead_count", max(1, share // size), note)


def _encryption(draft: Draft) -> None:
    kind = draft.values["write.server_side_encryption"]
    for field, key in (
        ("write.server_side_data_encryption", "fs.oss.server-side-data-encryption"),
        ("write.server_side_encryption_key_id", "fs.oss.server-side-encryption-key-id"),
    ):
        value = draft.values[field]
        if value and kind != "KMS":
            raise InvalidOption(
                key, value, "this only together with KMS encryption", hint="set fs.oss.server-side-encryption: KMS"
            )


def _requests(draft: Draft, given: Collection[str], region_known: bool) -> None:
    if draft.values["http.signature_version"] == 0:
        version, why = (4, "the region is known") if region_known else (1, "the region is not known; give region for 4")
        draft.change("http.signature_version", version, why)
    timeout = draft.get("http.timeout", float)
    draft.values["http.deadline"] = Seconds(max(_LEAST_DEADLINE, _TRIES * timeout))
    interval = draft.values["write.flush_interval"]
    if isinstance(interval, float):
        if interval == 0:
            raise InvalidOption("fs.oss.flush.interval.millisecond", "0", "-1, or 1 and more")
        if interval < 0:
            draft.values["write.flush_interval"] = None
    if "write.flush_interval" in given and not draft.values["write.append"]:
        draft.notes["write.flush_interval"] = "no effect without fs.oss.append.enable: true"


def _credentials(draft: Draft, given: Collection[str]) -> None:
    source = draft.values["credentials.auth_type"]
    path = draft.get("credentials.credential_file", str)
    if source is AuthType.FILE and not path.startswith("/"):
        raise InvalidOption("credentialFile", path, "an absolute path, because authType is file")
    if "credentials.credential_file" in given and source is not AuthType.FILE:
        raise InvalidOption("credentialFile", path, "this only together with authType: file", hint="set authType: file")
    for field, key, pattern, form in _ROLE_FIELDS:
        value = draft.get(field, str)
        if source is AuthType.RRSA and not pattern.fullmatch(value):
            raise InvalidOption(key, value, f"{form}, because authType is rrsa")
        if field in given and source is not AuthType.RRSA:
            raise InvalidOption(key, value, "this only together with authType: rrsa", hint="set authType: rrsa")


def _cache(draft: Draft, given: Collection[str]) -> None:
    size = draft.get("cache.size", int)
    if size < SMALLEST_CACHE:
        raise InvalidOption("cacheSize", format_bytes(size), f"at least {format_bytes(SMALLEST_CACHE)}")
    if "cache.size" in given and draft.values["cache.place"] == NONE:
        draft.notes["cache.size"] = "no effect without cache"
