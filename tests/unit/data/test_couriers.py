"""Couriers that cannot come: what waits for them is handed on. What they do is in tests/unit/fuse/native."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import cast

import pytest

from csi.data.couriers import Couriers, Errands
from csi.data.ledger import MemoryLedger
from csi.oss.lines import Lines
from csi.volume.units import MIB, Bytes
from tests.support.engines import LONG, until


class OneRead:
    """An `Errands` in whose queue one READ waits."""

    def __init__(self) -> None:
        self.waiting = [b"READ"]
        self.couriers = self.starting = 0
        self.stopped = threading.Event()

    def start_fetching(self, most: int, reserve: int) -> None:
        assert most
        assert reserve

    def wait_for_want(self, patience: float) -> int:
        if not self.waiting:
            self.stopped.wait(patience)
        return len(self.waiting)

    def courier_comes(self) -> None:
        self.couriers += 1
        self.starting += 1

    def courier_starts(self) -> None:
        self.starting -= 1

    def courier_goes(self) -> None:
        self.couriers -= 1

    def refuse_waiting(self) -> list[bytes]:
        refused, self.waiting = self.waiting, []
        return refused

    def tidy(self, older: float) -> None:
        pass

    def stop_fetching(self) -> None:
        self.stopped.set()


def test_where_no_thread_can_be_started_reads_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    errands, handed_on = OneRead(), list[bytes]()
    lines = cast("Lines", SimpleNamespace(most=64))
    couriers = Couriers(cast("Errands", errands), lines, MemoryLedger(Bytes(64 * MIB)))
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "ossfuse-courier":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    couriers.start(handed_on.append)
    until(lambda: handed_on == [b"READ"])
    assert (errands.couriers, errands.starting) == (0, 0)
    couriers.close()
    assert errands.stopped.wait(LONG)
