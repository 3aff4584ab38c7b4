"""Text in XML documents, there and back. Not by xml.sax.saxutils: that loads an HTTP client with TLS, a tenth of what a
sidecar loads at its start."""

from __future__ import annotations

import re
from typing import Final

_ENTITY: Final = re.compile(r"&(#x[0-9a-fA-F]+|#[0-9]+|amp|lt|gt|quot|apos);")
_NAMED: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_ESCAPES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
)
"""Line ends and tabs too: a reader of XML may take them for blanks."""


def escape(text: str) -> str:
    return text.translate(_ESCAPES)


def unescape(text: str) -> str:
    """Raises ValueError or OverflowError where a number is no character's."""
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(match: re.Match[str]) -> str:
    name = match.group(1)
    if not name.startswith("#"):
        return _NAMED[name]
    return chr(int(name[2:], 16) if name[1:2] in "xX" else int(name[1:]))
