"""Open files: opening, writing, and when what was written becomes an object.

open(2) uses attributes no older than the mount allows, close(2) and fsync(2) return when the object is in OSS or raise
why it is not. The rules of writing are in `csi/fs/drafts.py`, those of reading in `csi/fs/reading.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from csi.errors import OperationNotSupported, OssFuseError, StaleFile
from csi.fs.drafts import Draft, Drafts
from csi.fs.handles import NOBODY, Handles, OpenHandle
from csi.fs.names import shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.openers import Opener
from csi.fs.reading import Reading
from csi.fs.turns import Gate, Turn
from csi.fs.types import OpenFile
from csi.oss.store import Buffer
from csi.volume.spec import CachePolicy, MountArguments
from csi.volume.units import MIB, FileHandle

_log = logging.getLogger(__name__)

_AT_ONCE = 64 * MIB
"""Bytes of one write whose requests may come in another order."""
_GLANCE, _GLANCES = 0.001, 1000
"""Seconds between two looks whether what is on its way from the kernel has come (the requests before one of them, the
release of a killed program's file), and how many; then it is not on its way."""


class Files:
    """Changes go through the gate, then take the turn of their node; `InodeTable.lock` guards what they set."""

    def __init__(
        self,
        namespace: Namespace,
        handles: Handles,
        reading: Reading,
        drafts: Drafts,
        gate: Gate,
        arguments: MountArguments,
        sleep: Callable[[float], None],
    ) -> None:
        self._namespace = namespace
        self._table = namespace.table
        self._handles = handles
        self._reading = reading
        self._drafts = drafts
        self._gate = gate
        self._arguments = arguments
        self._sleep = sleep

    # --- opening and closing ---

    def open(self, node: Node, flags: int, opener: Opener | None = None) -> OpenFile:
        """Raises FileBusy, StaleFile (the name is gone: the kernel looks it up again) and what OSS raises."""
        self._await_release(node)
        if flags & os.O_DIRECT or not self._namespace.knowledge.is_current_for_open(node):
            self._namespace.refresh(node)
        if _is_unfollowed(node) and not flags & os.O_TRUNC:
            self._namespace.follow(node)
        return self._begin(node, flags, opener)

    def open_cached(self, node: Node, flags: int) -> OpenFile | None:
        """`open` for reading from what is known, else None; called on an event loop."""
        if flags & (os.O_ACCMODE | os.O_TRUNC | os.O_DIRECT) or node.draft is not None or _is_unfollowed(node):
            return None
        if not self._namespace.knowledge.is_current_for_open(node):
            return None
        return self._begin(node, flags)

    def _begin(self, node: Node, flags: int, opener: Opener | None = None) -> OpenFile:
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        if node.detached:
            raise _replaced(node)
        if flags & os.O_TRUNC and not writing:
            self.truncate(node, 0, None)  # open(2) leaves it unspecified; Linux empties the file
        light = None if writing or flags & os.O_DIRECT else self._namespace.knowledge.open_beside(node)
        if light is not None:
            return self._opened(light, node, flags)
        handle = self._handles.add(node, flags, opener)
        try:
            if writing and flags & os.O_TRUNC:
                with self.change(node), self.turn(node):
                    self._begin_empty(handle)
            elif not writing:
                self._reading.begin(handle, half=self._is_about_to_go(node))
        except BaseException:
            self._handles.drop(handle)
            raise
        return self._opened(handle.id, node, flags)

    def create(self, node: Node, flags: int, opener: Opener | None = None) -> OpenFile:
        """Open a file that was not there, and begin its first version; who cannot write gets an empty one, for others
        to open (a lock file)."""
        handle = self._handles.add(node, flags, opener)
        try:
            with self.change(node), self.turn(node):
                if handle.writable:
                    self._begin_empty(handle, exclusive=bool(flags & os.O_EXCL))
                else:
                    self._make_empty(node, exclusive=bool(flags & os.O_EXCL))
        except BaseException:
            if node.facts is None and node.draft is None:
                self._namespace.knowledge.withdrawn(node)
            self._handles.drop(handle)
            raise
        return self._opened(handle.id, node, flags | os.O_TRUNC)

    def release(self, number: FileHandle) -> None:
        """The last descriptor is closed. What flush did not finish (it never came) is finished here; a failure can
        only be logged. What a killed program deserted is given up."""
        handle = self._handles.get(number)
        node = handle.node
        if handle.deserted is None:
            handle.deserted = self._is_cut_short(handle) or self._is_deserted(handle)
        try:
            if node.draft is not None and node.draft.owner == handle.id:
                with self.change(node), self.turn(node):
                    draft = node.draft
                    if draft is not None and draft.owner == handle.id:
                        self._end_draft(node, draft, deserted=handle.deserted is True and not draft.joined)
        finally:
            self._handles.drop(handle)

    # --- bytes ---

    def write(self, number: FileHandle, offset: int, data: Buffer) -> int:
        handle = self._handles.get(number)
        node = handle.node
        handle.require_writable()
        _check(handle)
        self._await_earlier(node, offset)
        try:
            with self.turn(node):
                written = self._write_draft(handle, offset, data)
            if written is None:
                with self.change(node), self.turn(node):
                    if node.draft is None:
                        _check(handle)
                        draft = self._drafts.continue_from(
                            *(node, handle.id, offset), shared=handle.appends, at_end=handle.goes_to_end
                        )
                        self._begun(handle, draft)
                    written = self._write_draft(handle, offset, data)
        except OssFuseError:
            self._table.refuse_pages(node)
            raise
        return len(data) if written is None else written

    def flush(self, number: FileHandle) -> None:
        """close(2) of one descriptor: what was written is an object when this returns, or it raises why not. It comes
        too when the kernel closes for a program that is being killed: that finishes nothing, and `release` decides."""
        handle = self._handles.get(number)
        self.recall(handle.node)  # what is written after this close is known to be
        handle.deserted = self._is_deserted(handle)
        if handle.deserted or self._is_only_moved(handle):
            return
        try:
            self._complete(number, push=False)
        except OssFuseError:
            self._give_up(handle)
            raise
        self._handles.rest(handle)

    def fsync(self, number: FileHandle) -> None:
        """As flush; in append mode the object goes on growing without being finished."""
        self._complete(number, push=True)

    # --- without reading or writing ---

    def truncate(self, node: Node, size: int, number: FileHandle | None) -> None:
        """truncate(2), ftruncate(2): to nothing, to the size it has, or to what the program will have written when it
        closes the file. Raises OperationNotSupported for others."""
        handle = self._handles.get(number) if number is not None else None
        if handle is not None:
            handle.require_writable()
        if handle is None and not self._namespace.knowledge.is_current_for_open(node):
            self._namespace.refresh(node)
        if handle is None and _is_unfollowed(node):
            self._namespace.follow(node)
        with self.change(node), self.turn(node):
            draft = node.draft
            now = draft.shown_size if draft is not None else node.facts.size if node.facts is not None else 0
            if size == now:
                return
            if handle is not None and draft is not None and size >= draft.size:
                self._drafts.announce(node, draft, handle.id, handle.appends, size)
                return
            if handle is not None and _is_nameless(node) and self._drafts.nameless.resize(node, handle, size):
                return
            if size != 0:
                raise OperationNotSupported(
                    f"{shown(node.name)} has {now} bytes and cannot be cut or extended to {size}",
                    hint="objects can only be emptied and written again",
                )
            if node.detached:
                raise _replaced(node)
            if handle is not None:
                self._begin_empty(handle)
            else:
                self._make_empty(node)

    def complete(self, node: Node) -> None:
        """Finish what is being written, inside the node's turn; a failed draft nobody owns is dropped."""
        draft = node.draft
        try:
            self._drafts.finish(node)
        except OssFuseError:
            if draft is not None and draft.owner == NOBODY:
                self._drafts.drop(node)
            raise

    # --- for the rest of the room ---

    def recall(self, node: Node) -> None:
        """The next write to `node` comes here, whatever the kernel session could do by itself."""
        draft = node.draft
        if draft is not None:
            draft.recall()

    def turn(self, node: Node) -> Turn:
        return self._table.local(node).turn

    def change(self, node: Node) -> AbstractContextManager[str]:
        """Keep renames of what is above `node` out while its key matters."""
        return self._gate.change(lambda: self._table.path(node))

    # --- private ---

    def _begin_empty(self, handle: OpenHandle, *, exclusive: bool = False) -> None:
        if handle.node.detached:
            raise _replaced(handle.node)
        if self._is_being_emptied(handle):
            return
        draft = self._drafts.begin_empty(handle.node, handle.id, shared=handle.appends, exclusive=exclusive)
        handle.failed = None
        self._begun(handle, draft)

    def _begun(self, handle: OpenHandle, draft: Draft) -> None:
        if handle.readable:
            draft.writer.keep()
        self._handles.unbind(handle)

    def _make_empty(self, node: Node, *, exclusive: bool = False) -> None:
        """An object without bytes, that no open file writes. Inside the node's turn."""
        self._drafts.begin_empty(node, NOBODY, exclusive=exclusive)
        self.complete(node)

    def _is_being_emptied(self, handle: OpenHandle) -> bool:
        """Whether another has it open that emptied it and wrote nothing yet: two that lock a file by `exec 9>file`.
        Inside the node's turn."""
        draft = handle.node.draft
        if draft is None or draft.owner == handle.id or draft.error is not None or draft.shown_size:
            return False
        draft.awaited = True
        return True

    def _opened(self, number: FileHandle, node: Node, flags: int) -> OpenFile:
        keep, direct = self._cache_policy(number, node, flags)
        leaves_none = not direct and self._leaves_no_pages(flags)
        handle = self._handles.find(number)
        if handle is not None:
            handle.caches = not (direct or leaves_none)
        return OpenFile(number, keep, direct, leaves_none)

    def _leaves_no_pages(self, flags: int) -> bool:
        """Whether pages of what is written would be dropped before anybody reads them: who reads the file before it is
        finished uses none, and its next version is another one. Who may read what is there keeps its pages, and can map
        them; but not who appends, or writes in append mode, where others read on meanwhile: Linux was seen to show them
        zeros beyond the end that the last page had."""
        mode, ends = flags & os.O_ACCMODE, bool(flags & (os.O_TRUNC | os.O_APPEND)) or self._drafts.readable
        leaves_none = mode == os.O_WRONLY or (mode == os.O_RDWR and ends)
        return leaves_none and self._arguments.cache is not CachePolicy.KERNEL

    def _cache_policy(self, number: FileHandle, node: Node, flags: int) -> tuple[bool, bool]:
        """(keep_cache, direct_io) of the reply to open. AUTO keeps pages if this is the version opened before.
        Pages that were refused are kept by nobody, and none are made of what another handle may go on to write."""
        policy = self._arguments.cache
        if policy is CachePolicy.DIRECT or flags & os.O_DIRECT:
            return False, True
        with self._table.lock:
            local = self._table.local(node)
            if self._outgrows_pages(node, self._handles.find(number)):
                return False, True
            current = node.facts.etag if node.facts is not None and node.draft is None else None
            same = current is not None and local.opened == current
            local.opened = current
            if local.refused:
                local.refused = False
                return False, False
        return policy is CachePolicy.KERNEL or (policy is CachePolicy.AUTO and same), False

    def _outgrows_pages(self, node: Node, handle: OpenHandle | None) -> bool:
        """Whether another than `handle` writes to the file, or did and may go on, or its object grows in append mode
        whenever somebody writes: pages would not grow with it."""
        draft = node.draft
        if draft is not None:
            return handle is None or draft.owner != handle.id
        if node.facts is not None and self._namespace.knowledge.may_grow(node.facts):
            return self._arguments.cache is not CachePolicy.KERNEL
        return self._table.local(node).writers > 0 and not (handle is not None and handle.wrote)

    def _write_draft(self, handle: OpenHandle, offset: int, data: Buffer) -> int | None:
        """Write to the draft there is; None when there is none (nothing is lost: the caller begins one)."""
        node, draft = handle.node, handle.node.draft
        if draft is not None:
            handle.deserted = None
            began = draft.owner
            if draft.appendable and handle.goes_to_end:  # the kernel may not know yet how long it has become
                offset = draft.size
            try:
                written = self._drafts.write(node, draft, handle.id, handle.appends, offset, data)
            except OssFuseError as error:
                if draft.error is error:
                    handle.failed = error
                raise
            if draft.owner != began:
                self._handles.unbind(handle)
            return written
        _check(handle)
        if _is_nameless(node):
            self._drafts.nameless.write(node, handle, offset, data)
            return len(data)
        return None

    def _await_release(self, node: Node) -> None:
        """Until what a killed program was writing is given up: the kernel closes its files before the program is seen
        to be gone, and releases them at about the same time. A child that shares the file may keep it for longer."""
        self._while_on_its_way(lambda: self._is_about_to_go(node))

    def _is_about_to_go(self, node: Node) -> bool:
        draft = node.draft
        owner = self._handles.find(draft.owner) if draft is not None else None
        return owner is not None and owner.deserted is True

    def _await_earlier(self, node: Node, offset: int) -> None:
        """A large write that a program has under way (io_submit(2), io_uring) comes as requests that the kernel makes
        at the same time: each has been read from the device after those before it, but may be sooner here."""
        self._while_on_its_way(lambda: self._lies_ahead(node, offset))

    def _while_on_its_way(self, awaited: Callable[[], bool]) -> None:
        for _ in range(_GLANCES):
            if not awaited():
                return
            self._sleep(_GLANCE)

    def _lies_ahead(self, node: Node, offset: int) -> bool:
        """Whether bytes for `offset` would belong to the file if what is before it was written."""
        draft = node.draft
        if draft is not None:
            end = draft.size if draft.error is None else offset
        else:
            end = node.facts.size if node.facts is not None and not node.detached else offset
        return end < offset <= end + _AT_ONCE

    def _complete(self, number: FileHandle, *, push: bool) -> None:
        handle = self._handles.get(number)
        node = handle.node
        _check(handle)
        with self.change(node), self.turn(node):
            draft = node.draft
            if draft is None or not (draft.owner == handle.id or (draft.shared and handle.appends)):
                return
            try:
                if push and draft.appendable:
                    self._drafts.push(draft)
                else:
                    self._drafts.finish(node)
            except OssFuseError as error:
                if draft.error is error:
                    handle.failed = error
                raise

    def _give_up(self, handle: OpenHandle) -> None:
        """What failed is over once close(2) has said so: whoever opens the file next finds what was before, although
        the kernel tells of the release later. What others have written to as well stays until they are told too."""
        node = handle.node
        with self.change(node), self.turn(node):
            draft = node.draft
            if draft is not None and draft.owner == handle.id and draft.error is not None and not draft.joined:
                self._drafts.drop(node)

    def has_writer(self, node: Node) -> bool:
        """Whether a program has it open with bytes that would be half a file if it were killed now."""
        draft = node.draft
        return draft is not None and draft.owner != NOBODY and not draft.appendable and draft.error is None

    def is_deserted(self, node: Node) -> bool:
        """Whether the program that has bytes of `node` unfinished is being killed."""
        draft = node.draft
        if draft is None or draft.owner == NOBODY:
            return False
        return self._is_deserted(self._handles.get(draft.owner))

    def _is_deserted(self, handle: OpenHandle) -> bool:
        """Whether this close is that of a program which is being killed, and leaves half a file. What has bytes of
        others too is not half a file."""
        unfinished = self._unfinished(handle)
        if unfinished is None or unfinished[0].joined:
            return False
        opener = unfinished[1]
        return opener.is_killed() or (handle.deserted is True and opener.sharer_is_killed())

    def _is_cut_short(self, handle: OpenHandle) -> bool:
        """Whether no program ever had this descriptor: the kernel lets go of a file without closing it when the program
        is killed in open(2)."""
        unfinished = self._unfinished(handle)
        return unfinished is not None and unfinished[0].shown_size == 0

    def _is_only_moved(self, handle: OpenHandle) -> bool:
        """Whether this close comes from a shell that gives the descriptor another number before anything is written
        (`>`): it must not empty the object already."""
        unfinished = self._unfinished(handle)
        return unfinished is not None and unfinished[0].shown_size == 0 and unfinished[1].holds(handle.node.inode)

    def _unfinished(self, handle: OpenHandle) -> tuple[Draft, Opener] | None:
        """What this handle is writing, and its program, if that can be asked about; not what has failed, or grows in
        OSS anyway."""
        draft, opener = handle.node.draft, handle.opener
        if opener is None or draft is None or draft.owner != handle.id or draft.appendable or draft.error is not None:
            return None
        return draft, opener

    def _end_draft(self, node: Node, draft: Draft, *, deserted: bool) -> None:
        if draft.error is not None:
            self._drafts.drop(node)
            return
        if deserted and not (draft.awaited and draft.size == 0 and node.facts is None):
            _log.warning(
                "%r was not written: its program was killed %d bytes into it, before it closed the file; fsync keeps "
                "what was written so far, and logs are kept as they grow with fs.oss.append.enable",
                self._table.path(node),
                draft.size,
            )
            self._drafts.drop(node)
            return
        try:
            self._drafts.finish(node)
        except OssFuseError as error:
            _log.error("%r was not written: %s", self._table.path(node), error)
            self._drafts.drop(node)


def _replaced(node: Node) -> StaleFile:
    return StaleFile(f"{shown(node.name)} was removed or replaced", hint="open the path again")


def _check(handle: OpenHandle) -> None:
    """Raises why nothing that is written through it will be an object: known from before, or since it was waited for a
    close of a duplicate."""
    if handle.failed is not None:
        raise handle.failed


def _is_nameless(node: Node) -> bool:
    """Whether this mount removed it while it was open."""
    return node.local is not None and node.local.unlinked


def _is_unfollowed(node: Node) -> bool:
    return node.facts is not None and node.facts.is_unfollowed and node.draft is None and not node.detached
