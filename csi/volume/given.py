"""What the user gave, before anything is decided: each key found in the table, with its text and where it was written.

There are three places to write an option: a volume attribute, the `options` JSON that PAI stores, and `-ofs.…` inside
the FUSE arguments. An attribute wins over an argument, an argument over the JSON; losing is told in a warning. Keys
that Kubernetes adds itself are dropped here, refused and unknown keys end here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from csi.errors import InvalidOption
from csi.volume.args import ParsedArguments, parse_arguments, parse_mount_flags
from csi.volume.table.option import Effect, Kind, Option
from csi.volume.table.options import accept
from csi.volume.values import shorten

ATTRIBUTE = "attribute"
OPTIONS_JSON = "options JSON"
MOUNT_OPTIONS = "mountOptions"
ARGUMENTS_KEY = "fs.jindo.args"
OTHER_ARGUMENTS_KEY = "otherOpts"
_KUBERNETES = ("csi.storage.k8s.io/", "storage.kubernetes.io/")
_LARGEST_ATTRIBUTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Given:
    """One key as it was written; `origin` says where."""

    row: Option
    key: str
    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class GivenVolume:
    """Everything that was given. `options` is keyed by the table's key (patterns: by the key as written), `arguments`
    holds FUSE arguments with their origin, the weakest first."""

    options: Mapping[str, Given]
    arguments: Sequence[tuple[str, ParsedArguments]]
    warnings: tuple[str, ...]

    def text(self, key: str) -> str:
        """What was written for the table's `key`, '' if nothing."""
        given = self.options.get(key)
        return given.text if given else ""


def collect(attributes: Mapping[str, str], mount_flags: Sequence[str]) -> GivenVolume:
    """Look every key up; raises InvalidOption for unknown, refused, contradicting and oversized input."""
    _check_size(attributes)
    warnings: list[str] = []
    own = {key: text for key, text in attributes.items() if not key.startswith(_KUBERNETES)}
    by_attribute = _named(own.items(), ATTRIBUTE)
    in_json = _named(_json_object(by_attribute), OPTIONS_JSON)
    arguments = list(_arguments(by_attribute, in_json, mount_flags))
    in_arguments: dict[str, Given] = {}
    for origin, parsed in arguments:
        in_arguments |= _named(parsed.options.items(), origin)
        warnings += [f"{name}: accepted, no effect: {reason}" for name, reason in parsed.notes]
    for given in in_arguments.values():
        if given.row.key in (ARGUMENTS_KEY, OTHER_ARGUMENTS_KEY, "options", "mode"):
            raise InvalidOption(given.key, given.text, "an option that can be set by an argument")
    options = _strongest((in_json, in_arguments, by_attribute), warnings)
    for given in options.values():
        if given.row.effect is Effect.NO_EFFECT:
            warnings.append(f"{given.key}: accepted, no effect: {given.row.reason}")
    return GivenVolume(options, arguments, tuple(warnings))


def _check_size(attributes: Mapping[str, str]) -> None:
    total = 0
    for key, text in attributes.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise InvalidOption(str(key), text, "text; Kubernetes has only strings here, so put it into quotes")
        total += len(key.encode(errors="replace")) + len(text.encode(errors="replace"))
    if total > _LARGEST_ATTRIBUTES:
        raise InvalidOption(
            "volumeAttributes",
            f"{total} bytes",
            f"at most {_LARGEST_ATTRIBUTES} bytes of keys and values",
            hint="remove what does not belong to the volume",
        )


def _named(pairs: Iterable[tuple[str, str]], origin: str) -> dict[str, Given]:
    """Each pair with its row; two names of one option may repeat its value, not contradict it."""
    found: dict[str, Given] = {}
    for key, text in pairs:
        row = accept(key)
        if not text and row.kind is Kind.TEXT and row.key != "mode":
            continue
        name = key if "<" in row.key else row.key
        before = found.get(name)
        if before is not None and before.text != text:
            raise InvalidOption.stating(
                key,
                f"{key}: {shorten(text)!r} contradicts {before.key}: {shorten(before.text)!r}, its other name",
                hint="give one of them",
            )
        found[name] = Given(row, key, text, origin)
    return found


def _strongest(sources: Iterable[Mapping[str, Given]], warnings: list[str]) -> dict[str, Given]:
    """The sources merged, later ones winning."""
    merged: dict[str, Given] = {}
    for source in sources:
        for name, given in source.items():
            loser = merged.get(name)
            if loser is not None and loser.text != given.text:
                warnings.append(
                    f"{given.key}: {shorten(given.text)!r} ({given.origin}) wins over "
                    f"{shorten(loser.text)!r} ({loser.origin})"
                )
            merged[name] = given
    return merged


def _arguments(
    by_attribute: Mapping[str, Given], in_json: Mapping[str, Given], mount_flags: Sequence[str]
) -> Iterable[tuple[str, ParsedArguments]]:
    for key in (OTHER_ARGUMENTS_KEY, ARGUMENTS_KEY):
        given = by_attribute.get(key) or in_json.get(key)
        if given is not None:
            yield key, parse_arguments(given.text, key=key)
    if mount_flags:
        yield MOUNT_OPTIONS, parse_mount_flags(mount_flags, key=MOUNT_OPTIONS)


def _json_object(by_attribute: Mapping[str, Given]) -> list[tuple[str, str]]:
    given = by_attribute.get("options")
    if given is None:
        return []
    accepted = 'a JSON object such as {"fs.oss.retry.count": 5}'
    try:
        pairs = json.loads(given.text, object_pairs_hook=_Pairs, parse_int=str, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise InvalidOption.stating(
            "options", f"options: this is not JSON, expected {accepted}", hint=f"the JSON parser says: {_why(error)}"
        ) from None
    if not isinstance(pairs, _Pairs):
        raise InvalidOption.stating("options", f"options: expected {accepted}")
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise InvalidOption.stating(key, f"options: {shorten(key)!r} is in the JSON object twice")
        seen.add(key)
        if key == "options":
            raise InvalidOption.stating(key, "options: the JSON object cannot hold another 'options'")
    return [(key, _scalar(key, value)) for key, value in pairs if value is not None]


class _Pairs(list[tuple[str, object]]):
    """A JSON object as its pairs, so that a key written twice is seen."""


def _number(text: str) -> str:
    """A JSON number with a point or exponent; whole ones are written without (`32.0` is 32)."""
    value = float(text)
    return str(int(value)) if math.isfinite(value) and value.is_integer() and abs(value) < 2**53 else text


def _scalar(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    raise InvalidOption.stating(
        key, f"options: {shorten(key)!r} holds no single value, expected text, a number or true/false"
    )


def _why(error: Exception) -> str:
    return f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else "too deep"
