"""The rows of the option table that say how bytes move: reading, writing, requests to OSS."""

from __future__ import annotations

from csi.volume.spec import SMALLEST_BUFFER
from csi.volume.table.option import Kind, Option, Topic, implemented

_THREADS = 1024
_DAY = 24 * 3600 * 1000
_ENCRYPTION = {"AES256": "AES256", "KMS": "KMS", "SM4": "SM4"}
_DOUBLE = "2 × CPU"

_READ = (
    implemented(
        "fs.oss.download.thread.concurrency",
        Topic.READ,
        Kind.INTEGER,
        "Ranges and small files read ahead at the same time, over all open files; what a program waits for is fetched "
        "besides, bounded by fs.oss.max.connections.per.host.",
        aliases=("fs.oss.download.async.concurrency",),
        default="max(CPU, 16)",
        by_mode={"fast": _DOUBLE, "readonly": _DOUBLE},
        sets="read.threads",
        minimum=1,
        maximum=_THREADS,
    ),
    implemented(
        "fs.oss.read.readahead.buffer.count",
        Topic.READ,
        Kind.INTEGER,
        "Read-ahead window of a sequential reader, in buffers. Count × size is cut to a quarter of the memory limit.",
        default="64",
        sets="read.readahead_count",
        minimum=1,
        maximum=65536,
    ),
    implemented(
        "fs.oss.read.readahead.buffer.size",
        Topic.READ,
        Kind.SIZE,
        "Size of a read-ahead buffer: the range of one request; up to 8 MiB where that takes hardly longer.",
        default="4194304",
        sets="read.readahead_size",
        minimum=SMALLEST_BUFFER,
    ),
    implemented(
        "fs.oss.read.buffer.size",
        Topic.READ,
        Kind.SIZE,
        "Granularity of small and random reads.",
        default="1048576",
        sets="read.buffer_size",
        minimum=SMALLEST_BUFFER,
    ),
)

_WRITE = (
    implemented(
        "fs.oss.upload.thread.concurrency",
        Topic.WRITE,
        Kind.INTEGER,
        "Parts uploaded at the same time, over all open files.",
        aliases=("fs.oss.upload.async.concurrency",),
        default="max(CPU, 16)",
        by_mode={"fast": _DOUBLE, "incremental": _DOUBLE},
        sets="write.threads",
        minimum=1,
        maximum=_THREADS,
    ),
    implemented(
        "fs.oss.write.buffer.size",
        Topic.WRITE,
        Kind.SIZE,
        "Granularity in which written data is handed to the uploader.",
        default="1048576",
        sets="write.buffer_size",
        minimum=SMALLEST_BUFFER,
    ),
    implemented(
        "fs.oss.blocklet.size.mb",
        Topic.WRITE,
        Kind.MEBIBYTES,
        "Size of the first parts of a multipart upload; later parts grow so that 10,000 always suffice. Cut to a "
        "quarter of the memory limit.",
        default="8",
        sets="write.part_size",
        minimum=1,
        maximum=5120,
    ),
    implemented(
        "fs.oss.append.enable",
        Topic.WRITE,
        Kind.BOOLEAN,
        "Create files with AppendObject: readable while they are being written, at most 5 GiB each.",
        default="false",
        sets="write.append",
    ),
    implemented(
        "fs.oss.flush.interval.millisecond",
        Topic.WRITE,
        Kind.MILLISECONDS,
        "With `fs.oss.append.enable`: buffered data is pushed at least this often; -1: when the buffer fills, on fsync "
        "and on close.",
        default="-1",
        sets="write.flush_interval",
        minimum=-1,
        maximum=_DAY,
    ),
    implemented(
        "fs.oss.checksum.crc64.enable",
        Topic.WRITE,
        Kind.BOOLEAN,
        "Compare the CRC64 of what is written, and of objects that one request reads whole, with what OSS computed. Of "
        "a part of an object OSS tells none: larger files are read unchecked, as their bytes come through TCP or TLS.",
        default="true",
        sets="write.crc64",
    ),
    implemented(
        "fs.oss.checksum.md5.enable",
        Topic.WRITE,
        Kind.BOOLEAN,
        "Send the MD5 of what is written with it: OSS refuses what was damaged on the way, and the object of before "
        "stays. CRC64 finds the damage too, but when the object has been replaced. MD5 takes much more CPU time.",
        default="false",
        sets="write.md5",
    ),
    implemented(
        "fs.oss.server-side-encryption",
        Topic.WRITE,
        Kind.CHOICE,
        "Server-side encryption of new objects.",
        aliases=("encrypted",),
        default="as the bucket",
        sets="write.server_side_encryption",
        choices=_ENCRYPTION,
    ),
    implemented(
        "fs.oss.server-side-data-encryption",
        Topic.WRITE,
        Kind.CHOICE,
        "Algorithm for the data when `fs.oss.server-side-encryption` is KMS.",
        default="AES256",
        sets="write.server_side_data_encryption",
        choices={"SM4": "SM4"},
    ),
    implemented(
        "fs.oss.server-side-encryption-key-id",
        Topic.WRITE,
        Kind.TEXT,
        "The KMS key when `fs.oss.server-side-encryption` is KMS.",
        aliases=("kmsKeyId",),
        sets="write.server_side_encryption_key_id",
    ),
)

_HTTP = (
    implemented(
        "fs.oss.retry.count",
        Topic.HTTP,
        Kind.INTEGER,
        "How often a failed request is tried again.",
        default="5",
        sets="http.retries",
        minimum=0,
        maximum=1000,
    ),
    implemented(
        "fs.oss.retry.interval.millisecond",
        Topic.HTTP,
        Kind.MILLISECONDS,
        "Wait before the first new try; it doubles, with jitter.",
        default="500",
        sets="http.retry_interval",
        minimum=0,
        maximum=_DAY,
    ),
    implemented(
        "fs.oss.timeout.millisecond",
        Topic.HTTP,
        Kind.MILLISECONDS,
        "Longest time of one try of a request. A whole operation on OSS with its new tries ends within 60 s, or within "
        "twice this time if that is longer; a system call may be several of them (for each directory of a path, the "
        "parts and the end of an upload), and wait for those of others where many get no answer.",
        default="30000",
        sets="http.timeout",
        minimum=1,
        maximum=_DAY,
    ),
    implemented(
        "fs.oss.connection.timeout.millisecond",
        Topic.HTTP,
        Kind.MILLISECONDS,
        "Longest time to open a connection.",
        default="3000",
        sets="http.connection_timeout",
        minimum=1,
        maximum=_DAY,
    ),
    implemented(
        "fs.oss.max.connections.per.host",
        Topic.HTTP,
        Kind.INTEGER,
        "Connections kept to the endpoint; up to half of them are for small files.",
        default="100",
        sets="http.max_connections",
        minimum=1,
        maximum=65536,
    ),
    implemented(
        "fs.oss.signer.version",
        Topic.HTTP,
        Kind.CHOICE,
        "Signature version: 1, 4, or 0 for version 4 where the region is known and version 1 where it is not.",
        aliases=("sigVersion",),
        default="0",
        choices={"0": "0", "1": "1", "4": "4", "v1": "1", "v4": "4"},
        sets="http.signature_version",
    ),
)

TRANSFER_OPTIONS: tuple[Option, ...] = (*_READ, *_WRITE, *_HTTP)
