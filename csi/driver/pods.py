"""What kubelet adds to a volume's attributes about the pod it publishes for, as values.

Two fields of the CSIDriver object decide what comes: `podInfoOnMount` brings the pod, `tokenRequests` a token of its
service account. What should be there and is not is answered with the field to set, because nobody else would know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from csi.driver.calls.redaction import SERVICE_ACCOUNT_TOKENS
from csi.driver.capabilities import Access
from csi.errors import ClusterMisconfigured
from csi.handover.types import PodReference
from csi.oss.assume_role import AUDIENCE
from csi.volume.naming import DRIVER_NAME

_PREFIX: Final = "csi.storage.k8s.io/"
_NEVER_OPTIONS: Final = (_PREFIX, "storage.kubernetes.io/")
_APPLY: Final = f"set it in the CSIDriver object {DRIVER_NAME} (the chart does), then recreate the pod"


def pod_reference(context: Mapping[str, str]) -> PodReference | None:
    """The pod in a volume context, None when kubelet did not say."""
    uid, name, namespace, account = (
        context.get(f"{_PREFIX}{key}", "") for key in ("pod.uid", "pod.name", "pod.namespace", "serviceAccount.name")
    )
    if not (uid and name and namespace):
        return None
    return PodReference(uid, name, namespace, account, ephemeral=context.get(f"{_PREFIX}ephemeral") == "true")


def required_pod(pod: PodReference | None) -> PodReference:
    """Raises ClusterMisconfigured when kubelet did not name the pod."""
    if pod is None:
        raise ClusterMisconfigured(
            "kubelet did not say which pod the volume is for: podInfoOnMount is off", hint=_APPLY
        )
    return pod


def service_account_token(context: Mapping[str, str], secrets: Mapping[str, str]) -> str:
    """The token of the pod's service account for STS, which newer kubelets put among the secrets.

    Raises ClusterMisconfigured when there is none; the error shows nothing of what is there.
    """
    text = secrets.get(SERVICE_ACCOUNT_TOKENS) or context.get(SERVICE_ACCOUNT_TOKENS, "")
    try:
        tokens = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        tokens = {}
    found = tokens.get(AUDIENCE) if isinstance(tokens, dict) else None
    token = found.get("token") if isinstance(found, dict) else None
    if not isinstance(token, str) or not token:
        raise ClusterMisconfigured(
            f"authType rrsa: kubelet sent no service account token for audience {AUDIENCE}: tokenRequests lacks it",
            hint=_APPLY,
        )
    return token


def digest_of_call(volume_id: str, context: Mapping[str, str], access: Access) -> str:
    """A digest of the words that define a mount: equal for every repetition of one call, whatever pod fields, tokens
    and Secrets go with it."""
    attributes = sorted((key, value) for key, value in context.items() if not key.startswith(_NEVER_OPTIONS))
    words = [volume_id, attributes, access.read_only, list(access.mount_flags), access.mount_group]
    return hashlib.sha256(json.dumps(words, ensure_ascii=True).encode()).hexdigest()
