"""Names as they are in the bucket: what is known of them, or else asked of OSS.

`csi/fs/knowledge.py` says what is known and takes in the answers; here is when OSS has to be asked, and how: one LIST
for a name, a page for names of a directory that is worked through.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from csi.data.workers import WorkerPool
from csi.errors import EntryExists, NoSuchEntry, NotADirectory, OssFuseError, PermissionDenied, StaleFile
from csi.fs.inodes import InodeTable
from csi.fs.knowledge import Knowledge, missing
from csi.fs.listings import MOST_NAMES, Listing
from csi.fs.metadata import ask_from
from csi.fs.names import KEY_MAX, check_lookup, encode, shown
from csi.fs.nodes import Node
from csi.fs.pages import AHEAD
from csi.fs.renewal import Flight, Page, Renewal
from csi.fs.together import Together
from csi.oss.store import ObjectStore
from csi.volume.spec import MountArguments, Ownership
from csi.volume.units import InodeNumber, ObjectKey, Seconds

_log = logging.getLogger(__name__)


class Namespace:
    """`table.lock` guards what is known; it is never held while OSS is asked."""

    def __init__(
        self,
        store: ObjectStore,
        table: InodeTable,
        arguments: MountArguments,
        ownership: Ownership,
        clock: Callable[[], float],
        *,
        workers: WorkerPool,
        most_names: int = MOST_NAMES,
        appends: bool = False,
    ) -> None:
        """`workers` ask what nobody waits for; the caller closes them. `appends`: see `Knowledge`."""
        self.table = table
        self.clock = clock
        self.knowledge = Knowledge(table, arguments, ownership, clock, most_names, appends=appends)
        self.shown = self.knowledge.shown
        self._store = store
        self._symlinks = arguments.symlinks
        self._workers = workers
        self.together = Together(
            store, self.knowledge.serial, clock, symlinks=arguments.symlinks, monotonic=time.monotonic
        )

    def directory(self, inode: InodeNumber) -> Node:
        """The directory `inode`. Raises NotADirectory, NoSuchEntry (it was removed), StaleFile."""
        node = self.table.get(inode)
        if not node.is_directory:
            raise NotADirectory(f"{shown(node.name)} is not a directory")
        if node.detached:
            raise NoSuchEntry(f"the directory {shown(node.name)} was removed")
        return node

    def look_up(self, parent: Node, name: bytes) -> Node:
        """The node of a name as LOOKUP sees it, counted as told to the kernel: a node that is not counted may be
        forgotten at any moment. Raises NoSuchEntry and what OSS raises."""
        node = self.knowledge.known(parent, name, count=True) or self._renewed(parent, name)
        node = node or self._in_order(parent, name)
        if node is None:
            node = self._ask(parent, name, count=True)
            if self.knowledge.fresh.keeps_names:
                with self.table.lock:
                    self.knowledge.runs.asked(parent, name, is_there=node is not None)
        if node is None:
            raise missing(name)
        node.ticket = True
        return node

    def find(self, parent: Node, name: bytes) -> Node | None:
        """The node of a name that is about to be changed, counted: what the LOOKUP before it found is good enough."""
        check_lookup(name)
        with self.table.lock:
            node = self.table.child(parent, name)
            if node is not None and (node.draft is not None or self.knowledge.fresh.for_change(node.checked_at)):
                node.lookups += 1
                return node
            if node is None and self.knowledge.absent_for_making(parent, name):
                return None
        return self._ask(parent, name, count=True)

    @contextmanager
    def held(self, parent: Node, name: bytes) -> Iterator[Node | None]:
        """`find`, with the node kept in the table while the block runs even if the kernel was never told of it."""
        node = self.find(parent, name)
        if node is None:
            yield None
            return
        try:
            yield node
        finally:
            self.table.forget(node.inode, 1)

    @contextmanager
    def existing(self, parent: Node, name: bytes) -> Iterator[Node]:
        """`held`, raising NoSuchEntry."""
        with self.held(parent, name) as node:
            if node is None:
                raise missing(name)
            yield node

    def require_absent(self, parent: Node, name: bytes) -> None:
        """Raises EntryExists."""
        with self.held(parent, name) as node:
            if node is not None:
                raise EntryExists(f"{shown(name)} exists")

    def refresh(self, node: Node) -> None:
        """Ask OSS about a node again. Unless the file is open, then what was known stays: raises NoSuchEntry when the
        name is gone, StaleFile when it is another file's (ESTALE makes the kernel look the name up again)."""
        parent = node.parent
        if parent is None or node.detached:
            return
        found = self._ask(parent, node.name)
        if found is not None and found is not node:
            self.table.drop_unused(found)
        if found is node or (node.local is not None and node.local.handles):
            return
        if found is None:
            raise missing(node.name)
        raise StaleFile(f"{shown(node.name)} was replaced by another client", hint="open it again")

    def follow(self, file: Node) -> None:
        """A Symlink that is shown as a file is about to be read: raises what OSS says if it leads to nothing."""
        self._store.head(self.table.key(file))
        self.refresh(file)

    def ensure_marker(self, directory: Node) -> None:
        """Give a directory a marker object before something in it is removed, so that it does not vanish with it."""
        if directory is self.table.root or directory.detached:
            return
        local = self.table.local(directory)
        if local.has_marker:
            return
        key = self.table.key(directory)
        page = self._store.list_page(key, max_keys=1)
        if not page.objects or page.objects[0].key != key:
            try:
                self._store.put(key, [], content_type="application/x-directory")
            except PermissionDenied as error:
                _log.warning("%s stays without a marker object and vanishes when it is empty: %s", key, error)
                return
        local.has_marker = True

    # --- private ---

    def _renewed(self, parent: Node, name: bytes) -> Node | None:
        """Ask OSS about a name of a kept listing and those that follow it, or wait for a request under way that does;
        None if the name has to be asked for by itself. The node is counted."""
        if not self.knowledge.fresh.keeps_names:
            return None
        with self.table.lock:
            listing = self.knowledge.listings.get(parent)
            if listing is not None and listing.sizes is not None:
                return None  # the next page is better than this one again
            if listing is not None:
                listing.renewal.sizes.credit(self.table.published.hits(parent.inode))
            found = listing.renewal.join(name) if listing is not None else None
            directory = self.table.key(parent)
            if listing is None or found is None:
                return None
            flight, is_new = found
            others = listing.renewal.others(partial(self._is_fresh, listing)) if is_new else []
            self.knowledge.renewed += is_new + len(others)
        for other in others:
            fly = partial(self._fly, listing.renewal, other, directory)
            self._workers.submit(fly, priority=AHEAD, dropped=partial(self._land, listing.renewal, other))
        if is_new:
            self._fly(listing.renewal, flight, directory)
            return self._told(parent, name, flight)
        page = flight.result()
        facts = page.names.get(name) if page is not None else None
        if page is None or facts is None:  # that it is not there was perhaps asked before somebody made it
            return None
        with self.table.lock:
            listing.renewal.sizes.used += 1
            return self.knowledge.learned(parent, name, facts, page.asked, page.at, count=True)

    def _is_fresh(self, listing: Listing, name: bytes) -> bool:
        return self.knowledge.fresh.of_name(listing.latest(name)[2])

    def _fly(self, renewal: Renewal, flight: Flight, directory: ObjectKey) -> bool:
        """Ask for a page of a kept listing; returns whether it came."""
        try:
            self._request(flight, directory)
        finally:
            self._land(renewal, flight)
        return flight.page is not None

    def _request(self, flight: Flight, directory: ObjectKey) -> None:
        """The LIST of `flight`. A failure is kept for all who wait for it."""
        asked, at = self.knowledge.serial(), self.clock()
        try:
            names, flight.reaches = ask_from(self._store, directory, flight.after, flight.size, symlinks=self._symlinks)
            flight.page, flight.seconds = Page(names, asked, at), Seconds(self.clock() - at)
        except OssFuseError as error:
            flight.error = error

    def _land(self, renewal: Renewal, flight: Flight) -> None:
        with self.table.lock:
            renewal.land(flight)
            self.knowledge.renewed -= 1

    def _in_order(self, parent: Node, name: bytes) -> Node | None:
        """Ask OSS about a name of a directory of which no whole listing is kept, and those that follow it, or wait for
        a request under way that does; None if the name has to be asked for by itself. The node is counted. Raises
        NoSuchEntry."""
        if not self.knowledge.fresh.keeps_names or parent.detached:
            return None
        with self.table.lock:
            listing = self.knowledge.listings.get(parent)
            if listing is not None and listing.complete:
                return None
            found = self.knowledge.runs.join(parent, name, self.table.published.hits(parent.inode))
            directory = self.table.key(parent)
            self.knowledge.renewed += found is not None and found[2]
        if found is None:
            return None
        flight, sizes, is_new = found
        if not is_new:
            flight.result()
            return self.knowledge.known(parent, name, count=True)
        try:
            self._request(flight, directory)
        finally:
            with self.table.lock:
                pages = self.knowledge.runs.land(parent, flight, name)
                if pages:
                    self.knowledge.paged(parent, pages, sizes)
                self.knowledge.renewed -= 1
        return self._told(parent, name, flight)

    def _told(self, parent: Node, name: bytes, flight: Flight) -> Node | None:
        """The node of a name that was asked for by `flight`; None if that does not tell. It is counted. Raises
        NoSuchEntry and what the request raised."""
        page = flight.result()
        if page is None or not (name in page.names or flight.reaches(name)):
            return None
        node = self.knowledge.learned(parent, name, page.names.get(name), page.asked, page.at, count=True)
        if node is None:
            raise missing(name)
        return node

    def _ask(self, parent: Node, name: bytes, *, count: bool = False) -> Node | None:
        """Ask OSS about one name, with others that are asked for at this moment."""
        if parent.detached or name in (b".", b"..") or b"/" in name or not name:
            return None
        directory = self.table.key(parent)
        if len(encode(directory)) + len(name) > KEY_MAX:  # OSS refuses to be asked
            return self.knowledge.learned(parent, name, None, self.knowledge.serial(), self.clock(), count=count)
        facts, asked, at = self.together.ask(directory, name)
        return self.knowledge.learned(parent, name, facts, asked, at, count=count)
