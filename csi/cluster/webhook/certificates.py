"""Where the webhook's certificate comes from: made here and kept in a Secret, or read from a directory.

Every replica looks at the same Secret and believes it, so all serve the same certificate; who replaces it does so only
if nobody else has meanwhile (the Secret's resourceVersion), and otherwise takes what the other made. No certificate is
served before the API server has known its CA from one look to the next: CAs are only ever added to the
webhook's bundle until they expire, so that replicas which have not looked yet are trusted too. An expired, damaged or
foreign Secret is replaced. Keys go from the Secret to memory and nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from csi.cluster.api import JsonObject, JsonPatch, PatchKind, resource_path
from csi.cluster.webhook.issuing import (
    RENEWAL,
    CertificateUnusable,
    ServingCertificate,
    check,
    joined,
    make_certificate,
)
from csi.errors import ApiConflict, ApiUnreachable, OssFuseError, PluginNotHealthy

log = logging.getLogger(__name__)

SECRET_NAME: Final = "ossfuse-csi-webhook-cert"  # noqa: S105 - a name

Clock = Callable[[], datetime.datetime]
"""The time, in UTC."""

_MANAGER: Final = "?fieldManager=ossfuse-csi-controller"
_ATTEMPTS: Final = 5


class CertificateSource(Protocol):
    """Asked again and again, by one thread at a time."""

    def current(self) -> ServingCertificate:
        """The certificate to serve from now on. Raises OssFuseError while there is none that is better than before."""


class ObjectWriter(Protocol):
    """The part of `KubernetesApi` that is needed here."""

    def get(self, path: str) -> JsonObject | None: ...

    def create(self, path: str, item: JsonObject) -> JsonObject: ...

    def replace(self, path: str, item: JsonObject) -> JsonObject: ...

    def patch(self, path: str, item: JsonObject | JsonPatch, *, kind: PatchKind) -> JsonObject: ...


@dataclass(frozen=True, slots=True)
class WebhookNames:
    """`namespace` of the controller, its Service and the Secret; `configuration` the MutatingWebhookConfiguration."""

    namespace: str
    service: str
    configuration: str
    secret: str = SECRET_NAME

    def server_name(self) -> str:
        """What the API server expects the certificate to be for."""
        return f"{self.service}.{self.namespace}.svc"


class SelfMadeCertificates:
    """Implements `CertificateSource` with a Secret; see the module's paragraph. Not for two threads at once."""

    def __init__(self, api: ObjectWriter, names: WebhookNames, clock: Clock) -> None:
        self._api = api
        self._names = names
        self._clock = clock
        self._serving: ServingCertificate | None = None
        self._told: bytes | None = None  # the certificate whose CA was in the bundle when the last look ended
        collection = resource_path("v1", "secrets", namespace=names.namespace)
        self._secrets, self._secret = collection + _MANAGER, f"{collection}/{names.secret}"
        self._configuration = resource_path(
            "admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", name=names.configuration
        )

    def current(self) -> ServingCertificate:
        """Raises ApiRefused, ApiUnreachable, PluginNotHealthy."""
        wanted = self._agreed()
        told_before = self._told == wanted.certificate
        trusted = self._publish(wanted)
        self._told = wanted.certificate
        if self._serving is None or (trusted and told_before):
            self._serving = wanted
        return self._serving

    def _agreed(self) -> ServingCertificate:
        """The certificate in the Secret, a new one where it has none that will do."""
        for _ in range(_ATTEMPTS):
            found = self._api.get(self._secret)
            kept = _stored(found)
            problem = self._problem(kept)
            if kept is not None and not problem:
                return kept
            log.info("the webhook gets a new certificate: %s", problem)
            name = self._names.server_name()
            made = make_certificate((name, f"{name}.cluster.local"), self._clock())
            bundle = joined([made.authorities, kept.authorities if kept else b""], self._clock())
            made = ServingCertificate(made.certificate, made.key, bundle)
            try:
                self._store(found, made)
            except ApiConflict:
                log.info("another replica was faster: its certificate is taken")
                continue
            return made
        raise ApiUnreachable(
            f"the Secret {self._names.namespace}/{self._names.secret} changes faster than it can be written",
            hint="see who else writes it: kubectl get secret -o yaml --show-managed-fields",
        )

    def _problem(self, kept: ServingCertificate | None) -> str:
        """Why the Secret's certificate is not to be served any longer, '' if it is."""
        if kept is None:
            return f"the Secret {self._names.namespace}/{self._names.secret} has none"
        now = self._clock()
        try:
            check(kept, self._names.server_name(), now)
        except CertificateUnusable as error:
            return str(error)
        if not kept.authorities:
            return "the Secret has no ca.crt"
        return f"the old one ends on {kept.expiry():%Y-%m-%d}" if kept.expiry() - now < RENEWAL else ""

    def _store(self, found: JsonObject | None, made: ServingCertificate) -> None:
        data = {"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": made.authorities}
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        if found is None:
            metadata = {"name": self._names.secret, "namespace": self._names.namespace}
            secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": encoded}
            self._api.create(self._secrets, secret)
        else:
            self._api.replace(self._secret + _MANAGER, {**found, "data": {**(found.get("data") or {}), **encoded}})

    def _publish(self, wanted: ServingCertificate) -> bool:
        """Tell the API server to trust `wanted`; whether it had been told before."""
        found = self._api.get(self._configuration)
        webhooks = (found or {}).get("webhooks") or []
        if not webhooks:
            raise PluginNotHealthy(
                f"there is no MutatingWebhookConfiguration {self._names.configuration}: pods get no sidecars",
                hint="install the chart again, or start the controller with --webhook-port 0",
            )
        patch: JsonPatch = []
        now = self._clock()
        for index, webhook in enumerate(webhooks):
            known = _decoded((webhook.get("clientConfig") or {}).get("caBundle"))
            bundle = joined([wanted.authorities, known], now)
            if set(_blocks(bundle)) != set(_blocks(known)):
                patch += _bundled(index, webhook, bundle)
        if patch:
            self._api.patch(self._configuration + _MANAGER, patch, kind="json")
            log.info("the API server is told the webhook's CA")
        return not patch


class DirectoryCertificates:
    """Implements `CertificateSource` with `tls.crt` and `tls.key` in a directory, such as a Secret that cert-manager
    keeps. What is half written or damaged is not taken; whose CA the API server trusts, somebody else cares for."""

    def __init__(self, directory: Path, names: WebhookNames, clock: Clock) -> None:
        self._directory = directory
        self._names = names
        self._clock = clock

    def current(self) -> ServingCertificate:
        """Raises CertificateUnusable."""
        try:
            certificate = (self._directory / "tls.crt").read_bytes()
            key = (self._directory / "tls.key").read_bytes()
        except OSError as error:
            raise CertificateUnusable(
                f"{error.filename}: {error.strerror}", hint="is the certificate issued and its Secret mounted?"
            ) from None
        found = ServingCertificate(certificate, key)
        try:
            check(found, self._names.server_name(), self._clock())
        except OssFuseError as error:
            raise CertificateUnusable(f"{self._directory}: {error.message}", hint=error.hint) from None
        return found


def _stored(secret: JsonObject | None) -> ServingCertificate | None:
    data = (secret or {}).get("data") or {}
    if not (data.get("tls.crt") and data.get("tls.key")):
        return None
    return ServingCertificate(_decoded(data["tls.crt"]), _decoded(data["tls.key"]), _decoded(data.get("ca.crt")))


def _decoded(text: str | None) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _blocks(bundle: bytes) -> list[bytes]:
    """The certificates of a bundle as lines of base64, whatever surrounds them."""
    return [block.split(b"-----END", 1)[0].strip() for block in bundle.split(b"-----BEGIN CERTIFICATE-----")[1:]]


def _bundled(index: int, webhook: JsonObject, bundle: bytes) -> JsonPatch:
    path = f"/webhooks/{index}"
    return [
        {"op": "test", "path": f"{path}/name", "value": webhook.get("name")},
        {"op": "add", "path": f"{path}/clientConfig/caBundle", "value": base64.b64encode(bundle).decode()},
    ]
