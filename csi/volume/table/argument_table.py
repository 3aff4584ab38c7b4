"""The FUSE arguments that `fs.jindo.args` and PersistentVolume `mountOptions` may hold: one row each.

As with the option table, a row either sets something, or carries the reason why it changes nothing or is refused.
`value` says what follows the `=`; TEXT values may themselves contain `-o`, all others cannot, which is what makes
arguments printed without spaces readable.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from csi.volume.spec import CachePolicy
from csi.volume.table.option import Effect


class ArgumentValue(enum.Enum):
    """What follows the name; the value is the word used in the documentation."""

    NONE = ""
    SECONDS = "seconds"
    NUMBER = "integer"
    OCTAL = "octal permissions"
    ANY = "anything"


@dataclass(frozen=True, slots=True)
class Argument:
    """`sets` is the field of MountArguments, or of the ownership (`uid`, `gid`, `umask`, `fmask`, `dmask`); `to` is
    what a flag sets it to."""

    name: str
    value: ArgumentValue
    effect: Effect
    documentation: str = ""
    sets: str = ""
    to: bool | CachePolicy | None = None
    aliases: tuple[str, ...] = ()
    reason: str = ""


def _flag(name: str, sets: str, to: bool | CachePolicy, doc: str, *aliases: str) -> Argument:
    return Argument(name, ArgumentValue.NONE, Effect.IMPLEMENTED, doc, sets, to, aliases)


def _value(name: str, value: ArgumentValue, doc: str) -> Argument:
    return Argument(name, value, Effect.IMPLEMENTED, doc, name)


def _ignored(reason: str, *names: str) -> tuple[Argument, ...]:
    return tuple(Argument(name, ArgumentValue.ANY, Effect.NO_EFFECT, reason=reason) for name in names)


def _refused(reason: str, *names: str) -> tuple[Argument, ...]:
    return tuple(Argument(name, ArgumentValue.ANY, Effect.REFUSED, reason=reason) for name in names)


ARGUMENTS: tuple[Argument, ...] = (
    _value("attr_timeout", ArgumentValue.SECONDS, "how long the kernel may trust attributes"),
    _value(
        "entry_timeout",
        ArgumentValue.SECONDS,
        "how long it is believed that a name exists, if that is longer than attr_timeout, and what a directory holds",
    ),
    _value("negative_timeout", ArgumentValue.SECONDS, "how long the kernel may trust that a name does not exist"),
    _flag("auto_cache", "cache", CachePolicy.AUTO, "keep cached pages of a file while its version is unchanged"),
    _flag("kernel_cache", "cache", CachePolicy.KERNEL, "always keep cached pages of a file"),
    _flag("direct_io", "cache", CachePolicy.DIRECT, "do without the page cache; wins over the two above"),
    _flag("ro", "read_only", True, "writes fail with EROFS", "ro_mount"),
    _flag("rw", "read_only", False, "read and write, as without `ro`"),
    _flag("no_symlink", "symlinks", False, "no symbolic links"),
    _flag("no_xattr", "xattrs", False, "no extended attributes"),
    _flag("no_flock", "flock", False, "no file locks"),
    _flag("no_writeback", "writeback", False, "no write-back caching in the kernel"),
    _flag("pread", "random_read", True, "for random reads: no read-ahead, exact ranges", "enable_pread"),
    _value("max_idle_threads", ArgumentValue.NUMBER, "threads kept waiting for requests"),
    _flag("allow_other", "allow_other", True, "let every user of the pod in, which is the default"),
    _value("uid", ArgumentValue.NUMBER, "owner of everything in the mount"),
    _value("gid", ArgumentValue.NUMBER, "group of everything in the mount; the pod's `fsGroup` wins"),
    _value("umask", ArgumentValue.OCTAL, "permissions taken away from files and directories"),
    _value("fmask", ArgumentValue.OCTAL, "permissions taken away from files"),
    _value("dmask", ArgumentValue.OCTAL, "permissions taken away from directories"),
    *_ignored("unmounting is the node plugin's", "auto_unmount"),
    *_ignored("there is no Jindo cache cluster; reads go to OSS", "xengine"),
    *_ignored("the sidecar always runs in the foreground", "f", "foreground"),
    *_ignored("the log level is the node plugin's", "d", "debug", "dbglevel", "curldbg"),
    *_ignored(
        "metadata is cached by the kernel: use attr_timeout, entry_timeout and negative_timeout",
        *("jindo_entry_timeout", "jindo_entry_size", "jindo_attr_timeout", "jindo_attr_size"),
        *("max_stat_cache_size", "stat_cache_expire", "stat_cache_interval_expire", "enable_noobj_cache"),
        *("ac_attr_timeout", "remember", "noforget"),
    ),
    *_ignored(
        "attributes come from listings",
        *("jindo_attr_async_concurrency", "jindo_attr_async_queue", "jindo_attr_async_wait_ms", "readdir_optimize"),
    ),
    *_ignored("this driver serves no metrics here", "metrics_port", "metrics_ip"),
    *_ignored("a name of older releases without meaning", "root_ns", "only_sdk", "use_fuse3"),
    *_ignored("always on", "default_permissions", "nodev", "nosuid", "big_writes", "async_read", "async"),
    *_ignored("times of access are not kept", "noatime", "relatime", "nodiratime", "strictatime"),
    *_ignored(
        "the kernel session decides this",
        *("max_read", "parallel_direct_write", "clone_fd", "max_threads", "use_ino", "readdir_ino", "hard_remove"),
        *("nonempty", "intr", "large_read"),
    ),
    *_ignored("the mount is named by the node plugin", "fsname", "subtype"),
    *_ignored(
        "use fs.oss.blocklet.size.mb, fs.oss.upload.thread.concurrency and fs.oss.download.thread.concurrency",
        *("multipart_size", "multipart_threshold", "parallel_count", "multireq_max"),
    ),
    *_refused("use mode: consistent or timeouts of 0 seconds", "sync", "dirsync", "close_to_open"),
    *_refused("programs may be run from the mount", "noexec"),
    *_refused("every user of the pod is let in", "allow_root"),
    *_refused("use the volume attributes uri, bucket, url and path", "uri", "url", "bucket"),
    *_refused("use the attribute cache (docs/cache.md)", "use_cache", "cache-dir", "cache_dir"),
    *_refused(
        "credentials come from the Secret that the volume references",
        *("credential_provider", "passwd_file", "ram_role", "akid", "aksecret", "oss_access_key_id"),
        *("oss_access_key_secret",),
    ),
)

BY_NAME: Mapping[str, Argument] = MappingProxyType(
    {name: argument for argument in ARGUMENTS for name in (argument.name, *argument.aliases)}
)
OPTION_PREFIXES = ("fs.", "logger.")
"""`-ofs.oss.…=…` sets an option of the option table."""
