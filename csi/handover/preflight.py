"""The one cheap signed request before a mount: a wrong bucket, key or endpoint fails the publish, and hangs nobody."""

from __future__ import annotations

import dataclasses

from csi.errors import CredentialsMissing
from csi.handover.types import PublishRequest
from csi.oss.client import OssClient
from csi.oss.credentials import (
    AnonymousCredentials,
    CredentialsProvider,
    FileCredentials,
    StaticCredentials,
    credentials_from_secret,
)
from csi.oss.preflight import preflight
from csi.volume.spec import AuthType, HttpOptions
from csi.volume.units import Seconds

_LONGEST = Seconds(15.0)


def bucket_preflight(request: PublishRequest, deadline: Seconds) -> None:
    """List at most one object under the volume's prefix with the volume's credentials, within `deadline`.

    Raises StoreError, CredentialsMissing.
    """
    spec = request.spec
    client = OssClient(spec.location, _hasty(spec.http, deadline), spec.write, _credentials(request))
    try:
        preflight(client)
    finally:
        client.close()


def _hasty(http: HttpOptions, deadline: Seconds) -> HttpOptions:
    limit = Seconds(min(deadline, http.deadline, _LONGEST))
    return dataclasses.replace(
        http, deadline=limit, timeout=Seconds(min(http.timeout, limit)), retries=min(http.retries, 1)
    )


def _credentials(request: PublishRequest) -> CredentialsProvider:
    options = request.spec.credentials
    match options.auth_type:
        case AuthType.PUBLIC:
            return AnonymousCredentials()
        case AuthType.FILE:
            return FileCredentials(options.credential_file)
        case AuthType.SECRET | AuthType.ENVIRONMENT:
            return StaticCredentials(credentials_from_secret(request.credentials))
        case AuthType.RRSA:
            raise CredentialsMissing("authType rrsa is not available yet", hint="use a Secret with akId and akSecret")
