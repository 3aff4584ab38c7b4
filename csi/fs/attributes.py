"""Extended attributes: what OSS knows of an object, and the user's own metadata.

`user.oss.etag`, `user.oss.storage-class`, `user.oss.type`, `user.oss.content-type` and `user.oss.crc64` tell about the
object and cannot be set. Every other `user.NAME` is the object's metadata `x-oss-meta-NAME` (`user.oss.NAME` is another
word for it). Setting one copies the object onto itself inside OSS, on the condition that nobody changed it meanwhile.
Values that a header cannot carry are stored as `base64:…` and read back as they were.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable

from csi.errors import (
    EntryExists,
    NoAttribute,
    NoSpaceForAttributes,
    ObjectNotFound,
    OperationNotSupported,
    PreconditionFailed,
    StaleFile,
)
from csi.fs.files import Files
from csi.fs.metadata import APPENDABLE_TYPE, SYMLINK_TYPE, facts_of
from csi.fs.names import shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.types import FileKind
from csi.oss.store import ObjectMetadata, ObjectStore
from csi.volume.units import Bytes

METADATA_MAX = Bytes(8 * 1024)
"""Names and values of an object's user metadata together (OSS, "Manage object metadata")."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_PLAIN = re.compile(rb"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_ENCODED = "base64:"
_ABOUT = ("etag", "storage-class", "type", "content-type", "crc64")


class ExtendedAttributes:
    def __init__(self, store: ObjectStore, namespace: Namespace, files: Files, *, enabled: bool) -> None:
        self._store = store
        self._namespace = namespace
        self._table = namespace.table
        self._files = files
        self._enabled = enabled

    def get(self, node: Node, name: bytes) -> bytes:
        """Raises NoAttribute, OperationNotSupported (-ono_xattr)."""
        self._require()
        about, key = _parse(name)
        if key is None or not _is_object(node):
            raise _no_attribute(node, name)
        facts = node.facts
        if about and facts is not None and key in ("etag", "storage-class", "type") and facts.etag:
            return {"etag": facts.etag, "storage-class": facts.storage_class, "type": facts.type}[key].encode()
        metadata = self._metadata(node)
        if about:
            value = metadata.content_type if key == "content-type" else str(metadata.crc64 or "")
            if not value:
                raise _no_attribute(node, name)
            return value.encode()
        stored = metadata.user.get(key)
        if stored is None:
            raise _no_attribute(node, name)
        return _decoded(stored)

    def names(self, node: Node) -> list[bytes]:
        """listxattr(2): the object's own, then the user's."""
        self._require()
        if not _is_object(node):
            return []
        metadata = self._metadata(node)
        about = [key for key in _ABOUT if key not in ("content-type", "crc64")]
        if metadata.content_type:
            about.append("content-type")
        if metadata.crc64 is not None:
            about.append("crc64")
        return [f"user.oss.{key}".encode() for key in about] + [f"user.{key}".encode() for key in sorted(metadata.user)]

    def set(self, node: Node, name: bytes, value: bytes, flags: int = 0) -> None:
        """setxattr(2); `flags` are XATTR_CREATE and XATTR_REPLACE. A file being written becomes an object first.

        Raises NoSpaceForAttributes when all metadata together would be over 8 KiB."""
        key = self._writable_key(node, name)

        def change(user: dict[str, str]) -> None:
            if flags & os.XATTR_CREATE and key in user:
                raise EntryExists(f"{shown(node.name)} has {shown(name)} already")
            if flags & os.XATTR_REPLACE and key not in user:
                raise _no_attribute(node, name)
            user[key] = _encoded(value)
            size = sum(len(each) + len(content) for each, content in user.items())
            if size > METADATA_MAX:
                raise NoSpaceForAttributes(
                    f"{shown(node.name)}: extended attributes would take {size} bytes",
                    hint=f"OSS keeps at most {METADATA_MAX} bytes of metadata with an object",
                )

        self._rewrite(node, change)

    def remove(self, node: Node, name: bytes) -> None:
        key = self._writable_key(node, name)

        def change(user: dict[str, str]) -> None:
            if user.pop(key, None) is None:
                raise _no_attribute(node, name)

        self._rewrite(node, change)

    # --- private ---

    def _require(self) -> None:
        if not self._enabled:
            raise OperationNotSupported(
                "extended attributes are switched off", hint="mount without -ono_xattr to have them"
            )

    def _writable_key(self, node: Node, name: bytes) -> str:
        self._require()
        about, key = _parse(name)
        if key is None or about:
            raise OperationNotSupported(
                f"the attribute {shown(name)} cannot be set",
                hint="names are user.NAME with lower-case letters, digits, '.', '_' and '-'; those of OSS are fixed",
            )
        if node.kind is not FileKind.FILE or (node.facts is not None and node.facts.type == SYMLINK_TYPE):
            raise OperationNotSupported(f"{shown(node.name)}: only files have extended attributes")
        return key

    def _metadata(self, node: Node) -> ObjectMetadata:
        """HeadObject, kept for as long as the version is the same."""
        local, facts = self._table.local(node), node.facts
        known = local.metadata
        if known is not None and known.content_type and facts is not None and known.etag == facts.etag:
            return known
        try:
            local.metadata = self._store.head(self._table.key(node))
        except ObjectNotFound as error:
            raise StaleFile(f"{shown(node.name)} is no longer in the bucket") from error
        return local.metadata

    def _rewrite(self, node: Node, change: Callable[[dict[str, str]], None]) -> None:
        with self._files.change(node), self._files.turn(node):
            self._files.complete(node)
            key = self._table.key(node)
            local = self._table.local(node)
            local.metadata = None
            metadata = self._metadata(node)
            if metadata.type == APPENDABLE_TYPE:
                raise OperationNotSupported(
                    f"{shown(node.name)} is an Appendable object", hint="OSS would make it a normal one by the copy"
                )
            user = dict(metadata.user)
            change(user)
            try:
                result = self._store.copy(
                    key,
                    key,
                    size=metadata.size,
                    if_match=metadata.etag,
                    user=user,
                    content_type=metadata.content_type,
                )
            except PreconditionFailed as error:
                raise StaleFile(f"{shown(node.name)} was changed by another client", hint="try again") from error
            with self._table.lock:
                local.metadata = None
                local.lineage |= {metadata.etag}
                facts = facts_of(metadata, symlinks=False)
                self._namespace.knowledge.changed(
                    node, type(facts)(facts.kind, facts.size, result.etag, facts.modified, "Normal")
                )


def _is_object(node: Node) -> bool:
    """Whether there is an object that HEAD can tell about."""
    is_unfollowed = node.facts is not None and node.facts.is_unfollowed
    return node.kind is FileKind.FILE and node.draft is None and not is_unfollowed


def _parse(name: bytes) -> tuple[bool, str | None]:
    """(whether it is one of the object's own, its key); key None: no attribute has this name."""
    text = name.decode("utf-8", "replace")
    if not text.startswith("user."):
        return False, None
    key = text.removeprefix("user.").removeprefix("oss.")
    if not _NAME.fullmatch(key):
        return False, None
    return text.startswith("user.oss.") and key in _ABOUT, key


def _encoded(value: bytes) -> str:
    if _PLAIN.fullmatch(value) and not value.startswith(_ENCODED.encode()):
        return value.decode("ascii")
    return _ENCODED + base64.b64encode(value).decode("ascii")


def _decoded(stored: str) -> bytes:
    if stored.startswith(_ENCODED):
        try:
            return base64.b64decode(stored.removeprefix(_ENCODED), validate=True)
        except binascii.Error:
            pass  # another program's value that only looks like ours
    return stored.encode("utf-8", "surrogateescape")


def _no_attribute(node: Node, name: bytes) -> NoAttribute:
    return NoAttribute(f"{shown(node.name)} has no attribute {shown(name)}")
