"""What the option table is made of: one Option says everything about one key of a volume.

Parser, command line and docs/options.md all read the same rows, so that a key cannot be documented and not parsed, or
parsed and not documented. A row with effect IMPLEMENTED names the field of VolumeSpec it sets and how its text is
read; every other row carries the reason that users are told. This module holds no rows.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Effect(enum.Enum):
    IMPLEMENTED = "implemented"
    NO_EFFECT = "accepted, no effect"
    REFUSED = "refused"
    AT_CREATION = "only in a StorageClass"  # read by the controller when a volume is made, of no volume by itself


class Kind(enum.Enum):
    """How the text of a value is read; the value is the word used in the documentation."""

    TEXT = "text"
    BOOLEAN = "true or false"
    INTEGER = "integer"
    SIZE = "size in bytes"
    MEBIBYTES = "integer, MiB"
    MILLISECONDS = "integer, ms"
    MEMORY = "quantity, bytes"
    CPU = "quantity, cores"
    OCTAL = "octal permissions"
    CHOICE = "one of"
    PLACE = "none, emptyDir or an absolute path of the host"


class Topic(enum.Enum):
    """The sections of docs/options.md."""

    LOCATION = "Where the data is"
    MODE = "Mode and arguments"
    SIDECAR = "Resources of the sidecar"
    READ = "Reading"
    WRITE = "Writing"
    DISK = "Cache on a disk"
    HTTP = "Requests to OSS"
    CREDENTIALS = "Credentials"
    OWNERSHIP = "Ownership shown by the mount"
    LOGGING = "Logs and metrics"
    CACHE = "Jindo cache cluster"
    OTHER = "Other known names"
    CREATION = "Parameters of a StorageClass alone"


@dataclass(frozen=True, slots=True)
class Option:
    """One key of a volume.

    `key` may contain one `<NAME>`, which stands for any text without a dot. `sets` is the VolumeSpec field that an
    implemented option sets (`read.threads`); location, mode, options and arguments are read by their own modules and
    have none. `choices` maps accepted texts to what they mean; `minimum` and `maximum` are in the unit of the text, for
    CPU in thousandths of a core.
    `default` and `by_mode` are for the reader; the defaults themselves are those of VolumeSpec and of the mode.
    `reason` is why an option has no effect or is refused (on a volume), and what to do instead. `secret`: its value is
    never shown.
    """

    key: str
    topic: Topic
    kind: Kind
    effect: Effect
    documentation: str
    aliases: tuple[str, ...] = ()
    default: str = ""
    by_mode: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    sets: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)
    minimum: int | None = None
    maximum: int | None = None
    secret: bool = False

    def written(self, bound: int) -> str:
        """`minimum` or `maximum` as a user would write it."""
        return f"{bound}m" if self.kind is Kind.CPU else str(bound)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.key, *self.aliases)


def implemented(key: str, topic: Topic, kind: Kind, doc: str, **rest: object) -> Option:
    """A key with an effect; `rest` are fields of Option."""
    return Option(key, topic, kind, Effect.IMPLEMENTED, doc, **rest)  # type: ignore[arg-type]  # checked at import


def at_creation(key: str, kind: Kind, doc: str, reason: str, **rest: object) -> Option:
    """A parameter of a StorageClass that says how volumes are made; `reason`: why no volume has it."""
    return Option(key, Topic.CREATION, kind, Effect.AT_CREATION, doc, reason=reason, **rest)  # type: ignore[arg-type]


def no_effect(
    key: str, topic: Topic, reason: str, *, kind: Kind = Kind.TEXT, default: str = "", doc: str = ""
) -> Option:
    """A key that is known and changes nothing, for `reason`."""
    return Option(key, topic, kind, Effect.NO_EFFECT, doc, default=default, reason=reason)


def refused(key: str, topic: Topic, reason: str, *, secret: bool = False, aliases: tuple[str, ...] = ()) -> Option:
    """A key that is known and cannot be accepted, for `reason`."""
    return Option(key, topic, Kind.TEXT, Effect.REFUSED, "", aliases=aliases, reason=reason, secret=secret)
