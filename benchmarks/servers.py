"""The server of a benchmark run: nginx sends object bodies from memory, the emulator behind it answers everything else.

The same bytes lie twice: as files that nginx sends (on a tmpfs, so that dropping the page cache does not slow it),
and as seeded objects in the emulator's index, with the ETag that nginx computes for its file, so that conditional
requests mean the same to both.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers import Server

BUCKET = "bench"
LARGE = "large/"
SMALL = "small/"
MODIFIED = 1_700_000_000
MIB = 1 << 20

NGINX = """
daemon off; master_process off; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000; open_file_cache max=10000;
    default_type application/octet-stream; client_max_body_size 0; client_body_temp_path {scratch}/nginx-body;
    proxy_temp_path {scratch}/nginx-proxy; fastcgi_temp_path {scratch}/nginx-f; uwsgi_temp_path {scratch}/nginx-u;
    scgi_temp_path {scratch}/nginx-s;
    upstream emulator {{ server 127.0.0.1:{emulator_port}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            error_page 418 = @emulator;
            if ($request_method !~ ^(GET|HEAD)$) {{ return 418; }}
            if ($args != "") {{ return 418; }}
            root {www};
            try_files $uri @emulator;
        }}
        location @emulator {{
            proxy_pass http://emulator; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $http_host; proxy_request_buffering off;
        }}
    }}
}}
"""


@contextmanager
def serve(scratch: Path, large: int, small_count: int, small_size: int) -> Iterator[Server]:
    """A server with `large/object` of `large` bytes and `small_count` objects of `small_size` bytes under `small/`."""
    access_key_id, secret = "bench", secrets.token_hex(16)
    keys = scratch / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"{access_key_id}:{secret}\n")
    credential_file = scratch / "credentials.json"
    credential_file.touch(mode=0o600)
    credential_file.write_text(json.dumps({"AccessKeyId": access_key_id, "AccessKeySecret": secret}))
    with tempfile.TemporaryDirectory(prefix="ossfuse-bench-", dir="/dev/shm") as www_name:
        www = Path(www_name)
        www.chmod(0o755)  # nginx's worker need not be root
        sizes = {f"{LARGE}object": large} | {f"{SMALL}{number:06d}": small_size for number in range(small_count)}
        for key, size in sizes.items():
            write_object(www / BUCKET / key, size)
        with emulator(scratch, keys) as emulator_endpoint:
            seed(emulator_endpoint, sizes)
            port = free_port()
            with nginx(scratch, www, port, urlsplit(emulator_endpoint).port or 0):
                yield Server(f"http://127.0.0.1:{port}", BUCKET, credential_file)


def write_object(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    block = os.urandom(min(size, MIB))
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block[: size - file.tell()])
    os.utime(path, (MODIFIED, MODIFIED))


def nginx_etag(size: int) -> str:
    """What ngx_http_set_etag makes of a file's time and size."""
    return f"{MODIFIED:x}-{size:x}"


def seed(endpoint: str, sizes: dict[str, int]) -> None:
    """Tell the emulator's index of objects whose bodies nginx sends."""
    lines = [
        json.dumps({"bucket": BUCKET, "key": key, "size": size, "etag": nginx_etag(size), "modified": MODIFIED})
        for key, size in sizes.items()
    ]
    address = urlsplit(endpoint)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    connection.request("POST", "/_emulator/seed", body="\n".join(lines).encode())
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise SystemExit(f"the emulator refused the sample objects: {answer.status} {text!r}")


@contextmanager
def emulator(scratch: Path, keys: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "csi.emulator", "--data", str(scratch / "oss"), "--port", "0"]
    command += ["--access-key-file", str(keys), "--public-bucket", BUCKET]
    with (scratch / "emulator.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()  # type: ignore[union-attr]  # opened above


@contextmanager
def nginx(scratch: Path, www: Path, port: int, emulator_port: int) -> Iterator[None]:
    configuration = scratch / "nginx.conf"
    configuration.write_text(NGINX.format(scratch=scratch, www=www, port=port, emulator_port=emulator_port))
    process = subprocess.Popen(["nginx", "-c", str(configuration), "-e", str(scratch / "nginx.log")])
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nginx does not answer on port {port}")
