"""The way from training code to buckets: endpoint, region, credentials and configuration, and the stores made of them.

A `Connection` is a value: it pickles as its parameters, so that workers started by spawn or forkserver make stores of
their own, and those started by fork go on with sockets of their own. Asks nothing of the network by itself.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import replace

from csi.errors import InvalidOption
from csi.oss.client import OssClient
from csi.oss.credentials import CredentialsProvider
from csi.oss.transport import CurlTransport
from csi.torch import configuration as configurations
from csi.torch import credentials as sources
from csi.torch.configuration import Configuration
from csi.torch.credentials import CredentialSource
from csi.torch.logs import Audit, AuditedTransport, start_logs
from csi.torch.uri import Place
from csi.volume.spec import HttpOptions, Location, WriteOptions
from csi.volume.units import Seconds
from csi.volume.uri import Endpoint, parse_endpoint, parse_region


def connect(
    endpoint: str,
    *,
    cred_path: str = "",
    cred_provider: object | None = None,
    config_path: str = "",
    region: str = "",
) -> Connection:
    """The connection that the arguments of a data set or a checkpoint describe.

    This is where a training process enters: the only place that looks at its environment, for credentials. Raises
    InvalidOption, UnsupportedVolume, CredentialsMissing.
    """
    return Connection.of(
        endpoint,
        cred_path=cred_path,
        cred_provider=cred_provider,
        config_path=config_path,
        region=region,
        environ=os.environ,
    )


class Connection:
    """`endpoint` '' is for addresses that all name theirs. `http` bounds the connections and the requests of a store.
    `fetcher` leads to what `csi.torch.fetching.fetcher_of` made of it.

    Has no lock: the stores of one process are found and added by single operations.
    """

    def __init__(
        self,
        endpoint: str,
        source: CredentialSource,
        configuration: Configuration,
        *,
        region: str = "",
        http: HttpOptions | None = None,
    ) -> None:
        self.configuration = configuration
        self._endpoint = endpoint
        self._parsed = parse_endpoint(endpoint, key="endpoint") if endpoint else None
        self._region = parse_region(region)
        self._source = source
        self._http = http or HttpOptions()
        self._provider: CredentialsProvider | None = None
        self._audit: Audit | None = None
        self._stores: dict[Place, OssClient] = {}
        self.fetcher: weakref.ref[object] | None = None

    @classmethod
    def of(
        cls,
        endpoint: str,
        *,
        cred_path: str = "",
        cred_provider: object | None = None,
        config_path: str = "",
        region: str = "",
        environ: Mapping[str, str],
    ) -> Connection:
        """See `connect`; `environ` may hold credentials."""
        configuration = configurations.load(config_path)
        source = sources.choose(path=cred_path, provider=cred_provider, environ=environ)
        return cls(endpoint, source, configuration, region=region)

    def __reduce__(self) -> tuple[object, ...]:
        parameters = (self._endpoint, self._source, self.configuration, self._region, self._http)
        return _restored, parameters

    def __repr__(self) -> str:
        return f"Connection({self._endpoint!r})"

    def with_bounds(self, *, connections: int, timeout: Seconds | None) -> Connection:
        """The same with at most `connections` requests at a time in a process, each of at most `timeout`."""
        http = replace(self._http, max_connections=connections)
        if timeout is not None:
            http = replace(http, timeout=timeout, deadline=Seconds(max(http.deadline, 2 * timeout)))
        made = Connection(self._endpoint, self._source, self.configuration, region=self._region, http=http)
        made._audit, made._provider = self._audit, self._provider
        return made

    def store(self, place: Place) -> OssClient:
        """The store of a bucket in this process, made when it is first asked for. Any thread.

        Raises InvalidOption when there is no endpoint, CredentialsMissing.
        """
        store = self._stores.get(place)
        if store is None:
            http = self._http
            carrier = CurlTransport(max_connections=http.max_connections, connect_timeout=http.connection_timeout)
            transport = AuditedTransport(carrier, self.audit())
            made = OssClient(self.location(place), http, WriteOptions(), self.credentials(), transport=transport)
            store = self._stores.setdefault(place, made)
        return store

    def credentials(self) -> CredentialsProvider:
        """What signs the requests of this process."""
        if self._provider is None:
            self._provider = self._source.open()
        return self._provider

    def audit(self) -> Audit:
        """Where slow requests are told. The logs of this process begin with the first one that asks."""
        if self._audit is None:
            self._audit = start_logs(self.configuration.log)
        return self._audit

    def location(self, place: Place) -> Location:
        """Where a bucket is.

        An endpoint in an address counts, unless the connection has one for the same region: it then knows the better
        way there (the internal network, plain HTTP, a port).
        """
        ours = self._parsed
        theirs = parse_endpoint(place.endpoint, key="uri") if place.endpoint else None
        where = ours if theirs is None or (ours is not None and _lead_to_the_same(ours, theirs)) else theirs
        if where is None:
            raise InvalidOption.stating(
                "endpoint",
                f"no endpoint is given for bucket {place.bucket!r}",
                hint="give endpoint=, such as https://oss-cn-hangzhou-internal.aliyuncs.com",
            )
        region = self._region if where is ours else ""
        return Location(place.bucket, where.url, "", region or where.region, where.takes_bucket_in_path)

    def close(self) -> None:
        """Close the connections of this process; requests under way end with EndpointUnreachable. Idempotent."""
        for store in self._stores.values():
            store.close()


def _restored(
    endpoint: str, source: CredentialSource, configuration: Configuration, region: str, http: HttpOptions
) -> Connection:
    return Connection(endpoint, source, configuration, region=region, http=http)


def _lead_to_the_same(one: Endpoint, other: Endpoint) -> bool:
    if one.host == other.host:
        return not other.port or one.port == other.port
    return bool(one.region) and one.region == other.region
