"""An AdmissionReview in, an AdmissionReview out: the decision about one pod, without the server around it.

Allowed as it is, allowed with a patch, or refused with the sentence that the user reads; where the volumes cannot be
looked up it is an error of the call itself, so that the webhook's failurePolicy decides. Nothing is changed in the
cluster, so a dry run is answered like any other.
"""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from typing import Any, Final, Protocol

from csi.cluster.api import JsonObject
from csi.cluster.webhook.injection import Injection, PodRefused, inject, wants_sidecars
from csi.cluster.webhook.sidecar import SidecarSettings
from csi.cluster.webhook.volumes import OurVolume, UnknownVolume
from csi.errors import InvalidOption, OssFuseError
from csi.volume.units import Seconds

log = logging.getLogger(__name__)

_VERSION: Final = "admission.k8s.io/v1"
_LONGEST_WARNING: Final = 256
"""Characters that the API server passes on."""
_UNTOUCHED: Final = Injection([])


class MalformedReview(OssFuseError):
    """The body is no AdmissionReview of a pod's creation."""


class Resolver(Protocol):
    """`VolumeResolver`; a stand-in in tests."""

    def resolve(self, pod: JsonObject, namespace: str, patience: Seconds) -> list[OurVolume | UnknownVolume]: ...


@dataclass(frozen=True, slots=True)
class PodReviewer:
    """Safe from any thread."""

    resolver: Resolver
    settings: SidecarSettings

    def review(self, body: Any, patience: Seconds) -> JsonObject:
        """The answer to a decoded AdmissionReview. Raises MalformedReview, ApiRefused, ApiUnreachable."""
        request, pod = _request(body)
        if request.get("operation", "CREATE") != "CREATE" or request.get("subResource"):
            return _answer(request, {"allowed": True})
        namespace = str(request.get("namespace") or (pod.get("metadata") or {}).get("namespace") or "default")
        what = f"pod {namespace}/{_name(request, pod)}"
        try:
            injection = self.admit(pod, namespace, patience)
        except (PodRefused, InvalidOption) as refusal:
            log.info("%s is refused: %s", what, refusal)
            status = {"code": 422, "reason": "Invalid", "message": str(refusal)}
            return _answer(request, {"allowed": False, "status": status})
        for warning in injection.warnings:
            log.warning("%s: %s", what, warning)
        if not injection.patch:
            return _answer(request, {"allowed": True, **_warnings(injection)})
        log.info("%s gets %s", what, ", ".join(injection.sidecars) or "the reason why it has no sidecar")
        patch = base64.b64encode(json.dumps(injection.patch).encode()).decode()
        return _answer(request, {"allowed": True, "patchType": "JSONPatch", "patch": patch, **_warnings(injection)})

    def admit(self, pod: JsonObject, namespace: str, patience: Seconds) -> Injection:
        """What the pod gets. Raises PodRefused, InvalidOption, ApiRefused, ApiUnreachable."""
        if not wants_sidecars(pod):
            return _UNTOUCHED
        volumes = self.resolver.resolve(pod, namespace, patience)
        return inject(pod, volumes, self.settings)


def _request(body: Any) -> tuple[JsonObject, JsonObject]:
    review = body if isinstance(body, dict) else {}
    request = review.get("request")
    if review.get("apiVersion") != _VERSION or not isinstance(request, dict) or not request.get("uid"):
        raise MalformedReview(f"the body is no AdmissionReview of {_VERSION} with a request")
    pod = request.get("object")
    if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict) or pod.get("kind", "Pod") != "Pod":
        raise MalformedReview(
            "the request's object is no pod",
            hint="the rules of the MutatingWebhookConfiguration should name CREATE of pods only",
        )
    return request, pod


def _name(request: JsonObject, pod: JsonObject) -> str:
    metadata = pod.get("metadata") or {}
    name = str(request.get("name") or metadata.get("name") or f"{metadata.get('generateName', '')}…")
    return name if name.isprintable() else repr(name)  # nobody has validated the pod yet


def _answer(request: JsonObject, response: JsonObject) -> JsonObject:
    return {"apiVersion": _VERSION, "kind": "AdmissionReview", "response": {"uid": request["uid"], **response}}


def _warnings(injection: Injection) -> JsonObject:
    shown = [
        text if len(text) <= _LONGEST_WARNING else f"{text[: _LONGEST_WARNING - 1]}…" for text in injection.warnings
    ]
    return {"warnings": shown} if shown else {}
