"""Which names a volume can have, and how a path below the mount becomes the key of an object and back.

A path is the key without the volume's prefix: 'a/b', '' for the mount itself, never with a slash at either end. Names
are bytes as the kernel has them; keys are text in which bytes that are no UTF-8 are surrogate-escaped. This module
knows the rules of OSS (1–1023 bytes of UTF-8, not starting with '/' or '\\') and of POSIX (255 bytes a name), and
nothing about what exists.
"""

from __future__ import annotations

from csi.errors import NameNotAllowed, NameTooLong
from csi.volume.units import ObjectKey

NAME_MAX = 255
"""Bytes of one name, as in limits.h: the kernel cannot show longer ones."""

KEY_MAX = 1023
"""Bytes of one object key (OSS, "Object naming conventions")."""

LAST = "\U0010ffff"
"""Behind a name it makes the place after everything that begins with the name."""


def decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def shown(name: bytes) -> str:
    """`name` for a message: printable, and short."""
    text = ascii(name.decode("utf-8", "replace")) if not name.isascii() else name.decode("ascii")
    return text if len(text) <= 120 else f"{text[:120]}…"


def join(parent: str, name: bytes) -> str:
    """The path of `name` in the directory `parent`."""
    return f"{parent}/{decode(name)}" if parent else decode(name)


def is_visible(name: bytes) -> bool:
    """Whether a path component found in the bucket can be shown by a file system: others stay hidden."""
    return 0 < len(name) <= NAME_MAX and name not in (b".", b"..") and b"\0" not in name and b"/" not in name


def check_lookup(name: bytes) -> None:
    """Raises NameTooLong for a name that is longer than any the mount shows; anything else may be asked for."""
    if len(name) > NAME_MAX:
        raise NameTooLong(f"the name {shown(name)} has {len(name)} bytes", hint=f"names have at most {NAME_MAX} bytes")


def check_new(prefix: str, path: str, name: bytes, *, directory: bool = False) -> None:
    """Whether an object may be made for `path`, whose last component is `name`.

    Raises NameTooLong (a name over 255 bytes, a key over 1023) and NameNotAllowed (names that OSS cannot hold or that
    the mount could never show again).
    """
    check_lookup(name)
    if not is_visible(name):
        raise NameNotAllowed(
            f"{shown(name)!r} cannot be a name", hint="use a name without '/' and NUL, not '.' or '..'"
        )
    try:
        length = len((prefix + path).encode("utf-8")) + (1 if directory else 0)
    except UnicodeEncodeError:
        raise NameNotAllowed(
            f"the name {shown(name)} is not UTF-8", hint="OSS keys are UTF-8: use a name that is, e.g. convmv it"
        ) from None
    if length > KEY_MAX:
        raise NameTooLong(
            f"the object key of {shown(name)} would have {length} bytes", hint=f"OSS keys have at most {KEY_MAX} bytes"
        )
    if (prefix + path).startswith("\\"):
        raise NameNotAllowed(
            f"the object key of {shown(name)} would start with a backslash",
            hint="OSS refuses such keys at the top of a bucket: use another name or a directory",
        )


def object_key(prefix: str, path: str) -> ObjectKey:
    """The key of the file at `path`."""
    return ObjectKey(prefix + path)


def directory_key(prefix: str, path: str) -> ObjectKey:
    """The prefix of everything in the directory at `path`, which is also the key of its marker object."""
    return ObjectKey(f"{prefix}{path}/" if path else prefix)


def is_inside(path: str, root: str) -> bool:
    """Whether `path` is `root` or below it."""
    return not root or path == root or path.startswith(f"{root}/")
