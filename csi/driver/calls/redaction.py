"""What a request may look like in a log: everything but its secrets.

Secrets are the fields marked `csi_secret`, the service account tokens kubelet puts into `volume_context` without any
mark, and what users paste where it does not belong: passwords in mount flags, keys in attributes. Redaction works on a
copy, because the request itself is still needed; `secret_values` and `scrub` keep the same strings out of error
messages, wherever those come from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from csi.v1 import csi_pb2

STRIPPED = "***stripped***"
SERVICE_ACCOUNT_TOKENS = "csi.storage.k8s.io/serviceAccount.tokens"

_LONGEST_LINE = 4096
_LARGEST_MESSAGE = 2**18
_SHORTEST_SECRET = 6
"""Characters. Shorter values would also be found in innocent words."""
_SENSITIVE_NAME = re.compile(
    r"(secret|passw(or)?d|token|access[-_.]?key|ak[-_.]?id|security|credential|signature|authorization|private)", re.I
)
_LONGEST_VALUE = 2048
"""Characters of one value that are shown; what a log line needs, and what bounds the work of redacting it."""
_OPTION = re.compile(r"(?<![A-Za-z0-9_.\-])(?P<name>[A-Za-z0-9_.\-]+)=(?P<value>[^,\s]*)")
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def redacted(message: Message) -> str:
    """`message` in one line without secrets; `message` itself is not touched."""
    if message.ByteSize() > _LARGEST_MESSAGE:
        return f"{message.DESCRIPTOR.name} of {message.ByteSize()} bytes"
    copy = type(message)()
    copy.CopyFrom(message)
    _strip(copy)
    line = text_format.MessageToString(copy, as_one_line=True, as_utf8=True)
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}… ({len(line)} characters)"


def secret_values(message: Message) -> frozenset[str]:
    """Every secret string that `message` carries, the strings inside JSON values included."""
    return frozenset(value for value in _secrets(message) if len(value) >= _SHORTEST_SECRET)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """`text` with every occurrence of a secret replaced; longest first, so that no part of one stays behind."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, STRIPPED)
    return text


def is_sensitive(name: str) -> bool:
    """Whether a key of this name must be taken for a secret."""
    return bool(_SENSITIVE_NAME.search(name))


def redact_value(key: str, value: str) -> str:
    """The value of attribute `key` as it may be shown."""
    if is_sensitive(key):
        return STRIPPED
    if len(value) > _LONGEST_VALUE:
        return f"({len(value)} characters)"
    if value.lstrip().startswith(("{", "[")):
        try:
            return json.dumps(_safe_json(json.loads(value)), ensure_ascii=False)
        except (ValueError, RecursionError):
            return f"(not JSON, {len(value)} characters)"
    return _safe_options(value)


def _strip(message: Message) -> None:
    for field, value in message.ListFields():
        if _is_secret(field):
            _strip_whole(message, field, value)
        elif _is_string_map(field):
            for key in list(value):
                value[key] = redact_value(key, value[key])
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for nested in _nested(field, value):
                _strip(nested)
        elif field.name == "mount_flags":
            flags = [redact_value("", flag) for flag in value]
            del value[:]
            value.extend(flags)


def _strip_whole(message: Message, field: FieldDescriptor, value: object) -> None:
    if _is_string_map(field):
        names: dict[str, str] = value  # type: ignore[assignment]  # a protobuf map container
        for key in list(names):
            names[key] = STRIPPED
    elif field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
        setattr(message, field.name, STRIPPED)
    else:
        message.ClearField(field.name)


def _safe_json(value: object) -> object:
    if isinstance(value, dict):
        return {key: STRIPPED if is_sensitive(key) else _safe_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_safe_json(item) for item in value]
    return _safe_options(value) if isinstance(value, str) else value


def _safe_options(text: str) -> str:
    """Option lists such as `-opasswd=x,ro` and addresses such as `http://user:x@host`."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match['name']}={STRIPPED}" if is_sensitive(match["name"]) else match[0]

    return _USER_INFO.sub(STRIPPED, _OPTION.sub(replaced, text))


def _secrets(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        if _is_secret(field):
            yield from _strings(dict(value) if _is_string_map(field) else value)
        elif _is_string_map(field):
            for key, item in value.items():
                if is_sensitive(key):
                    yield from _strings(item)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for nested in _nested(field, value):
                yield from _secrets(nested)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        if value.lstrip().startswith(("{", "[")):
            try:
                parsed = json.loads(value)
            except (ValueError, RecursionError):
                return
            yield from _strings(parsed)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, Iterable):
        for item in value:
            yield from _strings(item)


def _is_secret(field: FieldDescriptor) -> bool:
    options: Any = field.GetOptions()  # the generated stubs do not type extensions
    return bool(options.Extensions[csi_pb2.csi_secret])


def _is_string_map(field: FieldDescriptor) -> bool:
    entry = field.message_type
    return (
        entry is not None
        and entry.GetOptions().map_entry
        and entry.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING
    )


def _nested(field: FieldDescriptor, value: object) -> Iterable[Message]:
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return list(value.values())  # type: ignore[attr-defined]  # a map of messages
        return list(value)  # type: ignore[call-overload,no-any-return]  # a repeated message field
    return [value]  # type: ignore[list-item]  # a message field
