"""`ossfuse mount URI DIR`: a bucket as a folder of this machine, without Kubernetes.

The same path as a CSI publish: the volume is parsed, preflighted, mounted, and served by a sidecar process with a
memory limit. The command stays in the foreground (`csi.cli.attending`), and unmounts on Ctrl-C or SIGTERM.
Credentials come from a file or the environment and never stand in a command line.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import click
from rich.console import Console

from csi.cli.attending import DEADLINE, Attending
from csi.cli.ending import EndableLauncher, Ending, endable, ending_signals
from csi.cli.endpoint_check import speaks_instead
from csi.cli.options import logging_options, start_logging
from csi.cli.words import errors_on_a_host, on_a_host
from csi.driver.stores import check_volume
from csi.errors import (
    CredentialsMissing,
    EndpointUnreachable,
    InvalidOption,
    MountError,
    OssFuseError,
    RequestRejected,
    TargetConflict,
)
from csi.handover.cache_places import CachePlaces
from csi.handover.inheritance import Inheritance
from csi.handover.local import local_mounts
from csi.handover.mountinfo import layers_at, read_mountinfo
from csi.handover.mounts import SidecarMounts
from csi.handover.process import LocalLauncher
from csi.handover.target import resolved_target
from csi.handover.types import PublishRequest
from csi.oss.credentials import EnvironmentCredentials, credentials_from_secret
from csi.volume.caching import is_allowed
from csi.volume.naming import CACHE_FOLDER, SESSIONS
from csi.volume.parse import parse_volume
from csi.volume.quantity import format_bytes
from csi.volume.spec import AuthType, VolumeSpec
from csi.volume.units import Seconds
from csi.volume.uri import parse_endpoint

_PROBE = Seconds(2.0)
_STATE = Path("/run/ossfuse-mounts")
_SECRET_KEYS = ("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration")
_HALVES = _SECRET_KEYS[:2]
_ENVIRONMENT = {
    "OSS_ACCESS_KEY_ID": "AccessKeyId",
    "OSS_ACCESS_KEY_SECRET": "AccessKeySecret",
    "OSS_SESSION_TOKEN": "SecurityToken",
}


class _MountPoint(click.Path):
    """A path; '' is refused, which would be the current directory once it is a `Path`."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("'' names no directory; is a variable unset? Write . for the current directory", param, ctx)
        return super().convert(value, param, ctx)


@click.command()
@click.argument("uri")
@click.argument("directory", metavar="DIR", type=_MountPoint(path_type=Path))
@click.option("--url", default="", help="Endpoint, when URI has none: https://oss-cn-hangzhou.aliyuncs.com")
@click.option("--mode", default="fast", show_default=True, help="fast, incremental, consistent, readonly or custom.")
@click.option(
    "-o",
    "arguments",
    multiple=True,
    metavar="NAME[=VALUE],…",
    help="FUSE arguments (ro, attr_timeout=3) and options (fs.oss.append.enable=true); may be repeated.",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other option of docs/options.md, such as cache=/var/cache/ossfuse; may be repeated.",
)
@click.option("--memory", default="1Gi", show_default=True, help="Memory limit of the process that serves the mount.")
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON file with AccessKeyId, AccessKeySecret, SecurityToken and Expiration; read again when it changes. "
    "Without it: OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and OSS_SESSION_TOKEN of the environment.",
)
@click.option("--public", is_flag=True, help="No credentials: the bucket may be read by anybody.")
@click.option(
    "--session",
    type=click.Choice(SESSIONS),
    default=SESSIONS[0],
    show_default=True,
    help="Which code talks to the kernel: our own, or libfuse through pyfuse3 (slower, conservative).",
)
@click.option("--foreground/--no-foreground", default=True, hidden=True)
@logging_options("text", "warning")
@errors_on_a_host()
def command(
    uri: str,
    directory: Path,
    url: str,
    mode: str,
    arguments: tuple[str, ...],
    attributes: tuple[str, ...],
    memory: str,
    credentials: Path | None,
    public: bool,
    session: str,
    foreground: bool,
    log_format: str,
    log_level: str,
) -> None:
    """Mount the bucket URI on DIR and serve it until Ctrl-C, SIGTERM or `umount DIR`.

    URI is oss://BUCKET.ENDPOINT/PATH/, or oss://BUCKET/PATH/ together with --url. Needs root.
    """
    if not foreground:
        raise click.UsageError("the mount stays in the foreground; run it as a service (systemd-run ossfuse mount …)")
    if public and credentials:
        raise click.UsageError("--public and --credentials contradict each other")
    start_logging(log_format, log_level)
    described = {"uri": uri, "url": url, "mode": mode, "fs.jindo.fuse.pod.mem.limit": memory}
    if public:
        described["authType"] = "public"
    pairs = _pairs(attributes, described)
    _refuse_role(pairs.get("authType", ""))  # before its other options are asked for
    parsed = parse_volume({**described, **pairs}, cpu_count=os.cpu_count() or 1, mount_flags=arguments)
    _refuse_role(parsed.spec.credentials.auth_type.value)  # `options` may hold it too
    for warning in parsed.warnings:
        click.echo(f"Warning: {on_a_host(warning)}", err=True)
    source = _Nothing() if public else _FileSource(credentials) if credentials else _EnvironmentSource(os.environ)
    target = Path(resolved_target(directory.absolute()))
    _refuse_cache_below(target, parsed.spec.cache.host_path)
    CachePlaces(None, in_pods=False).prepare(parsed.spec.cache)
    with ending_signals() as ending:
        launcher = LocalLauncher(log_format=log_format, log_level=log_level, session=session)
        _serve(parsed.spec, target, source, ending, launcher)


def _pairs(attributes: tuple[str, ...], described: Mapping[str, str]) -> dict[str, str]:
    """What `--attribute` gave. Raises UsageError for what is no pair, or has an option or argument of its own."""
    found: dict[str, str] = {}
    for attribute in attributes:
        key, equals, value = attribute.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--attribute {attribute}: write KEY=VALUE")
        if key in described or key in found:
            raise click.UsageError(f"--attribute {key}: given twice, or an option of this command says it")
        found[key] = value
    return found


def _refuse_role(auth_type: str) -> None:
    """Raises InvalidOption for RRSA, which lives on the service account of a pod."""
    if auth_type.strip().casefold() == AuthType.RRSA.value:
        raise InvalidOption.stating(
            "authType",
            f"authType: {auth_type!r} needs a cluster: the role is taken on with the token of a pod's service account",
            hint="use --credentials FILE; a file with a SecurityToken and its Expiration is read again when it changes",
        )


def _refuse_cache_below(target: Path, cache: str) -> None:
    """Raises InvalidOption for a cache that the mount would hide: the sidecar would wait for itself to answer."""
    if not cache:
        return
    folder = f"{cache}/{CACHE_FOLDER}"
    # the words first: a hung mount that is on the target already must not be looked at
    if is_allowed(folder, (str(target),)) or is_allowed(os.path.realpath(folder), (str(target),)):
        raise InvalidOption.stating(
            "cache",
            f"cache: {cache!r} is hidden by the mount on {target}",
            hint="name a directory outside of it, such as --attribute cache=/var/cache/ossfuse",
        )


class _Nothing:
    """No credentials: the bucket is public."""

    def read(self) -> dict[str, str]:
        return {}

    def changed(self) -> bool:
        return False


class _EnvironmentSource(_Nothing):
    """The environment this command was started with."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._given = {name: environment[name] for name in _ENVIRONMENT if environment.get(name)}
        self._pairs = {_ENVIRONMENT[name]: value for name, value in self._given.items()}

    def read(self) -> dict[str, str]:
        """Raises CredentialsMissing when the environment holds none, or half of them: it names the variable."""
        if not self._pairs:
            raise CredentialsMissing(
                "no credentials are given",
                hint="use --credentials FILE, set OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET, or use --public",
            )
        EnvironmentCredentials(self._given)  # here, because whoever reads the pairs takes them for a Secret
        return dict(self._pairs)


class _FileSource(_Nothing):
    """A JSON file in the form of the PAI guide. `changed` is true once for each new version of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None

    def read(self) -> dict[str, str]:
        """Raises CredentialsMissing; the message names the file, never what is in it."""
        try:
            self._seen = self._version()
            document = json.loads(self._path.read_bytes())
        except OSError as error:
            raise CredentialsMissing(f"credentials file {self._path}: {error.strerror}") from None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise CredentialsMissing(
                f"credentials file {self._path} is not a JSON object", hint="expected AccessKeyId and AccessKeySecret"
            )
        pairs = {key: str(document[key]) for key in _SECRET_KEYS if document.get(key)}
        for key, other in (_HALVES, _HALVES[::-1]):
            if not pairs.get(key, "").strip() and pairs.get(other, "").strip():
                raise CredentialsMissing(
                    f"credentials file {self._path} lacks {key}", hint=f"write {key} beside the {other} that is there"
                )
        credentials_from_secret(pairs, source=f"credentials file {self._path}")
        return pairs

    def changed(self) -> bool:
        try:
            return self._version() != self._seen
        except OSError:
            return False  # being replaced: the next look will see it

    def _version(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns


def _serve(spec: VolumeSpec, target: Path, source: _Nothing, ending: Ending, launcher: LocalLauncher) -> None:
    volume_id = f"mount-{hashlib.sha256(os.fsencode(target)).hexdigest()[:16]}"
    made_here = not layers_at(read_mountinfo(), str(target)) and not os.path.lexists(target)

    def request() -> PublishRequest:
        return PublishRequest(volume_id, target, spec, spec.arguments.read_only, None, source.read())

    first = request()
    mounts = local_mounts(
        _STATE / volume_id,
        endable(_check, ending),
        launcher=EndableLauncher(launcher, ending),
        inheritances=Inheritance,
    )
    try:
        mounts.open()
    except MountError as error:
        if error.errno == errno.EWOULDBLOCK:  # it holds the lock on the state for as long as it serves
            raise TargetConflict(
                f"{target} is mounted already, by another `ossfuse mount`",
                hint=f"umount {target} first, or mount on another directory",
            ) from error
        raise
    try:
        with _progress(f"mounting {spec.location.bucket} on {target}"):
            _publish(mounts, first, ending)
        try:
            _announce(mounts, volume_id, target, spec)
            Attending(mounts, first, request, source.changed, ending).attend()
        finally:
            with _progress("unmounting, uploads are finished first"):
                mounts.unpublish(volume_id, target, remove_target=made_here)
            click.echo(f"unmounted {target}")
    finally:
        mounts.close()
        with suppress(OSError):  # others may be mounted
            _STATE.rmdir()


def _check(request: PublishRequest, deadline: Seconds) -> None:
    """`check_volume`, which says of a wrong scheme what is wrong: the TLS library's own words tell nobody."""
    try:
        check_volume(request, deadline)
    except (EndpointUnreachable, RequestRejected) as error:
        endpoint = request.spec.location.endpoint
        other = speaks_instead(parse_endpoint(endpoint), timeout=_PROBE)
        if not other:
            raise
        spoken, asked = (url.partition("://")[0].upper() for url in (other, endpoint))
        raise EndpointUnreachable(
            f"{endpoint} was asked in {asked}, and {spoken} is what is spoken there",
            hint=f"give the endpoint as {other}; one without http:// or https:// is taken for HTTPS",
        ) from error


def _publish(mounts: SidecarMounts, request: PublishRequest, ending: Ending) -> None:
    """Make the mount. When the end is asked for before it is made, the command ends as a shell's would."""
    try:
        mounts.publish(request, DEADLINE)
    except OssFuseError:
        if not ending.signal:
            raise
        name = signal.Signals(ending.signal).name
        click.echo(f"{request.target} is not mounted: {name} came before the mount was made", err=True)
        raise click.exceptions.Exit(128 + ending.signal) from None
    ending.serving()


def _announce(mounts: SidecarMounts, volume_id: str, target: Path, spec: VolumeSpec) -> None:
    condition = mounts.condition(volume_id, target)
    access = "read-only" if spec.arguments.read_only else "read and write"
    place = f"oss://{spec.location.bucket}/{spec.location.prefix} at {spec.location.endpoint}"
    pid = condition.sidecar_pid if condition else None
    click.echo(
        f"mounted {place} on {target} (mode {spec.mode.value}, {access}, sidecar {pid}, "
        f"memory limit {format_bytes(spec.resources.memory_limit)}); Ctrl-C unmounts"
    )


@contextmanager
def _progress(text: str) -> Iterator[None]:
    """Something that moves on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield
