"""Which extended attributes are refused without asking anybody."""

from __future__ import annotations

import errno


def refusal_of_xattr(name: bytes, *, writing: bool) -> int:
    """The errno for namespaces an object store has nothing in, 0 for those it may have.

    ENODATA: nothing there, as the kernel expects of a file's capabilities. EOPNOTSUPP: there are none on this file
    system. `cp -a` and `rsync -X` go on, and `ls -l`, which asks for the SELinux label and the ACL of the first file,
    does not ask for those of all others.
    """
    if name.startswith(b"user."):
        return 0
    return errno.ENODATA if name == b"security.capability" and not writing else errno.EOPNOTSUPP
