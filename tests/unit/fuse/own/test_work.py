"""Threads for the calls of a session of our own."""

from __future__ import annotations

import threading

from csi.fuse.own.work import Lanes

PATIENCE = 30.0


def test_more_names_and_reads_than_a_lane_has_threads_wait_side_by_side() -> None:
    lanes = Lanes(2, 16)
    try:
        for lane in (lanes.names, lanes.reads):
            all_there = threading.Barrier(17)
            for _ in range(16):
                lane.submit(lambda there=all_there: there.wait(PATIENCE))  # type: ignore[misc]
            all_there.wait(PATIENCE)
    finally:
        lanes.close()
