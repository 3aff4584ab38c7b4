"""Where files are registered, without a kernel: what is registered, and what is refused, is the test's to see."""

from __future__ import annotations

import os


class PretendKernelFiles:
    """Implements `csi.handover.registrar.KernelFiles`. `registered` are inode numbers; `refusal` an errno."""

    def __init__(self) -> None:
        self.allowed = True
        self.refusal = 0
        self.registered: dict[int, int] = {}
        self._last = 0

    def may(self) -> bool:
        return self.allowed

    def register(self, device: int, file: int) -> int:
        self._check()
        self._last += 1
        self.registered[self._last] = os.fstat(file).st_ino
        return self._last

    def unregister(self, device: int, number: int) -> None:
        self._check()
        del self.registered[number]

    def _check(self) -> None:
        if self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))
