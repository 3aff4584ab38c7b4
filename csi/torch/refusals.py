"""What file objects and tensors refuse, in classes that are also those by which Python's own refuse it: code that is
given a file expects the errors of `io`, and takes another way on them."""

from __future__ import annotations

import io

from csi.errors import BadHandle, InvalidOperation


class FileClosed(BadHandle, ValueError):
    """A file object is used after it was closed."""


class StreamUnsupported(InvalidOperation, io.UnsupportedOperation):
    """Reading, writing or seeking that a file object does not have."""


class IndexUnsupported(InvalidOperation, TypeError):
    """A part of a tensor is asked for by something that is no index of one."""
