"""The end of a mount: what is still being written becomes objects, unless its program is being killed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from csi.errors import DeadlineExceeded, FileBusy, OssFuseError
from csi.fs.files import Files
from csi.fs.inodes import InodeTable
from csi.fs.nodes import Node
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

_FLUSHERS = 8
_MOMENT = Seconds(1.0)
"""For programs to end in, that are being killed while the mount ends."""
_GLANCE = Seconds(0.01)


class Ending:
    def __init__(self, table: InodeTable, files: Files, *, knows_programs: bool) -> None:
        """`knows_programs`: it can be told of a program that it is being killed."""
        self._table = table
        self._files = files
        self._knows_programs = knows_programs

    def flush_all(self, deadline: Seconds) -> Sequence[OssFuseError]:
        """See `Filesystem.flush_all`."""
        end = time.monotonic() + deadline
        self._await_ends(Seconds(min(_MOMENT, deadline / 2)))
        nodes = [node for node in self._table.nodes() if node.draft is not None]
        if not nodes:
            return []
        pool = ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="flush")
        try:
            running = {pool.submit(self._flush, node): self._table.path(node) for node in nodes}
            done, late = wait(running, timeout=max(0.0, end - time.monotonic()))
            failures = [error for future in done if (error := future.result()) is not None]
            failures.extend(
                DeadlineExceeded(
                    f"{running[future]!r} was not written within {deadline:g} s",
                    hint="give the pod a longer terminationGracePeriodSeconds",
                )
                for future in late
            )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        for failure in failures:
            _log.error("not written at the end: %s", failure)
        return failures

    def _await_ends(self, patience: Seconds) -> None:
        """Until no program has unfinished files open that could be half files. Nothing tells of that: it is looked."""
        if not self._knows_programs:
            return
        end = time.monotonic() + patience
        while time.monotonic() < end and any(self._files.has_writer(node) for node in self._table.nodes()):
            time.sleep(_GLANCE)

    def _flush(self, node: Node) -> OssFuseError | None:
        try:
            with self._files.change(node), self._files.turn(node):
                if self._files.is_deserted(node):
                    return FileBusy(
                        f"{self._table.path(node)!r} was being written by a program that is killed, and did not become "
                        "an object",
                        hint="use fsync for what must survive, or fs.oss.append.enable for logs",
                    )
                self._files.complete(node)
        except OssFuseError as error:
            return error
        return None
