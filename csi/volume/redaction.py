"""Struck out of every log, whoever wrote it: what looks like the value of a credential."""

from __future__ import annotations

import re
from typing import Final

_SENSITIVE: Final = re.compile(
    r"(?i)\b(access[_-]?key[_-]?secret|ak[_-]?secret|security[_-]?token|session[_-]?token|x-oss-security-token|"
    r"signature|x-oss-signature|authorization|password)(\"?'?\s*[=:]\s*\"?'?)(?:(?:OSS4-HMAC-SHA256|OSS)\s+)?[^\s\"',;&]+"
)


def redacted(text: str) -> str:
    """`text` with the values of credential-like names replaced."""
    return _SENSITIVE.sub(lambda match: f"{match[1]}{match[2]}***", text)
