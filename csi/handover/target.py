"""Target paths: how the mount table names them, whether they can be mount points, and how they are removed.

Nothing here looks at a path on which something is mounted: the caller has asked the mount table first.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from csi.errors import MountError, TargetNotUsable


def resolved_target(target: Path) -> str:
    """The path as the mount table shows it. Only the parents are resolved: the last component may be a dead mount."""
    if not target.is_absolute():
        raise TargetNotUsable(f"target {target} is not an absolute path", hint="give the whole path")
    plain = os.path.normpath(target)
    return os.path.join(os.path.realpath(os.path.dirname(plain)), os.path.basename(plain)) if plain != "/" else "/"


def check_target(target: str) -> None:
    """Raises TargetNotUsable unless `target`, on which nothing is mounted, is or can become a mount point."""
    if target == "/":
        raise TargetNotUsable("target / cannot be a mount point", hint="publish to a directory below it")
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        parent = os.path.dirname(target)
        if not os.path.isdir(parent):
            raise TargetNotUsable(
                f"target {target} cannot be created: {parent} is not a directory", hint=f"create {parent} first"
            ) from None
        return
    except OSError as error:
        raise TargetNotUsable(f"target {target} cannot be used: {error.strerror}", hint="use another path") from error
    if not stat.S_ISDIR(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a file"
        raise TargetNotUsable(f"target {target} is {kind}, not a directory", hint="remove it, or use another path")


def remove_target_directory(target: str) -> None:
    """rmdir and nothing else: were the bucket still mounted, anything recursive would delete its data."""
    try:
        os.rmdir(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise MountError(
            f"target {target} cannot be removed: {error.strerror}",
            errno=error.errno or 0,
            hint="something was written there while no volume was mounted: move it away",
        ) from error
