"""VolumeSpec: everything a volume was asked to be, as one frozen value without secrets.

The parser (`csi/volume/parse.py`) makes it from string attributes; every deeper room reads it and none sees a raw
string map. It is safe to log, to hash and to send to the sidecar: credentials are never part of it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from csi.volume.caching import NONE
from csi.volume.units import GIB, KIB, MIB, Bytes, Seconds


class Mode(enum.Enum):
    """The mount modes of CONTRACT §3."""

    FAST = "fast"
    INCREMENTAL = "incremental"
    CONSISTENT = "consistent"
    READONLY = "readonly"
    CUSTOM = "custom"


class CachePolicy(enum.Enum):
    """What open does with the kernel's page cache of a file."""

    AUTO = "auto_cache"  # kept when the object's version (ETag) is unchanged
    KERNEL = "kernel_cache"  # always kept
    DIRECT = "direct_io"  # never used
    NONE = "none"  # dropped at every open


class AuthType(enum.Enum):
    """Where credentials come from (CONTRACT §4)."""

    SECRET = "secret"  # noqa: S105 - the name of a source, not a secret
    FILE = "file"
    ENVIRONMENT = "environment"
    RRSA = "rrsa"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Location:
    """A prefix of a bucket behind an endpoint.

    `endpoint` is a URL without path (`https://oss-cn-hangzhou.aliyuncs.com`, `http://127.0.0.1:18080`); `prefix` is ''
    or ends with '/'; `region` is '' when neither given nor part of the endpoint's name; `path_style` puts the bucket
    in the path (IP addresses and single-label hosts) instead of the host name.
    """

    bucket: str
    endpoint: str
    prefix: str = ""
    region: str = ""
    path_style: bool = False


@dataclass(frozen=True, slots=True)
class MountArguments:
    """The effective `fs.jindo.args` (CONTRACT §2). Timeouts are how long the kernel may trust what it was told."""

    attr_timeout: Seconds = Seconds(60.0)
    entry_timeout: Seconds = Seconds(60.0)
    negative_timeout: Seconds = Seconds(60.0)
    cache: CachePolicy = CachePolicy.AUTO
    read_only: bool = False
    allow_other: bool = True
    symlinks: bool = True
    xattrs: bool = True
    flock: bool = True
    writeback: bool = True
    random_read: bool = False  # -opread: no read-ahead, exact ranges
    max_idle_threads: int = 10


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns what the mount shows. File and directory modes have the umask applied already."""

    uid: int = 0
    gid: int = 0
    file_mode: int = 0o644
    dir_mode: int = 0o755


@dataclass(frozen=True, slots=True)
class ReadOptions:
    threads: int = 16
    readahead_count: int = 64
    readahead_size: Bytes = Bytes(4 * MIB)
    buffer_size: Bytes = Bytes(1 * MIB)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """`flush_interval` None: only when the buffer fills, on fsync and on close."""

    threads: int = 16
    buffer_size: Bytes = Bytes(1 * MIB)
    part_size: Bytes = Bytes(8 * MIB)
    append: bool = False
    flush_interval: Seconds | None = None
    random_write_sync_interval: Seconds = Seconds(10.0)
    crc64: bool = True
    md5: bool = False
    server_side_encryption: str = ""  # '', AES256, KMS, SM4
    server_side_data_encryption: str = ""
    server_side_encryption_key_id: str = ""


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """Blocks on a disk: `place` is `none`, `emptyDir` or an absolute path of the host (`csi/volume/caching.py`)."""

    place: str = NONE
    size: Bytes = Bytes(10 * GIB)

    @property
    def host_path(self) -> str:
        """'' when it is none."""
        return self.place if self.place.startswith("/") else ""


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """`timeout` bounds one request attempt, `deadline` a whole operation with its retries."""

    retries: int = 5
    retry_interval: Seconds = Seconds(0.5)
    timeout: Seconds = Seconds(30.0)
    connection_timeout: Seconds = Seconds(3.0)
    deadline: Seconds = Seconds(60.0)
    max_connections: int = 100
    signature_version: int = 4  # 1 or 4


@dataclass(frozen=True, slots=True)
class SidecarResources:
    """Resources of the sidecar. CPU in millicores; None means no limit."""

    memory_limit: Bytes = Bytes(1 * GIB)
    memory_request: Bytes = Bytes(1 * GIB)
    cpu_request_millis: int = 100
    cpu_limit_millis: int | None = None
    ephemeral_limit: Bytes | None = None
    image_tag: str = ""


@dataclass(frozen=True, slots=True)
class CredentialOptions:
    auth_type: AuthType = AuthType.SECRET
    role_arn: str = ""
    oidc_provider_arn: str = ""
    service_account_name: str = ""
    credential_file: str = ""


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    location: Location
    mode: Mode = Mode.FAST
    arguments: MountArguments = field(default_factory=MountArguments)
    ownership: Ownership = field(default_factory=Ownership)
    read: ReadOptions = field(default_factory=ReadOptions)
    write: WriteOptions = field(default_factory=WriteOptions)
    http: HttpOptions = field(default_factory=HttpOptions)
    resources: SidecarResources = field(default_factory=SidecarResources)
    credentials: CredentialOptions = field(default_factory=CredentialOptions)
    cache: CacheOptions = field(default_factory=CacheOptions)


MEMORY_FLOOR = Bytes(128 * MIB)
"""The least memory limit a sidecar can work in: interpreter and metadata, plus a block for a few readers."""

SMALLEST_BUFFER = Bytes(64 * KIB)

SMALLEST_CACHE = Bytes(64 * MIB)
