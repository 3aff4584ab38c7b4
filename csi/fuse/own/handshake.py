"""INIT, before the service: agree with the kernel, or go on where a predecessor agreed with it.

A successor asks the kernel once, before it reads anything, to send again what the predecessor read and did not answer
(kernel 6.9). Where the kernel cannot, those requests are the predecessor's loss.
"""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Protocol

from csi.fuse.protocol import replies
from csi.fuse.protocol.bodies import Init
from csi.fuse.protocol.constants import MAJOR
from csi.fuse.protocol.messages import Malformed, decode
from csi.fuse.protocol.negotiation import (
    DEFAULT_MAX_PAGES,
    MOST_PAGES,
    PAGE,
    InitResult,
    VersionNotSupported,
    answer_to_other_major,
    negotiate,
)
from csi.oss.store import Buffer

_log = logging.getLogger(__name__)

PAGES_LIMIT = Path("/proc/sys/fs/fuse/max_pages_limit")


class Wire(Protocol):
    """What is needed of `csi.fuse.native.device.Device`."""

    def receive(self) -> bytes: ...

    def reply(self, unique: int, error: int = 0, *parts: Buffer) -> int: ...

    def notify(self, message: bytes) -> int: ...


class Handshake:
    def __init__(
        self,
        *,
        symlinks_last: bool,
        bare_names: bool,
        passthrough: bool,
        largest_write: int,
        resume: InitResult | None,
        pages_limit: Path = PAGES_LIMIT,
    ) -> None:
        """See `negotiate`. `pages_limit` says how large requests may be."""
        self._symlinks_last = symlinks_last
        self._bare_names = bare_names
        self._passthrough = passthrough
        self._largest_write = largest_write
        self._resume = resume
        self._max_pages = _max_pages(pages_limit)

    @property
    def buffer_size(self) -> int:
        """Bytes of the largest payload there can be."""
        return max(self._max_pages * PAGE, self._resume.max_write if self._resume is not None else 0)

    def agree(self, wire: Wire) -> InitResult | None:
        """None when the descriptor ended, or the session, before INIT came. Raises VersionNotSupported."""
        if self._resume is not None:
            failure = wire.notify(replies.resend())
            if failure:
                _log.warning("requests of before cannot be asked for again: %s", errno.errorcode.get(failure, failure))
            return self._resume
        while message := wire.receive():
            try:
                header, asked = decode(memoryview(message))
            except Malformed as malformed:
                raise VersionNotSupported(f"INIT expected: {malformed}") from malformed
            if not isinstance(asked, Init):
                wire.reply(header.unique, errno.EIO)
                raise VersionNotSupported(f"INIT expected, opcode {header.opcode} came; was it answered before?")
            if asked.major > MAJOR:
                wire.reply(header.unique, 0, answer_to_other_major())
                continue
            try:
                agreed = negotiate(
                    asked,
                    max_pages=self._max_pages,
                    symlinks_last=self._symlinks_last,
                    bare_names=self._bare_names,
                    passthrough=self._passthrough,
                    largest_write=self._largest_write,
                )
            except VersionNotSupported:
                wire.reply(header.unique, errno.EPROTO)
                raise
            wire.reply(header.unique, 0, agreed.encode())
            _log.debug("INIT of FUSE %d.%d answered: %s", asked.major, asked.minor, agreed)
            return agreed
        return None


def _max_pages(limit: Path) -> int:
    try:
        return min(int(limit.read_text(encoding="ascii")), MOST_PAGES)
    except (OSError, ValueError):  # before 6.13 there is no such file
        return DEFAULT_MAX_PAGES
