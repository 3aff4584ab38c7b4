"""The rows of the option table for keys that are known and change nothing, or cannot be accepted.

They are the keys of the JindoSDK configuration page, those that other OSS drivers document, and names under which
people try to pass credentials. Each says why it has no effect, or what to use in its place.
"""

from __future__ import annotations

from collections.abc import Iterable

from csi.volume.table.option import Kind, Option, Topic, no_effect, refused

_READABLE = "a PersistentVolume is readable by many: put credentials into a Secret and name it in nodePublishSecretRef"
_SOURCE = "where credentials come from is told by authType, and the credentials themselves belong into a Secret"
_MEMORY = "memory is governed by fs.jindo.fuse.pod.mem.limit"
_QUEUE = "queues are sized by the memory limit"
_WINDOW = "the read-ahead window is fs.oss.read.readahead.buffer.count × fs.oss.read.readahead.buffer.size"
_LOGS = "the sidecar logs to its standard error, at the level of the node plugin"
_METRICS = "this driver writes no metrics files"
_CLUSTER = "there is no Jindo cache cluster; reads go to OSS"
_HDFS = "OSS-HDFS is not supported, and objects have no such operation"
_STAGING = "nothing is staged on disk"
_INTERNAL = "an internal setting of JindoSDK with no counterpart here"
_LISTING = "listing is always ListObjectsV2, in pages"
_OSSFS = "this driver has one engine, which takes fs.jindo.args"
_ROLE = "a role is taken on with authType: rrsa, roleArn and oidcProviderArn, in one step"
_SECRET_REF = "name the Secret in nodePublishSecretRef of the PersistentVolume"  # noqa: S105 - advice, not a secret


def _all(prefix: str, topic: Topic, reason: str, names: str) -> Iterable[Option]:
    """One row a word of `names`; `name=default` documents the original's default."""
    for word in names.split():
        name, _, default = word.partition("=")
        yield no_effect(f"{prefix}{name}", topic, reason, default=default)


_SECRETS = (
    *(
        refused(key, Topic.CREDENTIALS, _READABLE, secret=True)
        for key in (
            *(f"fs.oss.{name}" for name in ("accessKeyId", "accessKeySecret", "securityToken")),
            *(f"fs.oss.bucket.<NAME>.{name}" for name in ("accessKeyId", "accessKeySecret", "securityToken")),
            *("akId", "akSecret", "AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration"),
            *("accessKeyId", "accessKeySecret", "securityToken"),
            *("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN"),
        )
    ),
    *(
        refused(f"fs.oss.{name}", Topic.CREDENTIALS, _SOURCE, secret=True)
        for name in (
            "credentials.provider",
            "bucket.<NAME>.credentials.provider",
            "provider.endpoint",
            "provider.format",
            "security.credential.provider.path",
            "uri-with-secrets.enable",
        )
    ),
)

_JINDO_COMMON = (
    *_all("fs.oss.", Topic.CREDENTIALS, _INTERNAL, "authorization.method bucket.<NAME>.authorization.method"),
    *_all("fs.oss.", Topic.LOCATION, "all requests go to the endpoint in uri or url", "data.endpoint"),
    *_all("fs.oss.", Topic.LOCATION, "the scheme is part of url; without one it is https", "https.enable"),
    *_all("fs.oss.", Topic.OTHER, _INTERNAL, "legacy.version async.executor.number http.impl rootPolicies"),
    *_all("fs.oss.", Topic.OTHER, _INTERNAL, "user.agent.module user.agent.features user.agent.extended"),
    *_all("fs.oss.", Topic.OTHER, "use mode: readonly or -oro", "read.only.enable=false"),
    *_all("fs.oss.", Topic.OTHER, _STAGING, "tmp.data.dirs=/tmp/ tmp.data.cleaner.enable=true"),
    *_all("fs.oss.", Topic.OTHER, _STAGING, "tmp.data.cleaner.min.hour flush.staging.path"),
    *_all("fs.oss.", Topic.OTHER, _LISTING, "list.type=2 list.fallback.iterative=false list.iterative.first=false"),
    *_all("fs.oss.", Topic.OTHER, "failed deletions are always reported", "delete.quiet.enable=false"),
    *_all("fs.oss.", Topic.HTTP, "fs.oss.timeout.millisecond bounds a try", "io.timeout.millisecond=90000"),
    *_all("fs.oss.", Topic.HTTP, "idle connections are kept as libcurl does", "idle.timeout.millisecond"),
)

_JINDO_WRITE = (
    *_all("fs.oss.upload.", Topic.WRITE, _QUEUE, "queue.size max.pending.tasks.per.stream=10"),
    *_all("fs.oss.upload.", Topic.WRITE, _INTERNAL, "async.enable sendfile.enable"),
    *_all("fs.oss.checksum.", Topic.WRITE, "what is written is checked with CRC64", "combine.mode"),
    *_all("fs.oss.", Topic.WRITE, _INTERNAL, "array.block.enable=false"),
    *_all("fs.oss.", Topic.WRITE, _HDFS, "append.threshold.size=0 flush.merge.threshold.size=1048576"),
    *_all("fs.oss.hflush.", Topic.WRITE, _HDFS, "enable=true interval.count=0 interval.size=0"),
    no_effect(
        "fs.oss.randomwrite.sync.interval.millisecond",
        Topic.WRITE,
        "files are written in order: there are no random writes to push",
        kind=Kind.MILLISECONDS,
        default="10000",
    ),
)

_JINDO_READ = (
    *_all("fs.oss.download.", Topic.READ, _QUEUE, "queue.size=5"),
    *_all("fs.oss.download.", Topic.READ, _INTERNAL, "async.enable"),
    *_all("fs.oss.read.readahead.", Topic.READ, _WINDOW, "prefetcher.version max.buffer.count=48"),
    *_all("fs.oss.read.readahead.", Topic.READ, _WINDOW, "prefetch.size.max=268435456 prefetch.size.min"),
    *_all("fs.oss.read.readahead.", Topic.READ, _WINDOW, "download.block.size.min=1048576"),
    *_all("fs.oss.read.readahead.", Topic.READ, _WINDOW, "download.block.size.max=4194304 download.splits"),
    *_all("fs.oss.read.readahead.", Topic.READ, _WINDOW, "cold.start distance.min distance.ratio"),
    *_all("fs.oss.read.readahead.", Topic.READ, _WINDOW, "giveup.on.memory.full prefetch.increase.rate"),
    *_all("fs.oss.read.readahead.", Topic.READ, _WINDOW, "prefetch.decrease.rate prefetcher.avoid.stampede"),
    *_all("fs.oss.read.readahead.", Topic.READ, _WINDOW, "second.chance.capacity clean.fully.accessed.block.enable"),
    *_all("fs.oss.read.readahead.", Topic.READ, _WINDOW, "clean.idle.block.enable clean.idle.block.seconds"),
    *_all("fs.oss.", Topic.READ, "use -opread for random reads", "read.readahead.pread.enable=false read.use-pread"),
    *_all("fs.oss.", Topic.READ, "use -opread for random reads", "pread.cache.enable pread.cache.readahead"),
    *_all("fs.oss.read.", Topic.READ, "use fs.oss.read.buffer.size", "position.buffer.size=1048576"),
    *_all("fs.oss.read.", Topic.READ, "use fs.oss.checksum.crc64.enable", "verify.checksum.enable"),
    *_all("fs.oss.read.profile.", Topic.READ, _INTERNAL, "enable=true fallback.type"),
    *_all("fs.oss.read.profile.columnar.", Topic.READ, _INTERNAL, "position.buffer.size=16777216"),
    *_all("fs.oss.read.profile.columnar.", Topic.READ, _INTERNAL, "readahead.pread.enable=true"),
    *_all("fs.oss.read.profile.columnar.", Topic.READ, _INTERNAL, "readahead.prefetch.size.max=67108864"),
    *_all("fs.oss.read.profile.columnar.", Topic.READ, _INTERNAL, "readahead.download.block.size.min=1048576"),
    *_all("fs.oss.read.profile.columnar.", Topic.READ, _INTERNAL, "readahead.download.block.size.max=1048576"),
    *_all("fs.oss.", Topic.READ, _INTERNAL, "vectored.read.min.seek.size=16384 vectored.read.max.merged.size=2097152"),
    *_all("fs.oss.memory.", Topic.SIDECAR, _MEMORY, "buffer.size.max.mb=6124 buffer.size.watermark=0.3"),
    *_all("fs.oss.memory.", Topic.SIDECAR, _MEMORY, "pool.size.max.mb=6124 io.buffer.size.max.ratio=0.8"),
)

_JINDO_LOGS = (
    *_all("fs.jdo.metrics.", Topic.LOGGING, _METRICS, "level=1 file.enable file.dir=/tmp/metrics file.number=16"),
    *_all("fs.jdo.metrics.", Topic.LOGGING, _METRICS, "file.pid.append.enable interval.sec=15 file.clean.enable"),
    *_all("logger.", Topic.LOGGING, _LOGS, "dir=/tmp/bigboot-log sync consolelogger jnilogger level=2 verbose=0"),
    *_all("logger.", Topic.LOGGING, _LOGS, "cleaner.enable single.instance.enable"),
)

_CACHE_KEYS = (
    "namespace.rpc.address data.cache.enable meta.cache.enable slice.cache.enable slicelet.cache.enable "
    "ram.cache.enable short.circuit.enable storage.connect.enable data.cache.local.enable data.cache.local.data-dirs "
    "data.cache.local.data-dirs.capacities data.cache.local.watermark.high.ratio=0.8 "
    "data.cache.local.watermark.low.ratio=0.4 p2p.cache.capacity.limit p2p.download.parallelism.per.file=5 "
    "p2p.download.thread.pool.size=5 rpc.backup.threads=100 rpc.thread.concurrency=10 rpc.body.size rpc.timeout "
    "rpc.max.unwritten.size client.metrics.enable"
)
_JINDO_CACHE = (
    no_effect("fs.xengine", Topic.CACHE, _CLUSTER),
    *_all("fs.jindofsx.", Topic.CACHE, _CLUSTER, _CACHE_KEYS),
    *_all("fs.jindocache.", Topic.CACHE, _CLUSTER, _CACHE_KEYS),
)

_DLS = _all(
    "fs.dls.",
    Topic.OTHER,
    _HDFS,
    "endpoint authorization.method catalog.id data.provider.endpoint provider.endpoint",
)

_MOUNT_TYPES = (
    no_effect("mountPath", Topic.OTHER, "the pod's volumeMounts say where the volume appears"),
    no_effect("mountType", Topic.OTHER, _OSSFS),
    no_effect("fuseType", Topic.OTHER, _OSSFS),
    no_effect("metricsTop", Topic.LOGGING, _METRICS),
    no_effect("useSharedPath", Topic.OTHER, "every pod has a mount of its own"),
    refused(
        "fs.ossfs.args",
        Topic.MODE,
        "these are arguments of ossfs: write attr_timeout and negative_timeout into fs.jindo.args, and "
        "mode: consistent for close_to_open",
    ),
    refused(
        "volumeAs", Topic.OTHER, "a volume is the bucket and path it names; for a directory a volume use pathPattern"
    ),
)

_ACK_CREDENTIALS = (
    *(refused(key, Topic.CREDENTIALS, _ROLE) for key in ("roleName", "ramRole", "assumeRoleArn", "externalId")),
    *(refused(key, Topic.CREDENTIALS, _SECRET_REF) for key in ("secretProviderClass", "secretRef")),
)

KNOWN_OPTIONS: tuple[Option, ...] = (
    *_SECRETS,
    *_JINDO_COMMON,
    *_JINDO_WRITE,
    *_JINDO_READ,
    *_JINDO_LOGS,
    *_JINDO_CACHE,
    *_DLS,
    *_MOUNT_TYPES,
    *_ACK_CREDENTIALS,
)
