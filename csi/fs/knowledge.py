"""What is known about names, for how long it may be believed, and how new knowledge meets our own changes.

Two sources tell about a name: answers of OSS, and what this mount does itself. Every request takes a serial before it
is sent and every change of our own takes one when it is done; an answer that was asked for before our last change of a
name is ignored, so that a slow listing never brings back a file we removed. Files being written here are known from
their draft, whatever OSS says. `csi/fs/freshness.py` judges how old an answer may be, `csi/fs/namespace.py` asks OSS
for what is not known. Nothing here waits.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from csi.errors import NoSuchEntry
from csi.fs.absences import Absences
from csi.fs.appearance import Appearance
from csi.fs.freshness import Freshness
from csi.fs.inodes import InodeTable
from csi.fs.listings import MOST_NAMES, Listing, ListingCache
from csi.fs.metadata import APPENDABLE_TYPE, Facts
from csi.fs.names import check_lookup, encode, shown
from csi.fs.nodes import NEVER, Node
from csi.fs.page_sizes import PageSizes
from csi.fs.published import LARGEST, LIGHT, FilesShown, NothingPublished
from csi.fs.recent import RecentChanges
from csi.fs.renewal import Page, place_of
from csi.fs.runs import Runs
from csi.fs.types import Entry, FileKind
from csi.volume.spec import CachePolicy, MountArguments, Ownership
from csi.volume.units import Bytes, FileHandle, Seconds

_ALWAYS = Seconds(float(1 << 30))
_CONTENT = frozenset({"Normal", "Multipart", "Appendable"})
"""Types of objects that are what their facts say; a Symlink leads elsewhere."""


@dataclass(frozen=True, slots=True)
class KnowledgeStatistics:
    """What is remembered of OSS, at rest too, within its bounds: complete `listings` of directories, the `names` in
    them, names known to be `absent`. Pages of kept listings that are being `renewed` now."""

    listings: int
    names: int
    absent: int
    renewed: int


class Knowledge:
    """`table.lock` guards everything here."""

    def __init__(
        self,
        table: InodeTable,
        arguments: MountArguments,
        ownership: Ownership,
        clock: Callable[[], float],
        most_names: int = MOST_NAMES,
        *,
        appends: bool = False,
    ) -> None:
        """`most_names` is how many names of listings are kept. `appends`: what this mount writes are Appendable
        objects, which grow while others read them."""
        self.table = table
        self.clock = clock
        self.shown = Appearance(table, arguments, ownership, clock)
        self.fresh = Freshness(arguments, clock)
        self.listings = ListingCache(most_names)
        self.recent = RecentChanges()
        self.runs = Runs()
        self.renewed = 0  # pages under way
        self._absences = Absences()
        self._arguments = arguments
        self._appends = appends
        self._serials = itertools.count(1)
        self.publishes = type(table.published) is not NothingPublished
        cache = arguments.cache
        self._ownership = ownership
        can_note = table.succession is None or table.succession.notes_opens
        can_plan = cache is not CachePolicy.DIRECT and not arguments.random_read and can_note
        self.plans = can_plan and table.published.fetches
        self._keeps = {CachePolicy.KERNEL: 2, CachePolicy.AUTO: 1}.get(cache, 0)

    def serial(self) -> int:
        return next(self._serials)

    # --- questions ---

    def known(self, parent: Node, name: bytes, *, count: bool = False) -> Node | None:
        """What a LOOKUP may be told without asking OSS; None if it has to be asked. Raises NoSuchEntry when the
        absence of the name is known. `count`: the kernel is told of it."""
        check_lookup(name)
        with self.table.lock:
            node = self.table.child(parent, name)
            if node is not None and (node.draft is not None or self.fresh.of_name(node.checked_at)):
                node.lookups += count
                return node
            listing = self.listings.get(parent)
            if listing is not None and self._absences.asked(parent, name) < listing.asked:
                facts, asked, at = listing.latest(name)
                if facts is not None and not facts.is_unfollowed and self.fresh.of_name(at):
                    listing.used(name)
                    return self.learned(parent, name, facts, asked, at, count=count)
                if facts is not None:
                    return None  # it was there after it was not: the absence is not to be believed any more
                if node is None and listing.complete and self.fresh.of_absence(listing.at):
                    raise self._absent(parent, name, listing.at)
            at = self._absences.at(parent, name)
            if node is None and self.fresh.of_absence(at):
                raise self._absent(parent, name, at)
        return None

    def absent_for_making(self, parent: Node, name: bytes) -> bool:
        """Whether a name that is about to be made is known well enough not to be there."""
        return self.fresh.for_making(self._absences.at(parent, name))

    def has_current_attributes(self, node: Node) -> bool:
        """Whether GETATTR may be answered without asking OSS."""
        if node.detached or node.draft is not None or node is self.table.root:
            return True
        return self.fresh.of_attributes(node.checked_at)

    def is_current_for_open(self, node: Node) -> bool:
        """Whether OPEN may use what is known. The ticket of a LOOKUP is good for one open, which is the one that the
        LOOKUP was made for: close-to-open holds with all timeouts 0."""
        with self.table.lock:
            ticket, node.ticket = node.ticket, False
            if node.draft is not None or node.detached:
                return True
            return self.fresh.of_version(node.checked_at, looked_up=ticket)

    # --- answers ---

    def learned(
        self, parent: Node, name: bytes, facts: Facts | None, asked: int, at: float, *, count: bool = False
    ) -> Node | None:
        """Take in what OSS said about a name (None: nothing is there), asked for at serial `asked` and time `at`.

        Returns the node that now has the name, None if there is none. `count`: the kernel is told of it.
        """
        with self.table.lock:
            node = self.table.child(parent, name)
            if node is None and self._absences.asked(parent, name) > asked:
                return None
            if node is not None and node.asked <= asked and node.draft is None:
                node = self._update(node, facts)
            if node is None and facts is not None and not parent.detached:
                node = self.table.add(parent, name, facts.kind)
            if node is None:
                self._absences.note(parent, name, asked, at)
                return None
            self._absences.drop(parent, name)
            if node.draft is None and node.asked <= asked:
                self.table.tell(node, facts if facts is not None and node.facts != facts else node.facts, asked, at)
            if facts is not None:
                listing = self.listings.get(parent)
                if listing is not None and not listing.agrees(name, facts, asked, at):
                    self.listings.drop(parent)
            node.lookups += count
            return node

    def listed(self, parent: Node, name: bytes, facts: Facts, asked: int, at: float, place: bytes) -> Entry | None:
        """`learned` of a name that readdir is about to tell the kernel, which counts; `place` is that of `parent`."""
        with self.table.lock:
            node: Node | None
            if parent.detached or (parent.children and name in parent.children) or len(self._absences):
                node = self.learned(parent, name, facts, asked, at)
            else:
                node = self.table.add(parent, name, facts.kind, place)
                node.facts, node.asked, node.checked_at = facts, asked, at  # nobody has been told of it
            return None if node is None else self.tell(node, count=True)

    def tell(self, node: Node, *, count: bool = False) -> Entry:
        """How `node` looks to the kernel, for an answer; `count`: it is told of it. As long as that holds, the kernel
        session may give this answer by itself."""
        with self.table.lock:
            entry = self.shown.entry(node, count=count)
            if not node.published and self.publishes and node.draft is None and not node.detached:
                self._publish(node, entry)
            return entry

    def begin_listing(self, directory: Node, asked: int, at: float) -> Listing:
        """A directory is being listed; names that are put into the listing are known from then on."""
        listing = Listing({}, asked, at, complete=False)
        with self.table.lock:
            self._offer(directory, listing)
        return listing

    def paged(self, directory: Node, pages: Sequence[Page], sizes: PageSizes) -> None:
        """Pages of that size, each after the one before, told some names of a directory of which no whole listing is
        kept."""
        with self.table.lock:
            first, *others = pages
            listing = Listing(dict(first.names), first.asked, first.at, complete=False, sizes=sizes)
            for page in others:
                listing.turn(max(place_of(*told) for told in listing.names.items()), page.asked, page.at)
                listing.names.update(page.names)
            self._offer(directory, listing)

    def turn_page(self, directory: Node, listing: Listing, end: bytes, asked: int, at: float) -> None:
        """The names after the one at `end` are of another page."""
        with self.table.lock:
            listing.turn(end, asked, at)
            if not self.listings.has_room(listing):
                listing.move_on()
            self._offer(directory, listing)

    def has_something(self, directory: Node, asked: int, at: float) -> None:
        """A page told of something in `directory`, which is there, then: `ls -l` asks for it with every name."""
        with self.table.lock:
            if not directory.detached and directory.parent is not None and directory.asked <= asked:
                self.table.tell(directory, directory.facts, asked, at)

    def end_listing(self, directory: Node, listing: Listing) -> None:
        """The directory was listed from end to end."""
        with self.table.lock:
            listing.end()
            self._offer(directory, listing)

    def kept_listing(self, directory: Node) -> Listing | None:
        """The listing that readdir may show again instead of asking."""
        with self.table.lock:
            listing = self.listings.get(directory)
            return listing if listing is not None and listing.complete and self.fresh.of_listing(listing.at) else None

    # --- our own changes ---

    def made(self, parent: Node, name: bytes, kind: FileKind) -> Node:
        """The node for a name this mount is making, counted as told to the kernel: who makes it answers with it."""
        with self.table.lock:
            node = self.table.child(parent, name)
            if node is not None and node.kind is not kind:
                self.table.detach(node)
                node = None
            if node is None:
                node = self.table.add(parent, name, kind)
            node.lookups += 1
            self._absences.drop(parent, name)
            self._touch(parent)
            if kind is FileKind.DIRECTORY:
                self.table.touch(node, int(self.clock() * 1e9))
            return node

    def changed(self, node: Node, facts: Facts | None, *, checked: bool = False) -> None:
        """This mount made another version of `node`. Unless `checked`, OSS is asked before attributes are shown again:
        only it knows the time."""
        with self.table.lock:
            self.table.tell(node, facts, self.serial(), self.clock() if checked else NEVER)
            if node.parent is not None:
                self._outdate_listing(node.parent)

    def removed(self, node: Node) -> None:
        """This mount removed the name of `node`."""
        with self.table.lock:
            parent = node.parent
            self.table.local(node).unlinked = True
            if parent is None or node.detached:
                return
            self._absences.note(parent, node.name, self.serial(), self.clock())
            self._touch(parent)
            self.table.detach(node)

    def withdrawn(self, node: Node) -> None:
        """A file that this mount was making did not come to be; another client may have made one of its name."""
        with self.table.lock:
            self.table.local(node).unlinked = True
            if node.parent is not None:
                self._outdate_listing(node.parent)
            self.table.detach(node)

    def moved(self, node: Node, parent: Node, name: bytes) -> None:
        """This mount renamed `node`."""
        with self.table.lock:
            old, old_name = node.parent, node.name
            replaced = self.table.child(parent, name)
            if replaced is not None:
                self.table.local(replaced).unlinked = True
                self.table.detach(replaced)
            self.table.move(node, parent, name)
            self._absences.drop(parent, name)
            if old is not None:
                self._absences.note(old, old_name, self.serial(), self.clock())
                self._touch(old)
            self._touch(parent)
            if node.is_directory:
                self.table.retract_all()
                self.recent.note_all(self.serial())
            for below in self.table.descendants(node):
                self.table.tell(below, below.facts, self.serial(), NEVER)
                self.listings.drop(below)

    def distrust(self, node: Node) -> None:
        """A change of `node` and what is below it was left half done: ask OSS before showing any of it."""
        with self.table.lock:
            self.table.retract_all()
            self.recent.note_all(self.serial())
            for each in (node, *self.table.descendants(node)):
                self.table.distrust(each)
                self.listings.drop(each)

    def doubt(self, file: Node) -> None:
        """What was told of `file` was found to be wrong: ask OSS before showing anything of it."""
        with self.table.lock:
            self.table.distrust(file)
            if file.parent is not None:
                self.listings.drop(file.parent)

    def forget_absence(self, parent: Node, name: bytes) -> None:
        """A name may be there now, through nothing this mount was told to make."""
        with self.table.lock:
            self._absences.drop(parent, name)
            self.table.retract_absence(parent, name)
            self._outdate_listing(parent)

    # --- for what is published together ---

    def was_absent_since(self, parent: Node, name: bytes, asked: int) -> bool:
        """Whether a name was not there by something learned after serial `asked`."""
        return self._absences.asked(parent, name) > asked

    def is_plain(self, node: Node) -> bool:
        """Whether nothing but its facts tells how `node` looks."""
        local = node.local
        if node.detached or node.kind is not FileKind.FILE:
            return False
        return local is None or not (
            local.handles or local.draft is not None or local.unlinked or local.refused or local.times or local.shown
        )

    def may_grow(self, facts: Facts) -> bool:
        """Whether this mount may write to the object that it is, which grows then."""
        return self._appends and facts.type == APPENDABLE_TYPE

    def can_plan(self, node: Node) -> bool:
        """Whether the kernel session may open and read the file by itself."""
        facts = node.facts
        return (
            self.plans
            and facts is not None
            and facts.size <= LARGEST
            and facts.type in _CONTENT
            and not self.may_grow(facts)
            and bool(facts.etag)
            and facts.etag.isascii()
            and facts.etag.isprintable()
            and self.is_plain(node)
        )

    def open_beside(self, node: Node) -> FileHandle | None:
        """Have an OPEN that came here be one of the kernel session's; None where it does not read the file."""
        with self.table.lock:
            if not self._plan(node) or not self.table.published.open_planned(node.inode):
                return None
            return FileHandle(LIGHT | node.inode)

    def files_shown(self, at: float) -> FilesShown:
        """How files look of which something was learned at time `at`."""
        age = max(0.0, self.clock() - at)
        arguments, ownership = self._arguments, self._ownership
        return FilesShown(
            mode=stat.S_IFREG | ownership.file_mode,
            uid=ownership.uid,
            gid=ownership.gid,
            keeps=self._keeps,
            name_believed=self.fresh.name_left(at),
            name_told=self.fresh.name_left(at),
            believed=self.fresh.attributes_left(at),
            told=Seconds(max(0.0, arguments.attr_timeout - age)),
            opens=self.fresh.opens_left(at) if self.plans else Seconds(0.0),
        )

    def statistics(self) -> KnowledgeStatistics:
        with self.table.lock:
            return KnowledgeStatistics(len(self.listings), self.listings.names, len(self._absences), self.renewed)

    # --- private; the lock is held ---

    def _publish(self, node: Node, entry: Entry) -> None:
        attributes, entry_timeout, attr_timeout, _ = entry
        parent = node.parent
        believed = self.fresh.attributes_left(node.checked_at)
        if parent is None:  # it does not age: otherwise the kernel would soon ask for it with every path
            believed, attr_timeout = _ALWAYS, _ALWAYS if attr_timeout > 0 else attr_timeout
        if believed <= 0 or (node.kind is FileKind.SYMLINK and self.shown.symlink_target(node) is None):
            return
        published = self.table.published
        if not published.publish_inode(attributes, believed=believed, told=attr_timeout):
            return
        node.published = True
        known = self.fresh.name_left(node.checked_at)
        if parent is not None and known > 0:
            published.publish_name(parent.inode, node.name, node.inode, believed=known, told=entry_timeout)
        if self.fresh.opens_left(node.checked_at) > 0:
            self._plan(node)

    def _plan(self, node: Node) -> bool:
        """Let the kernel session read the file by itself, and open it for as long as what is known of it is good for
        that. False: it may not, or cannot."""
        facts = node.facts
        if facts is None or not self.can_plan(node):
            return False
        planned = self.table.published.publish_plan(
            node.inode,
            encode(self.table.key(node)),
            facts.etag,
            Bytes(facts.size),
            keeps=self._keeps,
            opened=node.local is not None and node.local.opened == facts.etag,
            believed=self.fresh.opens_left(node.checked_at),
        )
        node.planned = node.planned or planned
        return planned

    def _offer(self, directory: Node, listing: Listing) -> None:
        """Keep `listing`, unless we changed the directory since, or know all of its names from another one."""
        kept = self.listings.get(directory)
        if directory.local is not None and directory.local.changed > listing.asked:
            return
        if listing.complete or kept is None or not (kept.complete and self.fresh.of_name(kept.at)):
            self.listings.put(directory, listing)

    def _absent(self, parent: Node, name: bytes, at: float) -> NoSuchEntry:
        if self.publishes:
            self.table.publish_absence(parent, name, self.fresh.absence_left(at))
        error = missing(name)
        error.age = self.clock() - at
        return error

    def _update(self, node: Node, facts: Facts | None) -> Node | None:
        """Give `node` its new facts; None if the name is no longer this inode's. The lock is held."""
        if facts is None and node.is_directory and self.table.written_in(node):
            return node
        if facts is None and node.facts is None and node.local is not None and node.local.handles:
            return node  # it is just being made
        if facts is None or facts.kind is not node.kind or self._is_another_file(node, facts):
            self.table.detach(node)
            return None
        return node

    def _is_another_file(self, node: Node, facts: Facts) -> bool:
        """Whether another client replaced a file that the kernel knows. It keeps one size and one set of cached pages
        for an inode, and of two answers under way it may keep the older: the new version needs an inode of its own, or
        programs would be shown bytes of two versions, or the end of one as the end of the other. With -okernel_cache
        that is what was asked for, until the file is opened."""
        known, is_open = node.facts, node.local is not None and bool(node.local.handles)
        if known is None or not known.etag or node.kind is not FileKind.FILE:
            return False
        is_open = is_open or (node.planned and self.table.published.count_opens(node.inode) > 0)
        if not is_open and (not node.lookups or self._arguments.cache is CachePolicy.KERNEL):
            return False
        if (facts.etag, facts.size) == (known.etag, known.size):
            return False
        return not (facts.type == known.type == APPENDABLE_TYPE and facts.size >= known.size)

    def _touch(self, directory: Node) -> None:
        """A name in `directory` was made or removed here."""
        published = directory.published
        self.table.touch(directory, int(self.clock() * 1e9))
        self._outdate_listing(directory)
        if published:  # the kernel asks for it again with the next path through it
            self.tell(directory)

    def _outdate_listing(self, directory: Node) -> None:
        self.table.local(directory).changed = serial = self.serial()
        self.recent.note(self.table.key(directory), serial)
        self.listings.drop(directory)
        self.runs.outdate(directory)


def missing(name: bytes) -> NoSuchEntry:
    return NoSuchEntry(f"{shown(name)} does not exist")
