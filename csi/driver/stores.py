"""From a volume and a Secret to the store that holds it: where the controller meets `csi/oss`.

It opens a bucket for the few requests that a record needs, each bounded so that a call of the provisioner can still
tell its own failure. Tests put a factory of their own in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from csi.oss.client import OssClient
from csi.oss.credentials import StaticCredentials, credentials_from_secret
from csi.oss.store import ObjectStore
from csi.volume.spec import VolumeSpec
from csi.volume.units import Seconds

StoreFactory = Callable[[VolumeSpec, Mapping[str, str]], ObjectStore]
"""From what a volume is and the Secret of the request to a store; whoever calls it closes the store."""

_CONTROL_DEADLINE = Seconds(10.0)
"""For one request of the controller, retries included: the provisioner gives a whole call 15 seconds by default."""


def open_store(spec: VolumeSpec, secrets: Mapping[str, str]) -> ObjectStore:
    """A client for `spec`'s bucket that signs with `secrets`. Raises CredentialsMissing."""
    http = replace(spec.http, deadline=Seconds(min(_CONTROL_DEADLINE, spec.http.deadline)))
    return OssClient(spec.location, http, spec.write, StaticCredentials(credentials_from_secret(secrets)))
