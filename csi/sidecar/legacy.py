"""What a sidecar leaves to its successor, should it be killed, and what it was left by its predecessor.

Two descriptors: of the kernel session, and of the journal in which is noted what this process promised through it. The
node plugin keeps copies of both (`csi/handover/inheritance.py`).
"""

from __future__ import annotations

import os
import threading
from typing import Final

from csi.fs import light_opens
from csi.fs.journal import SIZE, Journal, make
from csi.fuse.protocol.constants import InitFlag
from csi.fuse.protocol.negotiation import InitResult
from csi.fuse.session import KernelSession, Resumable
from csi.volume.units import KIB, Bytes

_SESSION: Final = "session"
_SHARE: Final = 64
_ROUND: Final = 64 * KIB  # whole pages, wherever


def journal_size(memory_limit: Bytes) -> Bytes:
    """Bytes of a new journal, whose memory counts as the sidecar's."""
    return Bytes(max(_ROUND, min(SIZE, memory_limit // _SHARE // _ROUND * _ROUND)))


class Legacy:
    """`resume` is what the predecessor agreed on with the kernel; None: there was none."""

    def __init__(self, device: int, left: int, size: Bytes) -> None:
        """`device` stays the caller's, and a copy is made; `left` is the predecessor's journal, which is closed in the
        end, or -1: a new one of `size` is made. Raises OSError, and ValueError for a journal that is none."""
        self._descriptor = left if left >= 0 else make(size + light_opens.SIZE)
        self.size = Bytes(os.fstat(self._descriptor).st_size)
        """Of the journal, in bytes."""
        self.journal = Journal(self._descriptor, light_opens.SIZE)
        found = self.journal.find(_SESSION)
        self.resume = InitResult.from_json(found[0]) if found is not None else None
        self._device = os.dup(device)
        self._lock = threading.Lock()
        self._ended = False

    def bequeath(self, session: KernelSession) -> tuple[int, int] | None:
        """Once INIT is answered: the descriptors a successor of `session` needs, which stay ours. None if it can have
        none. A kernel that does not send again what was not answered would leave those who asked for it waiting; files
        that it reads by itself are known to nobody else."""
        agreed = session.agreed if isinstance(session, Resumable) else None
        if agreed is None or not agreed.has(InitFlag.HAS_RESEND) or agreed.has(InitFlag.PASSTHROUGH):
            return None
        with self._lock:
            if self._ended or not self.journal.note(_SESSION, [agreed.to_json()]):
                return None
            return self._device, self._descriptor

    def end(self) -> None:
        """The session is over: nobody shall wait for it because it is held here. Idempotent."""
        with self._lock:
            if not self._ended:
                self._ended = True
                os.close(self._device)

    def close(self) -> None:
        """Nothing is noted any more."""
        self.end()
        self.journal.close()
        os.close(self._descriptor)
