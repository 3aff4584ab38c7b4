"""Puts the rooms together for one volume: OSS client, memory ledger, data engine, filesystem, kernel session.

Importing this module imports everything a sidecar will ever need, because after the rights are given up the
interpreter's own files may be out of reach.
"""

from __future__ import annotations

import encodings.ascii
import encodings.idna
import encodings.latin_1
import encodings.punycode
import encodings.utf_8
import linecache
import logging
import stringprep
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from csi.data.couriers import MOST, Couriers
from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger, budget_for, metadata_allowance
from csi.data.staging import largest_write
from csi.errors import CredentialsMissing
from csi.fs.filesystem import Filesystem
from csi.fs.published import LARGEST
from csi.fuse.choice import OWN, SessionChoice, choose
from csi.fuse.own.passthrough import Registrar
from csi.fuse.session import KernelSession
from csi.handover.wire import Mount
from csi.oss.client import OssClient
from csi.oss.credentials import (
    AnonymousCredentials,
    CredentialsProvider,
    EnvironmentCredentials,
    FileCredentials,
    SecretDirectory,
)
from csi.sidecar.disk_cache import disk_cache_of
from csi.sidecar.health import Activity
from csi.sidecar.legacy import Legacy
from csi.sidecar.openers import AskedOpeners, Informant
from csi.volume.encode import decode_spec
from csi.volume.naming import SESSIONS
from csi.volume.spec import AuthType, HttpOptions, VolumeSpec
from csi.volume.units import Bytes, Seconds

_log = logging.getLogger(__name__)

_LATE_IMPORTS: Final = (
    encodings.ascii,
    encodings.idna,
    encodings.latin_1,
    encodings.punycode,
    encodings.utf_8,
    linecache,
    stringprep,
    traceback,
)
"""Modules the standard library imports only when it first needs them."""
_WORKERS: Final = 16
_OF_A_CONNECTION: Final = 3
"""Descriptors: libcurl's socket, ours, and what wakes libcurl."""
_OTHER_DESCRIPTORS: Final = 40
_FEWEST_CONNECTIONS: Final = 4


class ServedVolume:
    """Everything one volume needs, from the store to the session; `close` takes it down from the top."""

    def __init__(
        self,
        store: OssClient,
        engine: DataEngine,
        filesystem: Filesystem,
        session: KernelSession,
        legacy: Legacy | None = None,
    ) -> None:
        self._legacy = legacy
        self._store = store
        self._engine = engine
        self._filesystem = filesystem
        self.session = session

    def activity(self) -> Activity:
        session, filesystem = self.session.statistics(), self._filesystem.statistics()
        figures = {
            "session": session,
            "filesystem": filesystem,
            "engine": self._engine.statistics(),
            "store": self._store.statistics(),
        }
        open_files = len(self._filesystem.open_files())
        return Activity(open_files, session.in_flight, session.oldest_age, figures)

    def flush(self, grace: Seconds) -> None:
        end = time.monotonic() + grace
        self.session.wait_for_closes(grace)  # also of those that still wait for a thread
        self._filesystem.flush_all(Seconds(max(0.0, end - time.monotonic())))  # logs what fails

    def bequeath(self) -> tuple[int, int] | None:
        return self._legacy.bequeath(self.session) if self._legacy is not None else None

    def close(self) -> None:
        if self._legacy is not None:
            self._legacy.end()
        self._filesystem.close()
        self._engine.close()
        self._store.close()
        if self._legacy is not None:
            self._legacy.close()


def assemble(
    volume: Mount,
    descriptor: int,
    credentials: str,
    on_started: Callable[[], None],
    informant: Informant | None = None,
    *,
    environ: Mapping[str, str],
    session: SessionChoice | None = None,
    wanted: str = "",
    cache: str = "",
    registrar: Registrar | None = None,
    legacy: Legacy | None = None,
    descriptors: int = 0,
) -> ServedVolume:
    """Make the volume of a MOUNT frame servable. `credentials` is a directory of secret files, '' when there is none;
    `environ` may hold some instead. `informant` knows the programs that write. `session` serves the mount, our own if
    none is said; the node plugin may have `wanted` another one, by name. `cache` is the directory for a disk cache; ''
    where it is at the path that the volume names; of files there the kernel reads those that `registrar` registers. At
    most `descriptors` may be open (0: any number). `legacy` is left to a successor, and may have been left to this one;
    it is closed with the volume.

    Raises ProtocolError for a spec that cannot be decoded, CredentialsMissing. Nothing is asked of the network yet.
    """
    spec = decode_spec(volume.spec)
    provider = credentials_of(spec, credentials, environ)
    disk = disk_cache_of(spec, volume.volume_id, provider, cache)  # what comes from it is read by the engine
    http = within(descriptors, spec.http)
    couriers = min(MOST, http.max_connections // 2) if disk is None else 0
    store = OssClient(spec.location, http, spec.write, provider, lines=couriers)
    ledger = MemoryLedger(budget_for(Bytes(volume.memory_limit)))
    resume = legacy.resume if legacy is not None else None
    chosen = _chosen(session, wanted if resume is None else OWN)  # what another kind began, none can go on with
    kept = legacy if chosen.lasts else None
    lines = store.lines(LARGEST)
    published = chosen.publish(partial(Couriers, lines=lines, ledger=ledger) if lines is not None else None)
    engine = DataEngine(
        store,
        read=spec.read,
        write=spec.write,
        ledger=ledger,
        published=published,
        tails=chosen.tails(published),
        disk=disk,
    )
    filesystem = Filesystem(
        store,
        engine,
        prefix=spec.location.prefix,
        arguments=spec.arguments,
        ownership=spec.ownership,
        write=spec.write,
        read_only=volume.read_only or spec.arguments.read_only,
        openers=AskedOpeners(informant) if informant is not None else None,
        published=published,
        ledger=ledger,
        allowance=Bytes(metadata_allowance(Bytes(volume.memory_limit)) - (kept.size if kept is not None else 0)),
        journal=kept.journal if kept is not None else None,
    )
    served = chosen.open(
        *(descriptor, filesystem, spec.arguments, published),
        workers=_WORKERS,
        on_started=on_started,
        registrar=registrar if disk is not None else None,
        largest_write=largest_write(Bytes(volume.memory_limit)),
        resume=resume,
    )
    return ServedVolume(store, engine, filesystem, served, legacy)


def within(descriptors: int, http: HttpOptions) -> HttpOptions:
    """As many connections as there are descriptors for."""
    if not descriptors:
        return http
    most = max(_FEWEST_CONNECTIONS, (descriptors - _OTHER_DESCRIPTORS) // _OF_A_CONNECTION)
    if http.max_connections > most:
        _log.warning(
            "only %d connections to OSS are used, as %d files may be open; raise the limit (ulimit -n)",
            most,
            descriptors,
        )
    return replace(http, max_connections=min(http.max_connections, most))


def _chosen(session: SessionChoice | None, wanted: str) -> SessionChoice:
    if wanted in SESSIONS:
        return choose(wanted)
    if wanted:
        _log.warning("the node plugin wants %r to serve the volume, which this sidecar does not have", wanted)
    return session if session is not None else choose(OWN)


def credentials_of(spec: VolumeSpec, directory: str, environ: Mapping[str, str]) -> CredentialsProvider:
    """Where a sidecar's credentials come from (CONTRACT §4). Raises CredentialsMissing."""
    match spec.credentials.auth_type:
        case AuthType.PUBLIC:
            return AnonymousCredentials()
        case AuthType.FILE:
            return FileCredentials(spec.credentials.credential_file)
        case AuthType.ENVIRONMENT if not directory:
            return EnvironmentCredentials(environ)
        case AuthType.SECRET | AuthType.ENVIRONMENT | AuthType.RRSA if directory:
            return SecretDirectory(directory)
        case other:
            raise CredentialsMissing(
                f"authType {other.value}: the sidecar has no credentials",
                hint="reference a Secret with akId and akSecret (nodePublishSecretRef), or set authType: public",
            )
