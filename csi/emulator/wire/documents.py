"""XML in and out, in OSS's dialect: elements without a namespace, text escaped, lists as repeated elements.

Documents are built from nested pairs so that a thousand-key listing is one pass of string joins. It must not know what
the elements mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from xml.etree import ElementTree

from csi.emulator.wire.refusals import malformed_xml

Node = tuple[str, "str | int | Sequence[Node]"]
"""An element: its name, and its text or its children."""

_HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'
# Control characters too: keys may contain them when a client does not ask for encoding-type=url.
_SPECIAL = re.compile(r"[&<>\x00-\x1f\x7f]")
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def document(name: str, children: Sequence[Node]) -> bytes:
    return (_HEADER + element(name, children)).encode("utf-8", "replace")


def element(name: str, content: str | int | Sequence[Node]) -> str:
    if isinstance(content, int):
        return f"<{name}>{content}</{name}>"
    if isinstance(content, str):
        return f"<{name}>{text(content)}</{name}>"
    return f"<{name}>{''.join([element(child, inner) for child, inner in content])}</{name}>"


def text(value: str) -> str:
    """`value` as element content."""
    return _SPECIAL.sub(_escape, value) if _SPECIAL.search(value) else value


def raw_document(name: str, elements: Iterable[str]) -> bytes:
    """A document of elements already rendered by `element` (long lists)."""
    return f"{_HEADER}<{name}>{''.join(elements)}</{name}>".encode("utf-8", "replace")


def parse(body: bytes, expected_root: str) -> ElementTree.Element:
    """The root element with namespaces removed; MalformedXML when it is not `expected_root` or not XML."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise malformed_xml()
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - document types and entities are refused above
    except ElementTree.ParseError:
        raise malformed_xml() from None
    for item in root.iter():
        item.tag = item.tag.rpartition("}")[2]
    if root.tag != expected_root:
        raise malformed_xml()
    return root


def child_text(item: ElementTree.Element, name: str) -> str:
    found = item.find(name)
    if found is None:
        raise malformed_xml()
    return found.text or ""


@lru_cache(maxsize=4096)  # neighbours in a listing often share their time
def timestamp(seconds: int) -> str:
    """`seconds` since the epoch as OSS prints it in XML: 2012-02-24T08:42:32.000Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _NAMED.get(character) or f"&#x{ord(character):X};"
