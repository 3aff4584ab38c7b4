"""From a volume and a Secret to the store that holds it: the one place where the services meet `csi/oss`.

Used by the controller for its records and by the node for the request it makes before it mounts. Tests put a factory
of their own in its place.
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
    """A client for `spec`'s bucket. Raises CredentialsMissing."""
    return _client(spec, secrets, _CONTROL_DEADLINE)


def check_volume(request: PublishRequest, deadline: Seconds) -> None:
    """One cheap signed request for a volume that shall be mounted, so that a wrong bucket, key or endpoint is told now.

    Raises StoreError and CredentialsMissing. Credentials that only the sidecar can see are left to it.
    """
    if request.spec.credentials.auth_type not in {AuthType.SECRET, AuthType.PUBLIC}:
        return
    client = _client(request.spec, request.credentials, deadline)
    try:
        preflight(client)
    finally:
        client.close()


def _client(spec: VolumeSpec, secrets: Mapping[str, str], deadline: Seconds) -> OssClient:
    http = replace(spec.http, deadline=Seconds(min(deadline, spec.http.deadline)))
    credentials: CredentialsProvider
    if spec.credentials.auth_type is AuthType.PUBLIC:
        credentials = AnonymousCredentials()
    else:
        credentials = StaticCredentials(credentials_from_secret(secrets))
    return OssClient(spec.location, http, spec.write, credentials)
