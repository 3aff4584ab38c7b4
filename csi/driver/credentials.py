"""What a volume signs with, for every call of kubelet: its Secret's pairs, or those of a role its pod takes on.

It promises that a volume never gets another identity than the one it names, and that a published volume never fails
because new credentials could not be had: it keeps those it has, and the pod is told, once per outage and once more
when they have expired. Roles are taken on again at half their life, so a dozen republishes may fail before it matters.
"""

from __future__ import annotations

import logging
import random as chance
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from csi.driver.attributes import check_secrets
from csi.driver.calls.redaction import SERVICE_ACCOUNT_TOKENS, scrub
from csi.driver.pods import required_pod, service_account_token
from csi.errors import InvalidOption, OssFuseError
from csi.handover.types import Incident, IncidentKind, IncidentReporter, PodReference, PublishRequest
from csi.oss.assume_role import RoleClaim, RoleExchange, session_name, sts_endpoint
from csi.oss.credentials import Credentials
from csi.volume.spec import AuthType
from csi.volume.units import Seconds

log = logging.getLogger(__name__)

_PATIENCE: Final = Seconds(8.0)
"""For STS within one call of kubelet, so that its silence is an event on the pod within ten seconds."""
_EARLIEST, _LATEST = 0.4, 0.5
"""Of its life, when a role is taken on again; spread, so that pods started together do not ask together."""


@dataclass(frozen=True, slots=True, repr=False)
class Offer:
    """What one call brings: the pairs of `secrets`, the volume context, and the strings that no message may repeat."""

    secrets: Mapping[str, str]
    context: Mapping[str, str]
    hidden: Iterable[str]


@dataclass(frozen=True, slots=True, repr=False)
class _Held:
    """A role taken on for one target; `identity` is who by, `due` when to take it on again."""

    identity: tuple[str, ...]
    credentials: Credentials
    due: float


class LoggedIncidents:
    """Implements `IncidentReporter` where there is no cluster to tell."""

    def report(self, pod: PodReference, incident: Incident) -> None:
        log.warning("pod %s/%s: %s: %s", pod.namespace, pod.name, incident.kind.value, incident.message)


class CredentialSupply:
    """Safe from any thread; calls for one target exclude each other already. `_lock` guards `_held` and `_told`.

    `endpoint` is where STS answers, '' for the one of the volume's region.
    """

    def __init__(
        self,
        exchange: RoleExchange,
        incidents: IncidentReporter,
        *,
        endpoint: str = "",
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self._exchange = exchange
        self._incidents = incidents
        self._endpoint = endpoint
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._held: dict[Path, _Held] = {}
        self._told: dict[Path, bool] = {}  # whose outage the pod knows of, and whether as an expiry

    def obtain(self, order: PublishRequest, offer: Offer, patience: Seconds) -> Mapping[str, str]:
        """Credentials as the pairs of a Secret, {} for a volume that needs none.

        Raises CredentialsMissing, InvalidOption, ClusterMisconfigured and what `RoleExchange.assume` does.
        """
        options = order.spec.credentials
        if options.auth_type is AuthType.RRSA:
            return _pairs(self._take_role(order, offer, patience))
        return check_secrets(
            options, {key: value for key, value in offer.secrets.items() if key != SERVICE_ACCOUNT_TOKENS}
        )

    def renew(
        self, order: PublishRequest, offer: Offer, patience: Seconds
    ) -> tuple[Mapping[str, str] | None, OssFuseError | None]:
        """For a published volume: new credentials, or None (keep what there is) with the reason, which was told."""
        try:
            found = self.obtain(order, offer, patience)
        except OssFuseError as error:
            self._tell(order, scrub(str(error), offer.hidden))
            return None, error
        with self._lock:
            recovered = self._told.pop(order.target, None) is not None
        if recovered:
            log.info("volume %s at %s: credentials are renewed again", order.volume_id, order.target)
        return found, None

    def forget(self, target: Path) -> None:
        """Nothing is published at `target` any more."""
        with self._lock:
            self._held.pop(target, None)
            self._told.pop(target, None)

    def close(self) -> None:
        self._exchange.close()

    def _take_role(self, order: PublishRequest, offer: Offer, patience: Seconds) -> Credentials:
        options, pod = order.spec.credentials, required_pod(order.pod)
        if options.service_account_name not in ("", pod.service_account):
            raise InvalidOption(
                "serviceAccountName",
                options.service_account_name,
                f"{pod.service_account!r}, the service account of pod {pod.namespace}/{pod.name}",
                hint="run the pod as the volume's service account, or remove serviceAccountName from the volume",
            )
        token = service_account_token(offer.context, offer.secrets)
        endpoint = self._endpoint or sts_endpoint(order.spec.location)
        identity = (endpoint, options.role_arn, options.oidc_provider_arn, pod.namespace, pod.service_account, pod.uid)
        with self._lock:
            held = self._held.get(order.target)
        now = self._clock()
        if held is not None and held.identity == identity and now < held.due:
            return held.credentials
        claim = RoleClaim(
            role_arn=options.role_arn,
            provider_arn=options.oidc_provider_arn,
            service_account=f"{pod.namespace}/{pod.service_account}",
            session=session_name(pod.namespace, pod.name),
            token=token,
        )
        credentials = self._exchange.assume(endpoint, claim, Seconds(min(_PATIENCE, patience)))
        life = max((credentials.expiration or now) - now, 0.0)
        due = now + life * (_EARLIEST + (_LATEST - _EARLIEST) * self._random())
        with self._lock:
            self._held[order.target] = _Held(identity, credentials, due)
        log.info(
            "volume %s at %s: %s took on %s for %.0f s",
            *(order.volume_id, order.target, claim.service_account, claim.role_arn, life),
        )
        return credentials

    def _tell(self, order: PublishRequest, reason: str) -> None:
        """At most once for an outage while the credentials live, and once when they have expired."""
        with self._lock:
            held = self._held.get(order.target)
            expiration = held.credentials.expiration if held is not None else None
            expired = expiration is not None and self._clock() >= expiration
            if self._told.get(order.target, False) >= expired and order.target in self._told:
                return
            self._told[order.target] = expired
        moment = f" {_iso(expiration)}" if expiration is not None else ""
        state = (
            f"expired at{moment} and could not be renewed, so that files answer 'Permission denied'"
            if expired
            else "could not be renewed; the previous ones stay in force" + (f" until{moment}" if moment else "")
        )
        message = f"the credentials of volume {order.volume_id} {state}: {reason}"
        log.warning("%s (at %s)", message, order.target)
        if order.pod is not None:
            incident = Incident(IncidentKind.CREDENTIALS_NOT_RENEWED, order.volume_id, "", message)
            self._incidents.report(order.pod, incident)


def _pairs(credentials: Credentials) -> dict[str, str]:
    pairs = {
        "AccessKeyId": credentials.access_key_id,
        "AccessKeySecret": credentials.access_key_secret,
        "SecurityToken": credentials.security_token,
    }
    if credentials.expiration is not None:
        pairs["Expiration"] = _iso(credentials.expiration)
    return pairs


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
