"""Where access keys come from, and how new ones get in without a remount.

Each source answers `current()` with a complete set of credentials, or None for anonymous access, cheaply enough to be
asked for every request. Sources backed by files notice that the file changed, read it again ahead of its expiration,
and keep the old credentials, with a warning, while the file is broken. Nothing here prints, logs or raises a value.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from csi.errors import CredentialsMissing

_log = logging.getLogger(__name__)

EXPIRATION_MARGIN = 60.0
"""Seconds before `expiration` at which a file is read again."""
CHECK_INTERVAL = 1.0
"""Seconds for which a file is trusted not to have changed."""

_ID_NAMES = ("akId", "AccessKeyId")
_SECRET_NAMES = ("akSecret", "AccessKeySecret")
_TOKEN_NAMES = ("SecurityToken",)
_EXPIRATION_NAMES = ("Expiration",)
_ALL_NAMES = (*_ID_NAMES, *_SECRET_NAMES, *_TOKEN_NAMES, *_EXPIRATION_NAMES)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """An access key. `security_token` '' for a long-lived key; `expiration` in seconds since the epoch, None: never."""

    access_key_id: str
    access_key_secret: str
    security_token: str = ""
    expiration: float | None = None

    def __repr__(self) -> str:
        return "Credentials(…)"

    @property
    def tail(self) -> str:
        """The last four characters of the access key id: enough to recognise it, too little to use it."""
        return self.access_key_id[-4:] if len(self.access_key_id) > 8 else "****"


class CredentialsProvider(Protocol):
    """A source of credentials; safe to call from any thread."""

    def current(self) -> Credentials | None:
        """What to sign the next request with, None for anonymous. Raises CredentialsMissing when there are none."""

    def refresh(self) -> None:
        """OSS refused what `current` gave: look again at the source, however recently it was looked at."""


class StaticCredentials:
    """Credentials that never change."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def current(self) -> Credentials:
        return self._credentials

    def refresh(self) -> None:
        """There is nothing to look at again."""


class AnonymousCredentials:
    """No credentials: requests are not signed, as public buckets allow."""

    def current(self) -> None:
        return None

    def refresh(self) -> None:
        """There is nothing to look at again."""


class EnvironmentCredentials(StaticCredentials):
    """OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and OSS_SESSION_TOKEN of the mapping an entry point passes in."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(
            _complete(
                environ.get("OSS_ACCESS_KEY_ID", ""),
                environ.get("OSS_ACCESS_KEY_SECRET", ""),
                environ.get("OSS_SESSION_TOKEN", ""),
                "",
                names=("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"),
                source="the environment",
            )
        )


def credentials_from_secret(secret: Mapping[str, str], *, source: str = "the Secret") -> Credentials:
    """Credentials from the key-value pairs of a Kubernetes Secret (akId/akSecret or AccessKeyId/AccessKeySecret/…).

    Raises CredentialsMissing that names the half that is missing, never a value.
    """
    return _complete(
        _first(secret, _ID_NAMES),
        _first(secret, _SECRET_NAMES),
        _first(secret, _TOKEN_NAMES),
        _first(secret, _EXPIRATION_NAMES),
        names=("akId (or AccessKeyId)", "akSecret (or AccessKeySecret)"),
        source=source,
    )


class _WatchedCredentials(ABC):
    """Credentials kept in files. `hint` is for whoever named a path where there are none.

    The lock guards all fields and is held while the (small, local) files are read. Each process has one of its own: a
    child must not wait for a thread that its parent had.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        clock: Callable[[], float] = time.time,
        *,
        hint: str = "check that the Secret is mounted there",
    ) -> None:
        self._path = os.fspath(path)
        self._clock = clock
        self._hint = hint
        self._locks: dict[int, threading.Lock] = {}
        self._credentials: Credentials | None = None
        self._fingerprint: object = None
        self._checked = float("-inf")
        self._complaint = ""

    def current(self) -> Credentials:
        with self._lock():
            now = self._clock()
            if self._credentials is None or not 0 <= now - self._checked < CHECK_INTERVAL:
                self._look(now, force=False)
            assert self._credentials is not None  # noqa: S101 - _look raised otherwise
            return self._credentials

    def refresh(self) -> None:
        with self._lock():
            self._look(self._clock(), force=True)

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    @abstractmethod
    def _identify(self) -> object:
        """Something that differs when the files did; raises OSError when they are not there."""

    @abstractmethod
    def _load(self) -> Credentials:
        """Read the files; raises OSError or CredentialsMissing."""

    def _look(self, now: float, *, force: bool) -> None:
        self._checked = now
        try:
            fingerprint = self._identify()
            if force or fingerprint != self._fingerprint or self._is_expiring(now):
                self._credentials = self._load()
                self._fingerprint = fingerprint
                self._complaint = ""
        except (OSError, CredentialsMissing) as error:
            reason = error.strerror or "unreadable" if isinstance(error, OSError) else str(error)
            if self._credentials is None:
                raise CredentialsMissing(f"no credentials in {self._path}: {reason}", hint=self._hint) from None
            if reason != self._complaint:
                self._complaint = reason
                _log.warning(
                    "credentials in %s cannot be read (%s); the previous ones stay in force", self._path, reason
                )

    def _is_expiring(self, now: float) -> bool:
        credentials = self._credentials
        if credentials is None or credentials.expiration is None:
            return False
        return now >= credentials.expiration - EXPIRATION_MARGIN


class FileCredentials(_WatchedCredentials):
    """A JSON file with AccessKeyId, AccessKeySecret, SecurityToken and Expiration (`2023-10-01T00:00:00Z`)."""

    def _identify(self) -> object:
        found = os.stat(self._path)
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _load(self) -> Credentials:
        with open(self._path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise CredentialsMissing(f"{self._path} is not a JSON object", hint="expected AccessKeyId, AccessKeySecret")
        fields = {name: value for name, value in document.items() if isinstance(value, str)}
        return credentials_from_secret(fields, source=self._path)


class SecretDirectory(_WatchedCredentials):
    """A directory with a file per key, as Kubernetes projects a Secret: `..data` is a symlink, swapped atomically."""

    def _identify(self) -> object:
        with contextlib.suppress(OSError):
            return os.readlink(os.path.join(self._path, "..data"))
        found = []
        for name in sorted(os.listdir(self._path)):
            if name in _ALL_NAMES:
                status = os.stat(os.path.join(self._path, name))
                found.append((name, status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)

    def _load(self) -> Credentials:
        for _ in range(3):  # the directory behind `..data` may be swapped away while it is read
            with contextlib.suppress(FileNotFoundError):
                return self._load_once()
        return self._load_once()

    def _load_once(self) -> Credentials:
        directory = self._path
        with contextlib.suppress(OSError):
            # not realpath: the path may lead through /proc/self/fd/N to a place whose name is out of reach
            directory = os.path.join(self._path, os.readlink(os.path.join(self._path, "..data")))
        fields = {}
        for name in os.listdir(directory):
            if name in _ALL_NAMES:
                with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
                    fields[name] = file.read()
        return credentials_from_secret(fields, source=self._path)


def _first(secret: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((secret[name].strip() for name in names if secret.get(name, "").strip()), "")


def _complete(
    access_key_id: str, access_key_secret: str, token: str, expiration: str, *, names: tuple[str, str], source: str
) -> Credentials:
    access_key_id, access_key_secret = access_key_id.strip(), access_key_secret.strip()
    if not access_key_id and not access_key_secret:
        raise CredentialsMissing(f"{source} holds no access key", hint=f"it needs {names[0]} and {names[1]}")
    for value, name in ((access_key_id, names[0]), (access_key_secret, names[1])):
        if not value:
            raise CredentialsMissing(f"{source} lacks {name}", hint="the other half of the access key is there")
    for value, name in ((access_key_id, names[0]), (access_key_secret, names[1]), (token.strip(), "SecurityToken")):
        if any(not " " < character <= "~" for character in value):
            raise CredentialsMissing(
                f"{name} in {source} contains a character that no access key has",
                hint="store it as printed in the RAM console, without quotes, spaces or a second encoding",
            )
    return Credentials(access_key_id, access_key_secret, token.strip(), _parse_expiration(expiration, source))


def _parse_expiration(text: str, source: str) -> float | None:
    if not text:
        return None
    try:
        # not strptime: it imports a module at its first call, which a sidecar without rights may be unable to read
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CredentialsMissing(
            f"Expiration in {source} is not a time", hint="expected a form like 2023-10-01T00:00:00Z"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
