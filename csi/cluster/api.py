"""The Kubernetes API server as a few typed calls on plain JSON, for everything else in this room.

The official client is used for what it is good at, finding and renewing the credentials of a pod or of a kubeconfig and
the TLS around them; objects stay the dictionaries they are on the wire, so that fields a newer cluster knows are kept.
It promises that every call ends within its timeout, that a 404 is an answer and not an error, and that no error shows
a token or any part of a Secret. It retries nothing but a read whose connection had been closed while idle; what else
is worth another try, the caller knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, urlencode

import urllib3
import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.exceptions import HTTPError, ProtocolError

from csi.errors import ApiConflict, ApiRefused, ApiUnreachable, ObjectMissing
from csi.volume.units import Seconds

JsonObject: TypeAlias = dict[str, Any]
JsonPatch: TypeAlias = list[JsonObject]
PatchKind: TypeAlias = Literal["strategic", "merge", "json"]

TIMEOUT: Final = Seconds(5.0)
"""How long one call may take where nothing else is said."""

_PATCHES: Final[Mapping[PatchKind, str]] = {
    "strategic": "application/strategic-merge-patch+json",
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
}
_PAGE: Final = 500
_CONNECTIONS: Final = 16
_LONGEST_TEXT: Final = 512
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


def resource_path(api_version: str, plural: str, *, namespace: str = "", name: str = "") -> str:
    """The path of a collection or, with `name`, of one object: `resource_path("v1", "pods", namespace="a", name="b")`
    is `/api/v1/namespaces/a/pods/b`. Names are quoted, so that none can point elsewhere."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    inside = f"/namespaces/{_quoted(namespace)}" if namespace else ""
    return f"{root}{inside}/{plural}" + (f"/{_quoted(name)}" if name else "")


class KubernetesApi:
    """One API server. Safe from any thread; `close` lets its connections go.

    Every method raises ApiRefused for an answer that says no and ApiUnreachable where there is none. `timeout` bounds
    a call, from connecting to the end of the answer's headers; each method may be given another one.
    """

    def __init__(self, configuration: Configuration, *, timeout: Seconds = TIMEOUT) -> None:
        configuration.connection_pool_maxsize = _CONNECTIONS
        self._configuration = configuration
        self._host = str(configuration.host).rstrip("/")
        self._client = ApiClient(configuration)
        self._timeout = timeout

    @classmethod
    def in_cluster(cls, *, timeout: Seconds = TIMEOUT) -> KubernetesApi:
        """As the service account of this pod; its token is read again while it is renewed."""
        configuration = _blank()
        try:
            load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            raise ApiUnreachable(
                f"this process has no Kubernetes service account: {error}",
                hint="run it in a pod with automountServiceAccountToken, or give --kubeconfig",
            ) from None
        return cls(configuration, timeout=timeout)

    @classmethod
    def from_kubeconfig(cls, path: str, *, context: str = "", timeout: Seconds = TIMEOUT) -> KubernetesApi:
        """As a kubeconfig file says; `context` '' is its current one."""
        configuration = _blank()
        try:
            load_kube_config(  # type: ignore[no-untyped-call]
                path, context=context or None, client_configuration=configuration, persist_config=False
            )
        except (ConfigException, OSError, TypeError, ValueError, yaml.YAMLError) as error:
            # an error of the parser may quote the file, which holds keys and tokens
            why = str(error) if isinstance(error, ConfigException | OSError) else type(error).__name__
            raise ApiUnreachable(f"the kubeconfig {path} cannot be used: {why}") from None
        return cls(configuration, timeout=timeout)

    def get(self, path: str, *, timeout: Seconds | None = None) -> JsonObject | None:
        """The object, None when there is none."""
        try:
            return self._call("GET", path, timeout=timeout)
        except ObjectMissing:
            return None

    def list(self, path: str, *, timeout: Seconds | None = None, **params: str) -> list[JsonObject]:
        """Every item of a collection, page by page; `params` such as `fieldSelector` and `labelSelector`."""
        items: list[JsonObject] = []
        query = {"limit": str(_PAGE), **params}
        while True:
            page = self._call("GET", f"{path}?{urlencode(query)}", timeout=timeout)
            items += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    def create(self, path: str, item: JsonObject, *, timeout: Seconds | None = None) -> JsonObject:
        """`path` is that of the collection. Raises ApiConflict when the object exists."""
        return self._call("POST", path, item, timeout=timeout)

    def replace(self, path: str, item: JsonObject, *, timeout: Seconds | None = None) -> JsonObject:
        """Raises ApiConflict when `metadata.resourceVersion` is given and no longer the object's."""
        return self._call("PUT", path, item, timeout=timeout)

    def patch(
        self, path: str, item: JsonObject | JsonPatch, *, kind: PatchKind, timeout: Seconds | None = None
    ) -> JsonObject:
        """The object after the patch; `kind` json takes a list of operations."""
        return self._call("PATCH", path, item, content_type=_PATCHES[kind], timeout=timeout)

    def delete(self, path: str, *, timeout: Seconds | None = None) -> bool:
        """Whether it was there."""
        try:
            self._call("DELETE", path, timeout=timeout)
        except ObjectMissing:
            return False
        return True

    def close(self) -> None:
        self._client.rest_client.pool_manager.clear()

    def _call(
        self,
        method: str,
        path: str,
        item: object = None,
        *,
        content_type: str = "application/json",
        timeout: Seconds | None,
    ) -> JsonObject:
        what = f"{method} {path.partition('?')[0]}"
        body = None if item is None else json.dumps(item).encode()
        headers = {"Accept": "application/json", "User-Agent": "ossfuse-csi", **self._authorization(what)}
        if body is not None:
            headers["Content-Type"] = content_type
        for last in (False, True):
            try:
                answer = self._client.rest_client.pool_manager.request(
                    method,
                    self._host + path,
                    body=body,
                    headers=headers,
                    timeout=urllib3.Timeout(total=timeout or self._timeout),
                    retries=False,
                    redirect=False,
                )
                break
            except ProtocolError as error:
                if last or method != "GET":
                    raise _unreachable(what, self._host, error) from None
            except (HTTPError, OSError) as error:
                raise _unreachable(what, self._host, error) from None
        return _read(what, answer.status, answer.data, secret="/secrets" in path)

    def _authorization(self, what: str) -> dict[str, str]:
        """The bearer token in force, read again by the client when it is due."""
        try:
            settings = self._configuration.auth_settings()
        except (ConfigException, OSError) as error:
            raise _unreachable(what, self._host, error) from None
        token: Any = settings.get("BearerToken")
        return {"Authorization": str(token["value"])} if token else {}


def _blank() -> Configuration:
    """A configuration of our own: the client's default one is shared by the whole process."""
    configuration: Configuration = type.__call__(Configuration)
    return configuration


def _quoted(name: str) -> str:
    """One segment of a path; `.` and `..` are none."""
    return quote(name, safe="").replace(".", "%2E") if name.strip(".") == "" else quote(name, safe="")


def _read(what: str, status: int, body: bytes, *, secret: bool) -> JsonObject:
    try:
        parsed = json.loads(body) if body else {}
    except ValueError:
        parsed = None
    if 200 <= status < 300:
        if isinstance(parsed, dict):
            return parsed
        raise ApiUnreachable(f"{what}: the answer is no JSON object", hint="is a proxy between us and the API server?")
    told = parsed if isinstance(parsed, dict) else {}
    reason = str(told.get("reason") or "")
    # what the server says about a Secret may quote it
    text = "" if secret else str(told.get("message") or "")[:_LONGEST_TEXT]
    kinds: dict[int, type[ApiRefused]] = {_NOT_FOUND: ObjectMissing, _CONFLICT: ApiConflict}
    shown = f"{what}: the API server refused ({' '.join(filter(None, (str(status), reason)))})"
    hint = {
        401: "the service account's token is not accepted; restart the pod",
        403: "the service account may not do that; compare its ClusterRole with the chart's",
    }.get(status, "")
    raise kinds.get(status, ApiRefused)(f"{shown}: {text}" if text else shown, status=status, reason=reason, hint=hint)


def _unreachable(what: str, host: str, error: Exception) -> ApiUnreachable:
    return ApiUnreachable(
        f"{what}: no answer of the API server {host} ({type(error).__name__}: {str(error)[:_LONGEST_TEXT]})",
        hint="it will be tried again; look at the API server and the network to it",
    )
