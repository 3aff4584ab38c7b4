"""The rows of the option table that say what the volume is: place, mode, sidecar, credentials, ownership."""

from __future__ import annotations

from csi.volume.table.option import Kind, Option, Topic, at_creation, implemented

_LOCATION = (
    implemented(
        "uri",
        Topic.LOCATION,
        Kind.TEXT,
        "The bucket and prefix to mount: `oss://BUCKET.ENDPOINT/PATH/`, or `oss://BUCKET/PATH/` together with `url`.",
    ),
    implemented("bucket", Topic.LOCATION, Kind.TEXT, "The bucket, when it is not part of `uri`."),
    implemented(
        "url",
        Topic.LOCATION,
        Kind.TEXT,
        "The endpoint, when it is not part of `uri`. Without `http://` or `https://` it is HTTPS. An IP address or a "
        "single-label host name gets the bucket in the path instead of the host name.",
        aliases=("endpoint", "fs.oss.endpoint"),
    ),
    implemented(
        "fs.oss.bucket.<NAME>.endpoint",
        Topic.LOCATION,
        Kind.TEXT,
        "The endpoint of the bucket NAME: the same as `url` when NAME is this volume's bucket, else without effect.",
    ),
    implemented(
        "path",
        Topic.LOCATION,
        Kind.TEXT,
        "The prefix inside the bucket, when it is not part of `uri`; with or without slashes at its ends.",
        default="/",
    ),
    implemented(
        "region",
        Topic.LOCATION,
        Kind.TEXT,
        "The region that requests are signed for, such as `cn-hangzhou`; "
        "needed only where the endpoint does not name it.",
        aliases=("fs.oss.region",),
        default="from the endpoint",
    ),
    implemented(
        "fs.oss.second.level.domain.enable",
        Topic.LOCATION,
        Kind.BOOLEAN,
        "Put the bucket into the path of requests (`ENDPOINT/BUCKET/key`) instead of the host name.",
        default="false",
    ),
)

_MODE = (
    implemented(
        "mode", Topic.MODE, Kind.TEXT, "The mount mode: defaults for what is not given explicitly.", default="fast"
    ),
    implemented(
        "options",
        Topic.MODE,
        Kind.TEXT,
        "A JSON object of any keys of this document, as PAI stores them in a dataset. An attribute of the same name "
        "wins over a key in here.",
        default="{}",
    ),
    implemented(
        "fs.jindo.args",
        Topic.MODE,
        Kind.TEXT,
        "FUSE arguments; see below. What is not given is as in the mode.",
        default="by mode",
    ),
    implemented(
        "otherOpts",
        Topic.MODE,
        Kind.TEXT,
        "More FUSE arguments, in the same words as `fs.jindo.args`, which wins over them.",
    ),
)

_SIDECAR = (
    implemented(
        "fs.jindo.fuse.pod.mem.limit",
        Topic.SIDECAR,
        Kind.MEMORY,
        "Memory limit of the sidecar; buffers and windows are sized by it. At least 128Mi.",
        default="1Gi",
        sets="resources.memory_limit",
    ),
    implemented(
        "fs.jindo.fuse.pod.mem.request",
        Topic.SIDECAR,
        Kind.MEMORY,
        "Memory request of the sidecar; not above the limit.",
        default="the limit",
        sets="resources.memory_request",
    ),
    implemented(
        "fs.jindo.fuse.pod.cpu.request",
        Topic.SIDECAR,
        Kind.CPU,
        "CPU request of the sidecar, such as `100m` or `1`.",
        default="100m",
        sets="resources.cpu_request_millis",
    ),
    implemented(
        "fs.jindo.fuse.pod.cpu.limit",
        Topic.SIDECAR,
        Kind.CPU,
        "CPU limit of the sidecar, such as `500m` or `2`; not below the request.",
        default="none",
        sets="resources.cpu_limit_millis",
        minimum=1,
    ),
    implemented(
        "fs.jindo.fuse.pod.ephemeral.limit",
        Topic.SIDECAR,
        Kind.MEMORY,
        "Ephemeral storage limit of the sidecar.",
        default="none",
        sets="resources.ephemeral_limit",
    ),
    implemented(
        "fs.jindo.fuse.pod.image.tag",
        Topic.SIDECAR,
        Kind.TEXT,
        "Tag of the sidecar image for this volume.",
        default="the node plugin's own",
        sets="resources.image_tag",
    ),
)

_DISK = (
    implemented(
        "cache",
        Topic.DISK,
        Kind.PLACE,
        "Where blocks that were read are kept beyond the life of the sidecar: nowhere, in an emptyDir of the pod, or "
        "in a directory of the host, shared by all volumes that name it; on a cluster one that its administrator "
        "allows. Nothing is read from it that was not listed at OSS first; see [cache.md](cache.md).",
        default="none",
        sets="cache.place",
    ),
    implemented(
        "cacheSize",
        Topic.DISK,
        Kind.MEMORY,
        "How much the cache may hold, at least 64Mi; what was used longest ago goes first. Of a directory that volumes "
        "share it is the bound of all of them together.",
        default="10Gi",
        sets="cache.size",
    ),
)

_CREDENTIALS = (
    implemented(
        "authType",
        Topic.CREDENTIALS,
        Kind.CHOICE,
        "Where credentials come from: `secret` (the Secret that the volume references), `file` (`credentialFile`), "
        "`environment` (of the sidecar), `rrsa` (the pod's service account takes on `roleArn`), `public` (none).",
        default="secret",
        sets="credentials.auth_type",
        choices={
            "": "secret",
            "secret": "secret",
            "file": "file",
            "environment": "environment",
            "rrsa": "rrsa",
            "public": "public",
        },
    ),
    implemented(
        "credentialFile",
        Topic.CREDENTIALS,
        Kind.TEXT,
        "With `authType: file`: absolute path of a JSON file with `AccessKeyId`, `AccessKeySecret`, `SecurityToken` "
        "and `Expiration`; read again when expired.",
        sets="credentials.credential_file",
    ),
    implemented(
        "roleArn",
        Topic.CREDENTIALS,
        Kind.TEXT,
        "With `authType: rrsa`: the RAM role whose rights the volume has, `acs:ram::ACCOUNT:role/NAME`. The node "
        "plugin takes it on with the token of the pod's service account (AssumeRoleWithOIDC) and renews in time.",
        sets="credentials.role_arn",
    ),
    implemented(
        "oidcProviderArn",
        Topic.CREDENTIALS,
        Kind.TEXT,
        "With `authType: rrsa`: the OIDC provider that RAM knows this cluster by, "
        "`acs:ram::ACCOUNT:oidc-provider/NAME`.",
        sets="credentials.oidc_provider_arn",
    ),
    implemented(
        "serviceAccountName",
        Topic.CREDENTIALS,
        Kind.TEXT,
        "With `authType: rrsa`: the one service account that may use the volume; pods that run as another are refused. "
        "Without it every pod uses the role as its own service account.",
        sets="credentials.service_account_name",
    ),
)

_OWNERSHIP = (
    implemented(
        "uid",
        Topic.OWNERSHIP,
        Kind.INTEGER,
        "Owner of everything in the mount. In a pod that does not run as root its `runAsUser` belongs here: `cp -p`, "
        "`tar x` and `git` set modes and times, which only root and the owner may (EPERM).",
        default="0",
        minimum=0,
        maximum=2**32 - 2,
    ),
    implemented(
        "gid",
        Topic.OWNERSHIP,
        Kind.INTEGER,
        "Group of everything in the mount; the pod's `fsGroup` wins.",
        default="0",
        minimum=0,
        maximum=2**32 - 2,
    ),
    implemented(
        "umask",
        Topic.OWNERSHIP,
        Kind.OCTAL,
        "Permissions taken away from files and directories whose mode is not given.",
        default="0022; 0002 with an `fsGroup`",
    ),
    implemented("fileMode", Topic.OWNERSHIP, Kind.OCTAL, "Permissions of files, exactly.", default="0666 less umask"),
    implemented(
        "dirMode", Topic.OWNERSHIP, Kind.OCTAL, "Permissions of directories, exactly.", default="0777 less umask"
    ),
)

_CREATION = (
    at_creation(
        "pathPattern",
        Kind.TEXT,
        "The place of each volume below `path`: a relative path that may hold `${.PVC.namespace}`, `${.PVC.name}` and "
        "`${.PV.name}`. Two claims whose place is the same share their data.",
        "a StorageClass has it; a volume says its place with path",
        default="the name of the PersistentVolume",
    ),
    at_creation(
        "onDelete",
        Kind.CHOICE,
        "What becomes of the data when a volume is deleted (`reclaimPolicy: Delete`): `retain` keeps it; `delete` "
        "removes what is below the volume's place, if that was empty when the volume was made and no other volume "
        "uses it.",
        "a StorageClass has it; the data of a volume that was not made from one is never deleted",
        default="retain",
        choices={"retain": "retain", "delete": "delete"},
    ),
)

PLACE_OPTIONS: tuple[Option, ...] = (
    *_LOCATION,
    *_MODE,
    *_SIDECAR,
    *_DISK,
    *_CREDENTIALS,
    *_OWNERSHIP,
    *_CREATION,
)
