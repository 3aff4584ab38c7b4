"""The server of a run: nginx in front, the emulator with both its faces behind, and the objects of the works.

Every client reaches the same files through the same nginx. What works read lies in memory (/dev/shm), so that neither a
disk nor dropping the page cache is part of what is measured; it is made by the load program, whose content can be
checked page by page. Objects that are only listed are known to the emulator alone.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.model import Files
from benchmarks.nginx import AccessLog, Line, configuration

BUCKET = "bench"
MODIFIED = 1_700_000_000
_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Server:
    """`endpoints`: line → http://host:port. Anonymous reads and, in the dialect of S3, everything are allowed."""

    bucket: str
    credential_file: Path
    endpoints: dict[Line, str]
    emulator: str
    log: AccessLog
    www: Path
    load: Path
    pids: tuple[int, ...]

    def provide(self, files: Sequence[Files]) -> None:
        """Make what is missing of these objects."""
        for wanted in files:
            marker = self.www / f".made-{wanted.prefix.strip('/').replace('/', '-')}"
            if marker.exists() and marker.read_text() == repr(wanted):
                continue
            self.remove(wanted.prefix)
            size = wanted.size
            if not wanted.listed_only:
                size = make_files(self.load, self.www / self.bucket / wanted.prefix, wanted)
            seed(self.emulator, self.bucket, replace(wanted, size=size))
            marker.write_text(repr(wanted))

    def remove(self, prefix: str) -> None:
        """Forget everything below a prefix: files, and what clients uploaded."""
        shutil.rmtree(self.www / self.bucket / prefix, ignore_errors=True)
        (self.www / f".made-{prefix.strip('/').replace('/', '-')}").unlink(missing_ok=True)
        while keys := list_keys(self.emulator, self.bucket, prefix):
            delete_keys(self.emulator, self.bucket, keys)


def make_files(load: Path, directory: Path, wanted: Files) -> int:
    """Make them, and return the size of each."""
    directory.mkdir(parents=True)
    if wanted.maker:
        command = [*wanted.maker, str(directory / wanted.name)]
    elif wanted.count == 1:
        command = [str(load), "make", str(directory / wanted.name), str(wanted.size)]
    else:
        command = [str(load), "make-many", str(directory), str(wanted.count), str(wanted.size)]
    subprocess.run(command, check=True)
    paths = list(directory.iterdir())
    for path in paths:
        os.utime(path, (MODIFIED, MODIFIED))
    return paths[0].stat().st_size


def nginx_etag(size: int) -> str:
    """What ngx_http_set_etag makes of a file's time and size."""
    return f"{MODIFIED:x}-{size:x}"


def seed(endpoint: str, bucket: str, wanted: Files) -> None:
    """Tell the emulator's index of objects. A name with {p} is made once for each of `count`, with 100 below each."""
    template = {"bucket": bucket, "size": wanted.size, "etag": nginx_etag(wanted.size), "modified": MODIFIED}
    if "{p}" in wanted.name:
        below = 100
        keys = [wanted.prefix + wanted.name.replace("{p}", f"{p:05d}") for p in range(wanted.count // below)]
        lines = [json.dumps({**template, "key": key, "count": below}) for key in keys]
    else:
        lines = [json.dumps({**template, "key": wanted.prefix + wanted.name, "count": wanted.count})]
    for start in range(0, len(lines), _BATCH):
        request(endpoint, "POST", "/_emulator/seed", "\n".join(lines[start : start + _BATCH]).encode())


def list_keys(endpoint: str, bucket: str, prefix: str, after: str = "") -> list[str]:
    """Up to 1000 keys below a prefix, after a key."""
    body = request(endpoint, "GET", f"/{bucket}?list-type=2&max-keys=1000&prefix={prefix}&start-after={after}")
    return [piece.partition(b"</Key>")[0].decode() for piece in body.split(b"<Key>")[1:]]


def delete_keys(endpoint: str, bucket: str, keys: Sequence[str]) -> None:
    objects = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
    request(endpoint, "POST", f"/{bucket}?delete", f"<Delete><Quiet>true</Quiet>{objects}</Delete>".encode())


def head(endpoint: str, bucket: str, key: str) -> dict[str, str]:
    """The headers of an object as the emulator has it, in small letters; {} when there is none."""
    address = urlsplit(endpoint)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    connection.request("HEAD", f"/{bucket}/{key}")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return {name.lower(): value for name, value in answer.getheaders()} if answer.status == http.HTTPStatus.OK else {}


def request(endpoint: str, method: str, path: str, body: bytes = b"") -> bytes:
    address = urlsplit(endpoint)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=600)
    connection.request(method, path, body=body)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status >= http.HTTPStatus.BAD_REQUEST:
        raise SystemExit(f"the emulator refused {method} {path}: {answer.status} {text[:300]!r}")
    return text


@contextmanager
def serving(scratch: Path, load: Path, lines: Sequence[Line]) -> Iterator[Server]:
    """The server, with a listener for each line, until the block ends."""
    access_key_id, secret = "bench", secrets.token_hex(16)
    keys = _private(scratch / "keys", f"{access_key_id}:{secret}\n")
    credentials = json.dumps({"AccessKeyId": access_key_id, "AccessKeySecret": secret})
    credential_file = _private(scratch / "credentials.json", credentials)
    with tempfile.TemporaryDirectory(prefix="ossfuse-bench-", dir="/dev/shm") as memory:
        www = Path(memory) / "www"
        (www / BUCKET).mkdir(parents=True)
        bodies = Path(memory) / "bodies"
        bodies.mkdir()
        Path(memory).chmod(0o755)  # nginx's worker need not be root
        with _emulator(scratch, Path(memory) / "oss", bodies, keys) as (endpoint, emulator_pid):
            ports = {line: _free_port() for line in lines}
            text = configuration(scratch, www, bodies, urlsplit(endpoint).port or 0, ports)
            with _nginx(scratch, text, ports) as nginx_pid:
                endpoints = {line: f"http://127.0.0.1:{port}" for line, port in ports.items()}
                log = AccessLog(scratch / "access.log", nginx_pid)
                yield Server(BUCKET, credential_file, endpoints, endpoint, log, www, load, (nginx_pid, emulator_pid))


@contextmanager
def _emulator(scratch: Path, data: Path, bodies: Path, keys: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "csi.emulator", "--data", str(data), "--port", "0", "--s3"]
    command += ["--access-key-file", str(keys), "--public-bucket", BUCKET, "--bodies-left", str(bodies)]
    with (scratch / "emulator.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        announced = process.stdout.readline().split()
        if len(announced) < 2:
            raise SystemExit(f"the emulator did not start; see {scratch / 'emulator.log'}")
        yield announced[1], process.pid
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def _nginx(scratch: Path, text: str, ports: dict[Line, int]) -> Iterator[int]:
    (scratch / "nginx.conf").write_text(text)
    process = subprocess.Popen(["nginx", "-c", str(scratch / "nginx.conf"), "-e", str(scratch / "nginx.log")])
    try:
        for port in ports.values():
            _wait_for_port(port, process, scratch / "nginx.log")
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def _private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nginx does not answer on port {port}; see {log}")
