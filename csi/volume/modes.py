"""The mount modes: their names and what each expands to.

A mode is nothing but defaults: `expansion` gives the very keys and values PAI prints for it, and the parser reads them
as if the user had written them, below everything the user did write. What a mode promises to programs is told in
docs/semantics.md; this module knows names and option text only.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from csi.errors import InvalidOption
from csi.volume.spec import Mode

NAMES: Mapping[Mode, tuple[str, ...]] = {
    Mode.FAST: ("FastReadWrite", "快速读写", "快速讀寫"),
    Mode.INCREMENTAL: ("IncrementalReadWrite", "增量读写", "增量讀寫"),
    Mode.CONSISTENT: ("ConsistentReadWrite", "读写一致", "讀寫一致"),
    Mode.READONLY: ("ReadOnly", "只读", "只讀", "唯讀"),
    Mode.CUSTOM: ("自定义配置", "自定義配置"),
}
"""Other names of the modes: the PAI API's, and the console's in simplified and traditional Chinese."""

PROMISES: Mapping[Mode, str] = {
    Mode.FAST: "read and write, fastest reads; concurrent readers and writers may see old data: data sets and models",
    Mode.INCREMENTAL: "new files are consistent as they grow, overwriting old data is not: checkpoints",
    Mode.CONSISTENT: "what one client writes and closes, the next open anywhere sees: code, working directories",
    Mode.READONLY: "any write fails with EROFS, in the kernel too: public data sets",
    Mode.CUSTOM: "only what you give",
}

_ARGS = "fs.jindo.args"
_DOWNLOAD = "fs.oss.download.thread.concurrency"
_UPLOAD = "fs.oss.upload.thread.concurrency"
_READ_WRITE = "-oattr_timeout=3 -oentry_timeout=0 -onegative_timeout=0 -oauto_cache -ono_symlink"
_CONSISTENT = "-oattr_timeout=0 -oentry_timeout=0 -onegative_timeout=0 -oauto_cache -ono_symlink"
_READ_ONLY = "-oro -oattr_timeout=7200 -oentry_timeout=7200 -onegative_timeout=7200 -okernel_cache -ono_symlink"


def parse_mode(text: str, *, key: str = "mode") -> Mode:
    """The mode called `text`, whatever its case or language; raises InvalidOption that names the modes."""
    wanted = text.strip().casefold()
    names = {name.casefold(): mode for mode, others in NAMES.items() for name in (mode.value, *others)}
    if wanted in names:
        return names[wanted]
    near = difflib.get_close_matches(wanted, names, n=1)
    hint = f"did you mean {names[near[0]].value}?" if near else ""
    raise InvalidOption(key, text, ", ".join(mode.value for mode in Mode), hint=hint)


def expansion(mode: Mode, cpu_count: int) -> Mapping[str, str]:
    """The options `mode` stands for on a machine with `cpu_count` cores, in the words PAI prints."""
    threads = str(2 * max(cpu_count, 1))
    match mode:
        case Mode.FAST:
            return {_DOWNLOAD: threads, _UPLOAD: threads, _ARGS: _READ_WRITE}
        case Mode.INCREMENTAL:
            return {_UPLOAD: threads, _ARGS: _READ_WRITE}
        case Mode.CONSISTENT:
            return {_ARGS: _CONSISTENT}
        case Mode.READONLY:
            return {_DOWNLOAD: threads, _ARGS: _READ_ONLY}
        case Mode.CUSTOM:
            return {}
