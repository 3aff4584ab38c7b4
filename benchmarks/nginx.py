"""The configuration of the nginx in front of everything, and what its log says about the requests that came.

nginx sends the bodies of objects that lie as files, with sendfile; everything else goes on to the emulator, and what is
uploaded reaches it as a file in memory that nginx has written, so that Python moves none of it. One
listener for each pair of latency and bandwidth, so that all clients of a round meet the same process. The latency is a
timer in nginx's event loop before a request is answered (Debian's lua module; this kernel has no netem): it costs no
CPU and is the same for every client and every kind of request. The bandwidth is nginx's own limit of a connection.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MODULES = Path("/usr/lib/nginx/modules")
OBJECTS = "objects"
DOMAIN = "oss.local"
"""BUCKET.DOMAIN addresses a bucket, for clients that know nothing else."""
_PATIENCE = 600
"""Seconds between two pieces of a body: at nginx's own 60 a save of 4 GiB by osstorchconnector ended with a 408."""
_FLUSHED_AFTER = 0.25
"""Seconds: more than the log's flush interval."""

_HEAD = """
{modules}
daemon off; master_process off; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log; worker_processes 1;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
    map $host $bucket_before {{ default ""; "~^(?<named>[^.]+)[.]{domain}$" "/$named"; }}
    log_format short '$request_method $status $body_bytes_sent $bucket_before$request_uri';
    access_log {scratch}/access.log short buffer=64k flush=100ms;
    sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 3600;
    open_file_cache max=40000 inactive=1h; default_type application/octet-stream; client_max_body_size 0;
    client_body_temp_path {bodies}; client_body_buffer_size 1m; client_body_timeout {patience}s;
    proxy_temp_path {scratch}/nginx-proxy;
    fastcgi_temp_path {scratch}/nginx-f; uwsgi_temp_path {scratch}/nginx-u; scgi_temp_path {scratch}/nginx-s;
    upstream emulator {{ server 127.0.0.1:{emulator_port}; keepalive 128; keepalive_requests 1000000000; }}
    map $args $plain {{ default 0; "" 1; "~^x-id=(GetObject|HeadObject)$" 1; }}
    map "$request_method$plain" $elsewhere {{ default 1; "GET1" 0; "HEAD1" 0; }}
"""

_SERVER = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        set $waited "";
        location / {{
            {wait}
            {rate}
            error_page 418 = @emulator;
            if ($elsewhere) {{ return 418; }}
            root {www}$bucket_before;
            try_files $uri @emulator;
        }}
        location @emulator {{
            {wait}
            {rate}
            proxy_pass http://emulator; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $http_host; proxy_buffering off; proxy_read_timeout {patience}s;
            client_body_in_file_only clean; proxy_pass_request_body off; proxy_set_header Content-Length "";
            proxy_set_header X-Body-File $request_body_file; proxy_set_header Expect "";
        }}
    }}
"""

_WAIT = """access_by_lua_block {{
                if ngx.var.waited == "" then ngx.var.waited = "1"; ngx.sleep({seconds}) end
            }}"""


@dataclass(frozen=True, slots=True)
class Line:
    """A listener. `rate` is bytes a second of one connection, 0 for no limit."""

    latency_ms: int = 0
    rate: int = 0


def configuration(scratch: Path, www: Path, bodies: Path, emulator_port: int, ports: Mapping[Line, int]) -> str:
    modules = ""
    if any(line.latency_ms for line in ports):
        names = ("ndk_http_module.so", "ngx_http_lua_module.so")
        modules = " ".join(f"load_module {MODULES / name};" for name in names)
    head = _HEAD.format(
        modules=modules,
        scratch=scratch,
        bodies=bodies,
        emulator_port=emulator_port,
        domain=re.escape(DOMAIN),
        patience=_PATIENCE,
    )
    servers = [_server(line, port, www) for line, port in ports.items()]
    return head + "".join(servers) + "}\n"


def _server(line: Line, port: int, www: Path) -> str:
    wait = _WAIT.format(seconds=line.latency_ms / 1000) if line.latency_ms else ""
    rate = f"limit_rate {line.rate};" if line.rate else ""
    return _SERVER.format(port=port, www=www, wait=wait, rate=rate, patience=_PATIENCE)


def kind_of(method: str, uri: str) -> str:
    """LIST, HEAD, GET, PUT, POST or DELETE: what a request line asks, in either protocol."""
    path, _, query = uri.partition("?")
    bucket, _, key = path.lstrip("/").partition("/")
    if method == "GET" and (not bucket or not key):
        names = {pair.partition("=")[0] for pair in query.split("&")}
        lists = names & {"list-type", "prefix", "delimiter", "marker", "max-keys"} or not query
        return "LIST" if bucket and lists else "other"
    return method


def count(lines: Sequence[str]) -> tuple[dict[str, int], int]:
    """Requests by kind, refused ones apart, and the bytes of bodies sent, of the lines of a log. `OBJECTS` among the
    kinds is how many objects the GETs were of."""
    kinds: Counter[str] = Counter()
    objects: set[str] = set()
    sent = 0
    for line in lines:
        parts = line.split(" ", 3)
        if len(parts) < 4 or not parts[2].isdigit():
            continue
        method, status, size, uri = parts
        kind = kind_of(method, uri)
        kinds[kind if status < "400" else f"{kind} {status}"] += 1
        if kind == "GET":
            sent += int(size)
            objects.add(uri.partition("?")[0])
    return {**kinds, **({OBJECTS: len(objects)} if objects else {})}, sent


class AccessLog:
    """What came since a mark. The log is emptied when a mark is set, so that it does not grow with the rounds."""

    def __init__(self, path: Path, pid: int) -> None:
        self._path = path
        self._pid = pid

    def mark(self) -> None:
        self._settle()
        os.truncate(self._path, 0)

    def since(self) -> tuple[dict[str, int], int]:
        self._settle()
        return count(self._path.read_text(errors="replace").replace("\0", "").splitlines())

    def _settle(self) -> None:
        os.kill(self._pid, signal.SIGUSR1)
        time.sleep(_FLUSHED_AFTER)
