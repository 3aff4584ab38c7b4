"""The clients that are compared: how each is mounted, whether it is here, and why it is not.

Mounts are started as their makers advise for reading training data, unsigned where they can be (ours and goofys sign),
with a cache on disk only where the work is about that. Kinds: `ours`; `old` (s3fs, rclone); `mount` (the other mounts);
`limit` (what no mount can pass); `library` (what reads the bucket without a mount).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.model import GIB, OURS

UNLIMITED = "ossfuse without a limit"
"""Ours with more memory than it can use, for what a small limit costs."""
ONE_BY_ONE = "ossfuse without siblings"
"""Ours that fetches no small file before it is asked for."""
FOR_ONE_WORK = "variant"
"""The kind of clients that take part only where a work names them."""
FOR_TRAINING = "training"
"""The kind of those that only feed PyTorch."""
CONNECTOR = "osstorchconnector"
OSS2 = "oss2 data set"
"""The class that the guide shows."""
OUR_MOUNT = "ossfuse mount"
"""Ours with a mount, in the works where ours is without one."""
WITHOUT_VERSION = frozenset({UNLIMITED, ONE_BY_ONE, OSS2, OUR_MOUNT})
"""Those that are another client in other clothes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where programs are: what the benchmarks built, the virtual environment of the libraries, and that of PyTorch."""

    built: Path
    venv: Path
    torch: Path


@dataclass(frozen=True, slots=True)
class Mounting:
    """What to mount where; `source` is where the objects below the prefix lie as files. `session`, `memory` and `mode`
    are for ours alone, '' being its default. `cache`: a directory for those that can keep what they read on disk."""

    endpoint: str
    bucket: str
    prefix: str
    source: Path
    target: Path
    scratch: Path
    credential_file: Path
    writable: bool
    session: str = ""
    memory: str = ""
    mode: str = ""
    cache: Path | None = None


_HERE = Path(__file__).parent

Command = Callable[[Mounting, Place], list[str]]


@dataclass(frozen=True, slots=True)
class Client:
    """`command` mounts in the foreground; None for what is no mount. `program` must be there, else `missing` says
    how it comes. `environment`: what its process gets besides the little that all get."""

    name: str
    kind: str
    command: Command | None
    program: Callable[[Place], Path]
    missing: str = ""
    version: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def _ossfuse(wanted: Mounting, place: Place) -> list[str]:
    return [str(Path(sys.executable).with_name("ossfuse")), *_our_arguments(wanted)]


def _our_arguments(wanted: Mounting) -> list[str]:
    command = ["mount", f"oss://{wanted.bucket}/{wanted.prefix}"]
    command += [str(wanted.target), "--url", wanted.endpoint, "--credentials", str(wanted.credential_file)]
    command += ["--session", wanted.session] if wanted.session else []
    command += ["--memory", wanted.memory] if wanted.memory else []
    command += ["--mode", wanted.mode] if wanted.mode else []
    if wanted.cache is not None:
        command += ["--attribute", f"cache={wanted.cache}", "--attribute", "cacheSize=32Gi"]
    return command


def _unlimited(wanted: Mounting, place: Place) -> list[str]:
    return _ossfuse(replace(wanted, memory="8Gi"), place)


def _one_by_one(wanted: Mounting, place: Place) -> list[str]:
    return [sys.executable, str(_HERE / "programs" / "one_by_one.py"), *_our_arguments(wanted)]


def _s3fs(wanted: Mounting, place: Place) -> list[str]:
    options = f"url={wanted.endpoint},use_path_request_style,public_bucket=1,allow_other,max_stat_cache_size=1000000"
    options += f",use_cache={wanted.cache}" if wanted.cache is not None else ""
    return ["s3fs", f"{wanted.bucket}:/{wanted.prefix.rstrip('/')}", str(wanted.target), "-f", "-o", options]


def _rclone(wanted: Mounting, place: Place) -> list[str]:
    remote = f":s3,provider=Other,env_auth=false,endpoint='{wanted.endpoint}',no_check_bucket=true"
    command = ["rclone", "mount", f"{remote}:{wanted.bucket}/{wanted.prefix.rstrip('/')}", str(wanted.target)]
    command += ["--use-server-modtime", "--allow-other", "--config", str(wanted.scratch / "rclone.conf")]
    command += ["--cache-dir", str(wanted.cache or wanted.scratch / "rclone-cache")]
    command += ["--vfs-cache-mode", "full", "--vfs-cache-max-size", "32Gi"] if wanted.cache is not None else []
    return command if wanted.writable else [*command, "--read-only"]


def _goofys(wanted: Mounting, place: Place) -> list[str]:
    command = [str(_built("goofys")(place)), "-f", "--endpoint", wanted.endpoint, "--region", "us-east-1", "-o"]
    command += ["allow_other", "--type-cache-ttl", "1h", "--stat-cache-ttl", "1h"]
    return [*command, f"{wanted.bucket}:{wanted.prefix.rstrip('/')}", str(wanted.target)]


def _mountpoint(wanted: Mounting, place: Place) -> list[str]:
    command = [str(_built("mountpoint")(place)), wanted.bucket, str(wanted.target), "--endpoint", wanted.endpoint]
    return [*command, "--prefix", wanted.prefix, "--metadata-ttl", "3600", "--memory", str(8 * GIB)]


def _memory_fs(wanted: Mounting, place: Place) -> list[str]:
    return [str(_built("memory_fs")(place)), str(wanted.source), str(wanted.target)]


def _built(name: str) -> Callable[[Place], Path]:
    return lambda place: place.built / name


def _debian(name: str) -> Callable[[Place], Path]:
    return lambda place: Path("/usr/bin") / name


def _library(name: str) -> Callable[[Place], Path]:
    return lambda place: _package(place.venv, name)


def _with_torch(name: str) -> Callable[[Place], Path]:
    return lambda place: _package(place.torch, name)


def _package(venv: Path, name: str) -> Path:
    found = sorted(venv.glob(f"lib/python3*/site-packages/{name}"))
    return found[0] if found else venv / name


_NO_PROXY = "is not to be had as a Go module: the module proxy answers “This module version is not available”"

CLIENTS = (
    Client(OURS, "ours", _ossfuse, lambda place: Path(sys.executable).with_name("ossfuse"), "run `make setup`"),
    Client(UNLIMITED, FOR_ONE_WORK, _unlimited, lambda place: Path(sys.executable).with_name("ossfuse")),
    Client(ONE_BY_ONE, FOR_ONE_WORK, _one_by_one, lambda place: Path(sys.executable).with_name("ossfuse")),
    Client("s3fs", "old", _s3fs, _debian("s3fs"), "apt-get install s3fs", ("s3fs", "--version")),
    Client("rclone", "old", _rclone, _debian("rclone"), "apt-get install rclone", ("rclone", "version")),
    Client(
        "goofys",
        "mount",
        _goofys,
        _built("goofys"),
        "benchmarks/builds/build.sh goofys",
        environment={"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"},  # it refuses to go without
    ),
    Client("mountpoint-s3", "mount", _mountpoint, _built("mountpoint"), "benchmarks/builds/build.sh mountpoint"),
    Client("curl", "limit", None, _debian("curl"), "apt-get install curl", ("curl", "--version")),
    Client("C libfuse", "limit", _memory_fs, _built("memory_fs"), "benchmarks/builds/build.sh limits"),
    Client("obstore", "library", None, _library("obstore"), "benchmarks/builds/build.sh libraries"),
    Client("opendal", "library", None, _library("opendal"), "benchmarks/builds/build.sh libraries"),
    Client("pyjindosdk", "library", None, _library("pyjindo"), "benchmarks/builds/build.sh libraries"),
    Client(CONNECTOR, FOR_TRAINING, None, _with_torch("osstorchconnector"), "benchmarks/builds/build.sh torch"),
    Client(OSS2, FOR_TRAINING, None, _with_torch("torch"), "benchmarks/builds/build.sh torch"),
    Client(OUR_MOUNT, FOR_TRAINING, _ossfuse, _with_torch("torch"), "benchmarks/builds/build.sh torch"),
)

ABSENT: Mapping[str, str] = {
    "geesefs": _NO_PROXY,
    "juicefs": f"{_NO_PROXY}; besides, it keeps files as chunks of its own format and cannot show a bucket's objects",
    "gcsfuse": f"{_NO_PROXY}; besides, it speaks the JSON API of Google Cloud Storage, which this server does not",
}
"""Peers that cannot take part, and why."""


def by_name(name: str) -> Client:
    for client in CLIENTS:
        if client.name == name:
            return client
    raise SystemExit(f"no such client: {name}; known are {', '.join(client.name for client in CLIENTS)}")


def why_missing(client: Client, place: Place) -> str:
    """'' when the client can take part."""
    return "" if client.program(place).exists() else f"not installed; {client.missing}"


def version_of(client: Client, place: Place) -> str:
    """What the client says it is, in one word; '' where it does not say."""
    program = client.program(place)
    if client.kind in ("library", FOR_TRAINING):
        found = sorted(program.parent.glob(f"{client.name.replace('-', '_')}-*.dist-info"))
        return found[0].name.removesuffix(".dist-info").rpartition("-")[2] if found else ""
    if program.is_symlink():
        built = program.resolve().name.partition("-")[2].partition("-")[0]
        return built if "." in built else ""  # what is built from here has a hash
    if not client.version:
        return ""
    told = subprocess.run(list(client.version), capture_output=True, text=True, check=False).stdout
    words = [word.lstrip("vV").rstrip(",") for word in told.split()]
    return next((word for word in words if word[:1].isdigit()), "")
