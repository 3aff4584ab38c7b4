"""From a volume and a Secret to the store that holds it: where the services meet `csi/oss`.

The controller opens a bucket for the few requests that a record needs, each bounded so that a call of the provisioner
can still tell its own failure. The node makes one request before it mounts. Tests put a factory of their own here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from csi.handover.types import PublishRequest
from csi.oss.client import OssClient
from csi.oss.credentials import AnonymousCredentials, CredentialsProvider, StaticCredentials, credentials_from_secret
from csi.oss.preflight import preflight
from csi.oss.store import ObjectStore
from csi.volume.spec import AuthType, VolumeSpec
from csi.volume.units import Seconds

StoreFactory = Callable[[VolumeSpec, Mapping[str, str]], ObjectStore]
"""From what a volume is and the Secret of the request to a store; whoever calls it closes the store."""

_CONTROL_DEADLINE = Seconds(10.0)
"""For one request of the controller, retries included: the provisioner gives a whole call 15 seconds by default."""


def open_store(spec: VolumeSpec, secrets: Mapping[str, str]) -> ObjectStore:
    """A client for `spec`'s bucket that signs with `secrets`. Raises CredentialsMissing."""
    http = replace(spec.http, deadline=Seconds(min(_CONTROL_DEADLINE, spec.http.deadline)))
    return OssClient(spec.location, http, spec.write, StaticCredentials(credentials_from_secret(secrets)))


def check_volume(request: PublishRequest, deadline: Seconds) -> None:
    """One cheap signed request for a volume that shall be mounted, so that a wrong bucket, key or endpoint is told now.

    Raises StoreError and CredentialsMissing. Credentials that only the sidecar can see are left to it.
    """
    spec = request.spec
    credentials: CredentialsProvider
    match spec.credentials.auth_type:
        case AuthType.PUBLIC:
            credentials = AnonymousCredentials()
        case AuthType.SECRET | AuthType.ENVIRONMENT | AuthType.RRSA:
            credentials = StaticCredentials(credentials_from_secret(request.credentials or {}))
        case _:
            return
    http = replace(spec.http, deadline=Seconds(min(deadline, spec.http.deadline)))
    client = OssClient(spec.location, http, spec.write, credentials)
    try:
        preflight(client)
    finally:
        client.close()
