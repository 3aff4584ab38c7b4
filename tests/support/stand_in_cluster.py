"""A stand-in API server over HTTP: objects by path, resource versions, conflicts, and answers that tests order.

It keeps what it is given, checks `resourceVersion` of a PUT as Kubernetes does, and knows no kinds: any path works.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from csi.cluster.api import KubernetesApi
from csi.volume.units import Seconds
from tests.support.memory_cluster import patched


class StandInCluster:
    """`objects` by path; `requests` as `METHOD path`; `tokens` the bearer tokens seen.

    `order` makes the next requests of a method and path prefix fail with a status; `silent` leaves them unanswered.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.bodies: list[tuple[str, str, Any]] = []
        self.tokens: list[str] = []
        self.silent = threading.Event()
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.url = ""
        self._ordered: list[tuple[str, str, int, dict[str, Any]]] = []
        self._version = 0

    def put(self, path: str, item: dict[str, Any]) -> None:
        with self.lock:
            self._store(path, item)

    def order(self, method: str, prefix: str, status: int, **told: Any) -> None:
        self._ordered.append((method, prefix, status, {"kind": "Status", **told}))

    def answer(self, method: str, target: str, body: Any) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        path = unquote(parts.path)
        with self.lock:
            self.requests.append(f"{method} {path}")
            self.bodies.append((method, path, body))
            for ordered in self._ordered:
                if ordered[0] == method and path.startswith(ordered[1]):
                    self._ordered.remove(ordered)
                    return ordered[2], ordered[3]
            if method == "POST":
                return self._create(path, body)
            if method == "GET" and path not in self.objects and path.rsplit("/", 1)[-1].endswith("s"):
                return 200, self._list(path, parse_qs(parts.query))
            if path not in self.objects:
                return 404, {"kind": "Status", "reason": "NotFound", "message": f"{path} not found"}
            if method == "GET":
                return 200, self.objects[path]
            if method == "DELETE":
                return 200, self.objects.pop(path)
            if method == "PUT":
                return self._replace(path, body)
            try:
                change = (
                    patched(self.objects[path], body) if isinstance(body, list) else _merged(self.objects[path], body)
                )
            except AssertionError as error:
                return 422, {"kind": "Status", "reason": "Invalid", "message": str(error)}
            return 200, self._store(path, change)

    def _create(self, collection: str, item: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        path = f"{collection}/{item['metadata']['name']}"
        if path in self.objects:
            return 409, {"kind": "Status", "reason": "AlreadyExists", "message": f"{path} already exists"}
        return 201, self._store(path, item)

    def _replace(self, path: str, item: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        wanted = item["metadata"].get("resourceVersion")
        if wanted is not None and wanted != self.objects[path]["metadata"]["resourceVersion"]:
            return 409, {"kind": "Status", "reason": "Conflict", "message": "the object has been modified"}
        return 200, self._store(path, item)

    def _list(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        names = sorted(key for key in self.objects if key.startswith(f"{path}/") and "/" not in key[len(path) + 1 :])
        start = int(query.get("continue", ["0"])[0])
        end = start + int(query["limit"][0])
        metadata = {"continue": str(end)} if end < len(names) else {}
        return {"metadata": metadata, "items": [self.objects[name] for name in names[start:end]]}

    def _store(self, path: str, item: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        metadata = {**item.get("metadata", {}), "resourceVersion": str(self._version)}
        self.objects[path] = {**item, "metadata": metadata}
        return self.objects[path]


def _merged(before: Any, change: Any) -> Any:
    """A JSON merge patch applied (RFC 7396)."""
    if not isinstance(change, dict):
        return change
    after = dict(before) if isinstance(before, dict) else {}
    for key, value in change.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = _merged(after.get(key), value)
    return after


@contextlib.contextmanager
def stand_in_cluster(tls: ssl.SSLContext | None = None) -> Iterator[StandInCluster]:
    cluster = StandInCluster()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            cluster.tokens.append(self.headers.get("Authorization", ""))
            if cluster.silent.is_set():
                cluster.released.wait()
                self.close_connection = True
                return
            status, told = cluster.answer(self.command, self.path, body)
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - what the base class looks for

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    cluster.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="stand-in-cluster")
    thread.start()
    try:
        yield cluster
    finally:
        cluster.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(cluster: StandInCluster, directory: Path, token: str = "") -> Path:
    """A kubeconfig file for `cluster` in `directory`."""
    path = directory / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": cluster.url}}],
                "users": [{"name": "u", "user": {"token": token} if token else {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )
    return path


def api_of(cluster: StandInCluster, directory: Path, *, token: str = "", timeout: float = 5.0) -> KubernetesApi:
    return KubernetesApi.from_kubeconfig(str(kubeconfig(cluster, directory, token)), timeout=Seconds(timeout))
