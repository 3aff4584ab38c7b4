"""Which access keys training code works with: a provider, a file, the environment, a role, or none.

A `CredentialSource` is a plain value that pickles; `open` makes of it, in the process that needs it, what signs
requests and gets new keys in before the old ones expire. Nothing here prints, logs or raises the value of a key.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from csi.errors import CredentialsMissing, OssFuseError
from csi.oss.assume_role import RoleClaim, RoleExchange
from csi.oss.credentials import (
    AnonymousCredentials,
    Credentials,
    CredentialsProvider,
    EnvironmentCredentials,
    FileCredentials,
    StaticCredentials,
)
from csi.oss.transport import CurlTransport
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

DEFAULT_PATHS: Final = ("/root/.alibabacloud/credentials", "/mnt/.alibabacloud/credentials")
"""Where the PAI platform leaves a file; looked at when nothing else is given."""

_HINT: Final = (
    "give cred_path (a JSON file with AccessKeyId and AccessKeySecret) or cred_provider, set OSS_ACCESS_KEY_ID and "
    "OSS_ACCESS_KEY_SECRET, or for a public bucket give cred_provider=csi.torch.AnonymousCredentials()"
)
_FILE_HINT: Final = "cred_path must be a JSON file with AccessKeyId and AccessKeySecret, complete when it is read"
_ASKED_EVERY: Final = 30.0
_RENEWED_BEFORE: Final = 300.0
_PATIENCE: Final = Seconds(15.0)


@dataclass(frozen=True, slots=True)
class Role:
    """A RAM role to assume with the token of a service account (RRSA)."""

    role_arn: str
    provider_arn: str
    token_file: str
    session: str
    endpoint: str


@dataclass(frozen=True, slots=True, repr=False)
class CredentialSource:
    """Exactly one of these is given; `provider` has `get_credentials()` as those of oss2, or is one of ours."""

    provider: object | None = None
    path: str = ""
    keys: Credentials | None = None
    role: Role | None = None

    def __repr__(self) -> str:
        return f"CredentialSource({self.path!r})" if self.path else "CredentialSource(…)"

    def open(self, clock: Callable[[], float] = time.time) -> CredentialsProvider:
        """What signs requests; asks nobody yet."""
        if self.provider is not None:
            if isinstance(self.provider, AnonymousCredentials | StaticCredentials):
                return self.provider
            return ProvidedCredentials(self.provider, clock)
        if self.path:
            return FileCredentials(self.path, clock, hint=_FILE_HINT)
        if self.role is not None:
            return RoleCredentials(self.role, RoleExchange(CurlTransport(max_connections=1)), clock)
        if self.keys is None:
            raise CredentialsMissing("no credentials are given", hint=_HINT)
        return StaticCredentials(self.keys)


def choose(
    *, path: str, provider: object | None, environ: Mapping[str, str], defaults: Sequence[str] = DEFAULT_PATHS
) -> CredentialSource:
    """What is given comes first, then the environment, then a file where the platform leaves one.

    Raises CredentialsMissing when there is nothing, or half of something.
    """
    if provider is not None:
        if not isinstance(provider, AnonymousCredentials | StaticCredentials) and not hasattr(
            provider, "get_credentials"
        ):
            raise CredentialsMissing(
                f"cred_provider is a {type(provider).__name__} without get_credentials()",
                hint="give an object whose get_credentials() returns an access key, as the providers of oss2 do",
            )
        return CredentialSource(provider=provider)
    if path:
        return CredentialSource(path=os.path.abspath(path))
    if environ.get("OSS_ACCESS_KEY_ID") or environ.get("OSS_ACCESS_KEY_SECRET"):
        return CredentialSource(keys=EnvironmentCredentials(environ).current())
    role = _role_in(environ)
    if role is not None:
        return CredentialSource(role=role)
    for default in defaults:
        if os.path.exists(default):
            return CredentialSource(path=default)
    raise CredentialsMissing("no credentials are given", hint=_HINT)


def _role_in(environ: Mapping[str, str]) -> Role | None:
    """What the pod identity webhook of ACK puts into the environment."""
    names = ("ALIBABA_CLOUD_ROLE_ARN", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE")
    role_arn, provider_arn, token_file = (environ.get(name, "") for name in names)
    if not (role_arn and provider_arn and token_file):
        return None
    endpoint = environ.get("ALIBABA_CLOUD_STS_ENDPOINT", "") or "sts.aliyuncs.com"
    return Role(
        role_arn,
        provider_arn,
        token_file,
        environ.get("ALIBABA_CLOUD_ROLE_SESSION_NAME", "") or "ossfuse-torch",
        endpoint if "://" in endpoint else f"https://{endpoint}",
    )


class _Renewed:
    """Credentials asked for again now and then; the old ones stay in force, with a warning, while nobody answers.

    A thread asks while others go on with what there is. Each process has a lock of its own: a child must not wait for a
    thread that its parent had.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._locks: dict[int, threading.Lock] = {}
        self._held: tuple[Credentials | None] | None = None
        self._due = float("-inf")

    def current(self) -> Credentials | None:
        held = self._held
        if held is None:
            with self._lock():
                return (self._held or self._renew())[0]
        if self._clock() >= self._due and self._lock().acquire(blocking=False):
            try:
                return self._renew()[0]
            finally:
                self._lock().release()
        return held[0]

    def refresh(self) -> None:
        with self._lock():
            self._renew()

    def _renew(self) -> tuple[Credentials | None]:
        try:
            credentials, self._due = self._ask()
        except Exception as error:  # a provider is somebody else's code, and may raise anything
            if self._held is None:
                raise self._explained(error) from None
            self._due = self._clock() + _ASKED_EVERY
            _log.warning("%s; the previous credentials stay in force", self._explained(error).message)
        else:
            self._held = (credentials,)
        assert self._held is not None  # noqa: S101 - raised otherwise
        return self._held

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _ask(self) -> tuple[Credentials | None, float]:
        """New credentials, and when to ask again."""
        raise NotImplementedError

    def _explained(self, error: Exception) -> OssFuseError:
        raise NotImplementedError


class ProvidedCredentials(_Renewed):
    """What an object in the manner of oss2 or alibabacloud_oss_v2 provides; an empty key means anonymous."""

    def __init__(self, provider: object, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._provider = provider

    def _ask(self) -> tuple[Credentials | None, float]:
        found = self._provider.get_credentials()  # type: ignore[attr-defined]
        key, secret, token = (
            _text_of(found, method, attribute)
            for method, attribute in (
                ("get_access_key_id", "access_key_id"),
                ("get_access_key_secret", "access_key_secret"),
                ("get_security_token", "security_token"),
            )
        )
        due = self._clock() + _ASKED_EVERY
        if not key and not secret:
            return None, due
        if not key or not secret:
            raise CredentialsMissing("one half of the access key is empty")
        return Credentials(key, secret, token), due

    def _explained(self, error: Exception) -> OssFuseError:
        # the text of an exception that is not ours may hold anything
        reason = str(error) if isinstance(error, OssFuseError) else type(error).__name__
        return CredentialsMissing(
            f"cred_provider {type(self._provider).__name__} gave no credentials: {reason}",
            hint="get_credentials() must return an object with an access key id and an access key secret",
        )


class RoleCredentials(_Renewed):
    """Temporary credentials of a RAM role, renewed well before they expire. The token file is read each time: the
    kubelet replaces it."""

    def __init__(self, role: Role, exchange: RoleExchange, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._role = role
        self._exchange = exchange

    def _ask(self) -> tuple[Credentials | None, float]:
        role = self._role
        try:
            with open(role.token_file, encoding="ascii") as file:
                token = file.read().strip()
        except (OSError, ValueError) as error:
            raise CredentialsMissing(
                f"the token in {role.token_file} cannot be read ({type(error).__name__})",
                hint="ALIBABA_CLOUD_OIDC_TOKEN_FILE must name the projected token of the pod's service account",
            ) from None
        claim = RoleClaim(role.role_arn, role.provider_arn, "of this pod", role.session, token)
        credentials = self._exchange.assume(role.endpoint, claim, _PATIENCE)
        assert credentials.expiration is not None  # noqa: S101 - `assume` says so
        now = self._clock()
        left = max(0.0, credentials.expiration - now)
        return credentials, now + left - min(_RENEWED_BEFORE, left / 2)

    def _explained(self, error: Exception) -> OssFuseError:
        return error if isinstance(error, OssFuseError) else CredentialsMissing(f"{type(error).__name__} in AssumeRole")


def _text_of(found: object, method: str, attribute: str) -> str:
    call = getattr(found, method, None)
    value = call() if callable(call) else getattr(found, attribute, None)
    return value.strip() if isinstance(value, str) else ""
