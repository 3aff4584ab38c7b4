"""Which extended attributes are refused without asking anybody."""

from __future__ import annotations

import errno


def refusal_of_xattr(name: bytes, *, writing: bool) -> int:
    """The errno for namespaces an object store has nothing in, 0 for those it may have.

    The kernel asks for `security.capability` before every write, `ls` for SELinux labels and ACLs of every file.
    ENODATA: nothing there; EOPNOTSUPP: cannot be stored here (`cp -a` and `rsync -X` go on).
    """
    if name.startswith(b"user."):
        return 0
    return errno.ENODATA if name.startswith(b"security.") and not writing else errno.EOPNOTSUPP
