"""AssumeRoleWithOIDC: the token of a pod's service account for temporary credentials of a RAM role (RRSA).

One unsigned POST to Alibaba Cloud STS (2015-04-01, RPC style), tried again while there is time and another try can
help. A refusal becomes a typed error that names role, provider, service account and endpoint and says what to check;
the token is sent in the body, and is in no URL, message or repr.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from csi.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    EndpointUnreachable,
    PermissionDenied,
    RequestRejected,
    ServerFailure,
    StoreError,
)
from csi.oss.answers import shown
from csi.oss.credentials import Credentials, credentials_from_secret
from csi.oss.exchange import HttpAnswer, HttpRequest, Transport
from csi.oss.retry import is_retryable
from csi.volume.spec import Location
from csi.volume.units import Seconds

OPERATION: Final = "AssumeRoleWithOIDC"
AUDIENCE: Final = "sts.aliyuncs.com"
"""Of the tokens that RAM accepts; an OIDC provider made for RRSA has it as its client id."""
LIFETIME: Final = Seconds(3600.0)
"""Asked of STS; the most that every role allows."""

_ATTEMPT: Final = Seconds(5.0)
_PAUSE: Final = Seconds(0.3)
_TRIES: Final = 3
_LONGEST_SESSION: Final = 64
_LONGEST_DETAIL: Final = 300

_PROVIDER_HINT = (
    "check that the OIDC provider in RAM has this cluster's issuer, its keys and the client id sts.aliyuncs.com"
)
_UNREACHABLE_HINT = "check that this node reaches STS (security groups, DNS), or set --sts-endpoint of the node plugin"
_TRUST_HINT = (
    "check the trust policy of the role: Federated must be the provider, and the conditions oidc:sub, oidc:aud and "
    "oidc:iss must fit the service account"
)
_BY_CODE: Final[tuple[tuple[str, type[StoreError], str], ...]] = (
    ("AuthenticationFail.OIDCToken.Expired", AuthenticationFailed, "check the clock of this node"),
    ("AuthenticationFail.NoPermission", PermissionDenied, _TRUST_HINT),
    ("AuthenticationFail", AuthenticationFailed, _PROVIDER_HINT),
    ("InvalidParameter.OIDCToken", AuthenticationFailed, _PROVIDER_HINT),
    ("EntityNotExist.OIDCProvider", AuthenticationFailed, "check oidcProviderArn: RAM does not know this provider"),
    ("EntityNotExist.Role", PermissionDenied, "check roleArn: RAM does not know this role"),
    ("EntityNotExist", PermissionDenied, "check roleArn and oidcProviderArn"),
    ("NoPermission", PermissionDenied, _TRUST_HINT),
    ("ImplicitDeny", PermissionDenied, _TRUST_HINT),
    ("Throttling", ServerFailure, "it will be tried again"),
)


@dataclass(frozen=True, slots=True, repr=False)
class RoleClaim:
    """Who wants to be what: `service_account` is `NAMESPACE/NAME`, `session` tells in ActionTrail who it was."""

    role_arn: str
    provider_arn: str
    service_account: str
    session: str
    token: str

    def __repr__(self) -> str:
        return f"RoleClaim({self.role_arn!r}, {self.service_account!r})"


def sts_endpoint(location: Location) -> str:
    """Where STS answers for a volume: near its bucket when the region is known, inside the VPC when the bucket is
    reached there too."""
    if not location.region:
        return "https://sts.aliyuncs.com"
    inside = "-vpc" if "-internal." in location.endpoint else ""
    return f"https://sts{inside}.{location.region}.aliyuncs.com"


def session_name(*parts: str) -> str:
    """A role session name (2 to 64 of letters, digits and `.@-_`) from the names of Kubernetes objects."""
    return ".".join(parts)[:_LONGEST_SESSION].ljust(2, "-")


class RoleExchange:
    """Callable from any thread; `close` ends what is under way."""

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep

    def assume(self, endpoint: str, claim: RoleClaim, patience: Seconds) -> Credentials:
        """Credentials of the role with their expiration, within `patience`.

        Raises AuthenticationFailed (the token), PermissionDenied (the role), RequestRejected (a parameter),
        ServerFailure and EndpointUnreachable.
        """
        ends = self._monotonic() + patience
        for tries_left in reversed(range(_TRIES)):
            try:
                return self._attempt(endpoint, claim, Seconds(max(0.1, ends - self._monotonic())))
            except StoreError as error:
                if not tries_left or not is_retryable(error) or self._monotonic() + _PAUSE >= ends:
                    raise _introduced(error, endpoint, claim) from None
                self._sleep(_PAUSE)
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        self._transport.close()

    def _attempt(self, endpoint: str, claim: RoleClaim, patience: Seconds) -> Credentials:
        query = {
            "Action": OPERATION,
            "Version": "2015-04-01",
            "Format": "JSON",
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock())),
        }
        form = {
            "RoleArn": claim.role_arn,
            "OIDCProviderArn": claim.provider_arn,
            "OIDCToken": claim.token,
            "RoleSessionName": claim.session,
            "DurationSeconds": str(int(LIFETIME)),
        }
        base = endpoint if endpoint.partition("://")[2].count("/") else f"{endpoint}/"
        request = HttpRequest(
            "POST",
            f"{base}?{urlencode(query)}",
            [b"Content-Type: application/x-www-form-urlencoded", b"Accept: application/json"],
            (urlencode(form).encode(),),
        )
        bound = Seconds(min(_ATTEMPT, patience))
        answer = self._transport.send(request, timeout=bound, stall=bound, patience=patience)
        if answer.failure is not None:
            raise answer.failure
        document = _document(answer)
        if answer.status != 200:
            raise _refusal(answer.status, document)
        found = document.get("Credentials")
        pairs = found if isinstance(found, dict) else {}
        fields = {key: value for key, value in pairs.items() if isinstance(value, str)}
        credentials = credentials_from_secret(fields, source="the answer of STS") if fields else None
        if credentials is None or not credentials.security_token or credentials.expiration is None:
            raise ServerFailure(
                "the answer holds no temporary credentials",
                status=answer.status,
                operation=OPERATION,
                hint="check --sts-endpoint: something else than STS may have answered",
            )
        return credentials


def _document(answer: HttpAnswer) -> Mapping[str, object]:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, dict) else {}


def _refusal(status: int, document: Mapping[str, object]) -> StoreError:
    code, detail, request_id = (str(document.get(key, "")) for key in ("Code", "Message", "RequestId"))
    kind, hint = next(
        ((kind, hint) for prefix, kind, hint in _BY_CODE if code.startswith(prefix)), _by_status(status, code)
    )
    reason = f"{code}: {shown(detail[:_LONGEST_DETAIL])}" if code else "without an error code"
    reference = f" (request {request_id})" if request_id else ""
    return kind(
        f"{status} {reason}{reference}", status=status, code=code, request_id=request_id, operation=OPERATION, hint=hint
    )


def _by_status(status: int, code: str) -> tuple[type[StoreError], str]:
    if status >= 500 or status == 429:
        return ServerFailure, "it will be tried again"
    if status in {401, 403}:
        return PermissionDenied, _TRUST_HINT
    if code:
        return RequestRejected, "check roleArn and oidcProviderArn"
    return EndpointUnreachable, "check --sts-endpoint: something else than STS may have answered"


def _introduced(error: StoreError, endpoint: str, claim: RoleClaim) -> StoreError:
    """`error` with who wanted what; no answer at all is one thing to the user, whether it was refused or awaited."""
    silent = isinstance(error, EndpointUnreachable | DeadlineExceeded)
    return (EndpointUnreachable if silent else type(error))(
        f"{OPERATION} at {endpoint}: service account {claim.service_account} did not get role {claim.role_arn} "
        f"through {claim.provider_arn}: {error.message}",
        status=error.status,
        code=error.code,
        request_id=error.request_id,
        operation=OPERATION,
        hint=_UNREACHABLE_HINT if silent and not error.status else error.hint,
    )
