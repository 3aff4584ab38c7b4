"""From the attributes of a volume to its VolumeSpec: what was given, over the mode, over the defaults.

The only place where those layers meet. A key that is given wins over the same key in `options`, that over the mode,
that over the default; FUSE arguments are merged one by one. The result carries every effective value and where it came
from, which is what `ossfuse volume explain` shows and the node plugin logs. Secrets never come this way: keys that
would hold them are refused by the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from csi.errors import InvalidOption
from csi.volume.args import parse_arguments
from csi.volume.given import ARGUMENTS_KEY, GivenVolume, collect
from csi.volume.modes import expansion, parse_mode
from csi.volume.mounting import (
    DEFAULT,
    MOUNT_GROUP,
    Mounting,
    argument_texts,
    merge,
    mount_arguments,
    ownership,
)
from csi.volume.settle import Draft, settle
from csi.volume.spec import (
    AuthType,
    CacheOptions,
    CredentialOptions,
    HttpOptions,
    Location,
    Mode,
    MountArguments,
    Ownership,
    ReadOptions,
    SidecarResources,
    VolumeSpec,
    WriteOptions,
)
from csi.volume.table.option import Effect, Kind, Option
from csi.volume.table.options import TABLE, placeholder
from csi.volume.uri import locate, parse_region, parse_uri
from csi.volume.values import read, shorten, show

_BUCKET_ENDPOINT = "fs.oss.bucket.<NAME>.endpoint"
_LEAST_THREADS = 16
_G = TypeVar("_G")
_OWNERSHIP_KEYS = ("uid", "gid", "umask", "fileMode", "dirMode")
_GROUPS = {
    "read": ReadOptions,
    "write": WriteOptions,
    "http": HttpOptions,
    "resources": SidecarResources,
    "credentials": CredentialOptions,
    "cache": CacheOptions,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value: `key` as users write it, `value` as text, `origin` (`mode fast`, `attribute`,
    `options JSON`, `fs.jindo.args`, `otherOpts`, `mountOptions`, `read-only access`, `fsGroup`, `default`), and a
    `note` when the value is not simply what was asked for."""

    key: str
    value: str
    origin: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ParsedVolume:
    """`read_only_origin` says who asked for read-only (an origin as in Setting), '' when the volume may be written."""

    spec: VolumeSpec
    settings: tuple[Setting, ...]
    warnings: tuple[str, ...]
    read_only_origin: str = ""


def parse_volume(
    attributes: Mapping[str, str],
    *,
    cpu_count: int,
    read_only: bool = False,
    mount_group: int | None = None,
    mount_flags: Sequence[str] = (),
) -> ParsedVolume:
    """Read volume attributes (or StorageClass parameters) as the volume they describe on `cpu_count` cores.

    `read_only`: the pod may not write, whatever the attributes say. `mount_group`: the pod's fsGroup. `mount_flags`:
    `mountOptions` of the PersistentVolume. Raises InvalidOption, UnsupportedVolume and nothing else.
    """
    given = collect(attributes, mount_flags)
    mode_text = given.options.get("mode")
    mode = parse_mode(mode_text.text) if mode_text else Mode.FAST
    mode_origin = f"mode {mode.value}"
    preset = expansion(mode, cpu_count)

    location, warnings = _location(given)
    draft = Draft()
    origins = dict(_fill(draft, given, preset, mode_origin, cpu_count))
    settle(
        draft,
        [field for field, origin in origins.items() if origin not in (DEFAULT, mode_origin)],
        region_known=bool(location.region),
    )
    sources = [(mode_origin, parse_arguments(preset.get(ARGUMENTS_KEY, ""))), *given.arguments]
    mounting = merge(sources, quiet=mode_origin, read_only=read_only)
    owned = ownership(mounting, _owned(given), mount_group)
    arguments = mount_arguments(mounting)
    spec = VolumeSpec(
        location=location,
        mode=mode,
        arguments=arguments,
        ownership=owned,
        read=_group(draft, "read", ReadOptions),
        write=_group(draft, "write", WriteOptions),
        http=_group(draft, "http", HttpOptions),
        resources=_group(draft, "resources", SidecarResources),
        credentials=_group(draft, "credentials", CredentialOptions),
        cache=_group(draft, "cache", CacheOptions),
    )
    settings = (
        *_location_settings(given, location),
        Setting("mode", mode.value, mode_text.origin if mode_text else DEFAULT),
        *_argument_settings(mounting, arguments),
        *_field_settings(draft, origins, given),
        *_ownership_settings(mounting, owned, given, mount_group),
        *_without_effect(given),
    )
    cuts = [f"{row.key}: {draft.notes[row.sets]}" for row in _rows() if _worth_a_warning(draft, row, origins)]
    return ParsedVolume(
        spec=spec,
        settings=settings,
        warnings=(*given.warnings, *warnings, *mounting.warnings, *cuts),
        read_only_origin=mounting.origins.get("read_only", "") if arguments.read_only else "",
    )


def _location(given: GivenVolume) -> tuple[Location, list[str]]:
    uri, bucket, endpoint = given.text("uri"), given.text("bucket"), given.text("url")
    name = bucket or (parse_uri(uri).bucket if uri else "")
    warnings = []
    for option in given.options.values():
        if option.row.key != _BUCKET_ENDPOINT:
            continue
        if placeholder(option.row, option.key) == name:
            endpoint = option.text
        else:
            warnings.append(f"{option.key}: accepted, no effect: the bucket of this volume is {name!r}")
    domain = given.options.get("fs.oss.second.level.domain.enable")
    location = locate(
        uri=uri,
        bucket=bucket,
        endpoint=endpoint,
        path=given.text("path"),
        region=parse_region(given.text("region")),
        path_style=bool(domain and read(domain.row, domain.key, domain.text)),
    )
    return location, warnings


def _rows() -> Iterator[Option]:
    """The rows that set a field of a group."""
    return (row for row in TABLE if row.sets)


def _fill(
    draft: Draft, given: GivenVolume, preset: Mapping[str, str], mode_origin: str, cpu_count: int
) -> Iterator[tuple[str, str]]:
    """Put a value into every field; yields each field with its origin."""
    for group, kind in _GROUPS.items():
        for item in fields(kind):
            draft.values[f"{group}.{item.name}"] = getattr(kind(), item.name)
    draft.values["read.threads"] = draft.values["write.threads"] = max(cpu_count, _LEAST_THREADS)
    draft.values["http.signature_version"] = 0
    for row in _rows():
        option = given.options.get(row.key)
        if option is not None:
            draft.values[row.sets] = _typed(row, option.key, option.text)
            yield row.sets, option.origin
        elif row.key in preset:
            draft.values[row.sets] = read(row, row.key, preset[row.key])
            yield row.sets, mode_origin
        else:
            yield row.sets, DEFAULT


def _typed(row: Option, key: str, text: str) -> object:
    if row.sets == "credentials.auth_type":
        return AuthType(str(read(row, key, text)))
    if row.sets == "http.signature_version":
        return int(str(read(row, key, text)))
    if row.sets == "resources.image_tag" and not _is_image_tag(text):
        raise InvalidOption(key, text, "an image tag: letters, digits, '_', '.' and '-', at most 128 characters")
    return read(row, key, text)


def _is_image_tag(text: str) -> bool:
    plain = text.replace("_", "").replace(".", "").replace("-", "")
    return len(text) <= 128 and plain.isascii() and plain.isalnum() and text[0] not in ".-"


def _group(draft: Draft, group: str, kind: type[_G]) -> _G:
    prefix = f"{group}."
    return kind(**{name.removeprefix(prefix): value for name, value in draft.values.items() if name.startswith(prefix)})


def _owned(given: GivenVolume) -> dict[str, int]:
    found: dict[str, int] = {}
    for key in _OWNERSHIP_KEYS:
        option = given.options.get(key)
        if option is not None:
            value = read(option.row, option.key, option.text)
            found[key] = value if isinstance(value, int) else 0
    return found


def _worth_a_warning(draft: Draft, row: Option, origins: Mapping[str, str]) -> bool:
    """A note about a value the user wrote."""
    return row.sets in draft.notes and origins[row.sets] != DEFAULT and row.sets != "http.signature_version"


def _location_settings(given: GivenVolume, location: Location) -> Iterator[Setting]:
    def origin(*keys: str) -> str:
        return next((given.options[key].origin for key in keys if key in given.options), DEFAULT)

    yield Setting("bucket", location.bucket, origin("bucket", "uri"))
    yield Setting("url", location.endpoint, origin("url", "uri"))
    yield Setting("path", f"/{location.prefix}", origin("path", "uri"))
    if location.region:
        yield Setting("region", location.region, origin("region", "url", "uri"))
    if location.path_style:
        key = "fs.oss.second.level.domain.enable"
        yield Setting(key, "true", origin(key), "" if key in given.options else "the endpoint cannot take the bucket")


def _argument_settings(mounting: Mounting, arguments: MountArguments) -> Iterator[Setting]:
    for name, (argument, value) in argument_texts(arguments).items():
        yield Setting(argument, value, mounting.origins.get(name, DEFAULT))


def _field_settings(draft: Draft, origins: Mapping[str, str], given: GivenVolume) -> Iterator[Setting]:
    for row in _rows():
        value = draft.values[row.sets]
        if value == "" and row.key not in given.options:
            continue
        yield Setting(row.key, show(row.kind, value), origins[row.sets], draft.notes.get(row.sets, ""))


def _ownership_settings(
    mounting: Mounting, owned: Ownership, given: GivenVolume, mount_group: int | None
) -> Iterator[Setting]:
    def origin(*names: str) -> str:
        for name in names:
            if name in given.options:
                return given.options[name].origin
            if name in mounting.ownership:
                return mounting.origins[name]
        return DEFAULT

    yield Setting("uid", str(owned.uid), origin("uid"))
    yield Setting("gid", str(owned.gid), origin("gid") if mount_group is None else MOUNT_GROUP)
    fallback = DEFAULT if mount_group is None else MOUNT_GROUP
    for key, mask, mode in (("fileMode", "fmask", owned.file_mode), ("dirMode", "dmask", owned.dir_mode)):
        found = origin(key, mask, "umask")
        yield Setting(key, show(Kind.OCTAL, mode), fallback if found == DEFAULT else found)


def _without_effect(given: GivenVolume) -> Iterator[Setting]:
    for option in given.options.values():
        if option.row.effect is Effect.NO_EFFECT:
            yield Setting(option.key, shorten(option.text), option.origin, f"accepted, no effect: {option.row.reason}")
