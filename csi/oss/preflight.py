"""One cheap signed request that tells, before anything is mounted, whether a volume can be served.

A wrong bucket, key or endpoint becomes a typed error within seconds whose message says where was asked, as whom and
what to do; a success promises only that the prefix may be listed.
"""

from __future__ import annotations

from csi.errors import StoreError
from csi.oss.answers import shown
from csi.oss.client import OssClient
from csi.oss.requests import Call
from csi.oss.retry import RetryPolicy
from csi.volume.units import Seconds

POLICY = RetryPolicy(retries=1, interval=Seconds(0.2), timeout=Seconds(5.0), deadline=Seconds(10.0))


def preflight(client: OssClient) -> None:
    """List at most one key under the prefix. Raises a StoreError, or CredentialsMissing."""
    session = client.session
    location = session.location
    query = [("list-type", "2"), ("max-keys", "1")]
    if location.prefix:
        query.append(("prefix", location.prefix))
    try:
        session.call(Call("ListObjects", "GET", query=query), policy=POLICY)
    except StoreError as error:
        identity = session.identity()
        error.message = (
            f"bucket {location.bucket} at {location.endpoint}, prefix '{shown(location.prefix)}', {identity}: "
            f"{error.message}"
        )
        error.args = (error.message,)
        raise
