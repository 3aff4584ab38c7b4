"""Where a volume may keep blocks on a disk: the values of `cache`, and which host paths an administrator allows.

Paths are judged by their text alone; that no symbolic link leads elsewhere is seen to where the directory is made
(`csi/handover/cache_places.py`).
"""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Sequence

from csi.errors import InvalidOption

NONE = "none"
EMPTY_DIR = "emptyDir"

_ACCEPTED = f"{NONE}, {EMPTY_DIR}, or an absolute path of the host such as /var/cache/ossfuse"
_LONGEST = 1024
_OTHER_WORDS = {"hostpath": "/var/cache/ossfuse", "ephemeral": EMPTY_DIR, "false": NONE, "off": NONE, "true": EMPTY_DIR}


def parse_place(key: str, text: str) -> str:
    """`none`, `emptyDir`, or an absolute path in its shortest form. Raises InvalidOption naming `key`."""
    word = text.strip()
    for place in (NONE, EMPTY_DIR):
        if word.casefold() == place.casefold():
            return place
    if word.startswith("/"):
        return parse_host_path(key, word)
    near = _OTHER_WORDS.get(word.casefold(), "") or next(
        iter(difflib.get_close_matches(word[:_LONGEST], (NONE, EMPTY_DIR), n=1)), ""
    )
    if not near and "/" in word:
        near = "/" + word.lstrip("./")
    raise InvalidOption(key, text, _ACCEPTED, hint=f"did you mean {near}?" if near else "")


def parse_host_path(key: str, text: str) -> str:
    """An absolute path below the root, without `..`. Raises InvalidOption naming `key`."""
    path = posixpath.normpath("/" + text.lstrip("/")) if text.startswith("/") else text
    if (
        not path.startswith("/")
        or path == "/"
        or ".." in text.split("/")
        or not text.isprintable()
        or len(text.encode()) > _LONGEST
    ):
        raise InvalidOption(key, text, f"an absolute path below / of at most {_LONGEST} bytes, without '..'")
    return path


def is_allowed(path: str, prefixes: Sequence[str]) -> bool:
    """Whether `path`, as of `parse_place`, is one of `prefixes` or below one."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def refusal(path: str, prefixes: Sequence[str]) -> InvalidOption:
    """What to say of a path that is not allowed."""
    allowed = " or ".join(prefixes)
    return InvalidOption.stating(
        "cache",
        f"cache: the host path {path!r} is not one that this cluster's administrator allows for caches",
        hint=f"use a path below {allowed}, or cache: {EMPTY_DIR}"
        if allowed
        else f"use cache: {EMPTY_DIR}, or have the path added to cache.allowedHostPaths of the chart",
    )
