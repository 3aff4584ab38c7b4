"""The API server asked from this process, through a `kubectl proxy`, which can sign in wherever kubectl can.

Tests ask thousands of times while they wait. A kubectl for each question costs a twentieth of a second of processor
time, most of it its own start; a request through the proxy costs a thousandth. What is said is what kubectl says:
objects are made by POST, with strict validation, and kinds go by all the names that kubectl knows.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.cluster.harness.failures import ClusterFailed

Object = dict[str, Any]
Objects = list[Object]

_TIMEOUT = 60.0
_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_DISCOVERY = f"{_JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_NAMES_ONLY = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Refused(ClusterFailed):
    """What the API server answered instead of doing it; `reason` as in a Status, '' where it is none."""

    def __init__(self, question: str, status: int, answer: bytes) -> None:
        try:
            said = json.loads(answer)
            self.reason = str(said.get("reason", ""))
            message = said["message"]
        except (ValueError, KeyError, AttributeError):
            self.reason, message = "", answer.decode(errors="replace")
        super().__init__(f"{question}: {status} {self.reason}: {message}")
        self.status = status


@dataclass(frozen=True)
class Kind:
    """`words`: what people call it. `path` is that of its group and version."""

    name: str
    plural: str
    words: frozenset[str]
    api_version: str
    path: str
    namespaced: bool
    listed: bool

    def collection(self, namespace: str = "") -> str:
        """Of one namespace; '' stands for all of them, or for none where the kind has none."""
        return f"{self.path}/namespaces/{namespace}/{self.plural}" if namespace else f"{self.path}/{self.plural}"


@dataclass
class Api:
    """`proxy` is the socket of a kubectl proxy. `kinds` are asked for when the first one is named, and again when there
    is a new one."""

    proxy: Path
    kinds: list[Kind] = field(default_factory=list, repr=False)

    def request(
        self, method: str, path: str, body: Object | None = None, *, form: str = _JSON, accept: str = _JSON
    ) -> Any:
        """The answer's JSON, or its text where it is none."""
        answer, kind = self._ask(method, path, body, form, accept)
        return json.loads(answer) if kind.startswith(_JSON) else answer.decode(errors="replace")

    def answers(self) -> bool:
        """Whether the API server is ready."""
        try:
            return bool(self.request("GET", "/readyz", accept="text/plain") == "ok")
        except (ClusterFailed, OSError):
            return False

    # --- objects, by the kind's name as for kubectl ---

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        try:
            found: Object = self.request("GET", self._path(self.kind(kind), namespace, name))
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return found

    def list(self, kind: str, namespace: str = "", selector: str = "") -> Objects:
        """Of several kinds if their names are joined by commas."""
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        found: Objects = []
        for one in map(self.kind, kind.split(",")):
            items = self.request("GET", self._path(one, namespace) + query)["items"] or ()
            found += [{"apiVersion": one.api_version, "kind": one.name, **item} for item in items]
        return found

    def apply(self, manifest: Object, namespace: str = "") -> None:
        """Make it, or change the one that is there by what the manifest says."""
        try:
            self.create(manifest, namespace)
        except Refused as refused:
            if refused.reason != "AlreadyExists":
                raise
            path = self._path_of(manifest, namespace, manifest["metadata"]["name"])
            self.request("PATCH", f"{path}?fieldValidation=Strict", manifest, form=_MERGE)

    def create(self, manifest: Object, namespace: str = "") -> None:
        self.request("POST", f"{self._path_of(manifest, namespace)}?fieldValidation=Strict", manifest)

    def delete(self, kind: str, name: str, namespace: str = "") -> str:
        """The UID of what will be gone, '' if there is none of that name."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            answer = self.request("DELETE", self._path(self.kind(kind), namespace, name), options)
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return ""
            raise
        described: Object = answer["details"] if answer["kind"] == "Status" else answer["metadata"]
        return str(described["uid"])

    def log(self, pod: str, container: str, namespace: str, *, previous: bool = False) -> str:
        query = urlencode({"container": container, "previous": str(previous).lower()})
        return str(self.request("GET", f"{self._path(self.kind('pod'), namespace, pod)}/log?{query}", accept="*/*"))

    # --- kinds ---

    def kind(self, word: str) -> Kind:
        wanted = word.lower()
        return self._found(lambda one: wanted in one.words, word)

    def names(self, but: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
        """Kind, namespace and name of everything in the cluster, `but` for some kinds' plural names."""
        self.kinds = list(self._discovered())
        for kind in self.kinds:
            if not kind.listed or kind.plural in but:
                continue
            try:
                items = self.request("GET", kind.collection(), accept=_NAMES_ONLY)["items"] or ()
            except Refused as refused:
                if refused.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
                    raise
                continue  # a kind that is just being removed
            for item in items:
                yield kind.name, item["metadata"].get("namespace", ""), item["metadata"]["name"]

    def _path_of(self, manifest: Object, namespace: str, name: str = "") -> str:
        wanted = (manifest["apiVersion"], manifest["kind"])
        kind = self._found(lambda one: (one.api_version, one.name) == wanted, " ".join(wanted))
        return self._path(kind, manifest["metadata"].get("namespace") or namespace, name)

    def _path(self, kind: Kind, namespace: str, name: str = "") -> str:
        place = kind.collection((namespace or "default") if kind.namespaced else "")
        return f"{place}/{quote(name)}" if name else place

    def _found(self, fits: Callable[[Kind], bool], what: str) -> Kind:
        found = next(filter(fits, self.kinds), None)
        if found is None:
            self.kinds = list(self._discovered())
            found = next(filter(fits, self.kinds), None)
        if found is None:
            raise ClusterFailed(f"the cluster has no kind {what}")
        return found

    def _discovered(self) -> Iterator[Kind]:
        """Of each group what its preferred version has, then what only others have."""
        for root in ("/api", "/apis"):
            for group in self.request("GET", root, accept=_DISCOVERY)["items"]:
                name = group["metadata"].get("name", "")
                seen: set[str] = set()
                for version in group["versions"]:
                    path = "/".join(filter(None, (root, name, version["version"])))
                    api_version = "/".join(filter(None, (name, version["version"])))
                    for one in version.get("resources", ()):
                        yield _kind(one, api_version, path, first=one["resource"] not in seen)
                        seen.add(one["resource"])

    # --- the wire ---

    def _ask(self, method: str, path: str, body: Object | None, form: str, accept: str) -> tuple[bytes, str]:
        connection = _Connection(self.proxy)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Accept": accept, "Content-Type": form})
            answer = connection.getresponse()
            said, kind = answer.read(), answer.headers.get("Content-Type", "")
        except http.client.HTTPException as broken:
            raise ClusterFailed(f"{method} {path}: {broken!r}") from broken
        finally:
            connection.close()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise Refused(f"{method} {path}", answer.status, said)
        return said, kind


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def proxy_command(kubectl: str, kubeconfig: Path, proxy: Path) -> list[str]:
    """A kubectl that answers at the socket `proxy`."""
    return [kubectl, "proxy", f"--kubeconfig={kubeconfig}", f"--unix-socket={proxy}"]


def _kind(found: Object, api_version: str, path: str, *, first: bool) -> Kind:
    name = found["responseKind"]["kind"]
    words = {found["resource"], found.get("singularResource", ""), name.lower(), *found.get("shortNames", ())}
    return Kind(
        name,
        found["resource"],
        frozenset(words - {""}) if first else frozenset(),
        api_version,
        path,
        namespaced=found["scope"] == "Namespaced",
        listed=first and "list" in found["verbs"],
    )
