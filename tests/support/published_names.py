"""A kernel session's tables of names and attributes, as a test can look into them (csi/fs/published.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from csi.fs.published import FilesShown, ListedFile, NothingPublished, PublishedStatistics
from csi.fs.types import Attributes, FileKind
from csi.volume.units import InodeNumber, Seconds


@dataclass
class Said:
    """Something published: believed until `until`; the kernel may keep it until `told`."""

    what: Attributes | InodeNumber | None
    until: float
    told: float


class PublishedNames(NothingPublished):
    """Names, absences and attributes, also of files that are offered; opens and blocks are refused. `full` refuses
    everything."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.inodes: dict[InodeNumber, Said] = {}
        self.names: dict[tuple[InodeNumber, bytes], Said] = {}
        self.lookups: dict[InodeNumber, int] = {}
        self.offered: set[InodeNumber] = set()
        self.full = False

    # --- the kernel's side ---

    def getattr(self, inode: InodeNumber) -> Said | None:
        return self._believed(self.inodes.get(inode))

    def lookup(self, parent: InodeNumber, name: bytes) -> Said | None:
        """The name, if LOOKUP is answered: with attributes, or (what None) with ENOENT."""
        said = self._believed(self.names.get((parent, name)))
        if said is None or said.what is None:
            return said
        assert isinstance(said.what, int)
        return said if self.getattr(said.what) is not None else None

    def answer_lookup(self, parent: InodeNumber, name: bytes) -> InodeNumber | None:
        """LOOKUP answered without the filesystem, and counted."""
        said = self.lookup(parent, name)
        if said is None or said.what is None:
            return None
        assert isinstance(said.what, int)
        self.lookups[said.what] = self.lookups.get(said.what, 0) + 1
        return said.what

    def forget(self, inode: InodeNumber, count: int) -> int:
        """FORGET of the kernel: what is left for the filesystem."""
        own = min(count, self.lookups.get(inode, 0))
        if own:
            self.lookups[inode] -= own
            if inode in self.offered and not self.lookups[inode]:
                self.offered.discard(inode)
                return count - own + 1
        return count - own

    # --- Published ---

    def publish_inode(self, attributes: Attributes, *, believed: Seconds, told: Seconds, generation: int = 0) -> bool:
        if not self.full:
            now = self._clock()
            self.inodes[attributes.inode] = Said(attributes, now + believed, now + told)
        return not self.full

    def publish_name(
        self, parent: InodeNumber, name: bytes, inode: InodeNumber, *, believed: Seconds, told: Seconds
    ) -> bool:
        if not self.full:
            now = self._clock()
            self.names[parent, name] = Said(inode, now + believed, now + told)
        return not self.full

    def publish_absence(self, parent: InodeNumber, name: bytes, *, believed: Seconds, told: Seconds) -> bool:
        if not self.full:
            now = self._clock()
            self.names[parent, name] = Said(None, now + believed, now + told)
        return not self.full

    def publish_files(
        self, parent: InodeNumber, directory: bytes, files: Sequence[ListedFile], shown: FilesShown
    ) -> int:
        if self.full:
            return 0
        now = self._clock()
        for file in files:
            times = (file.mtime_ns,) * 3
            what = Attributes(file.inode, FileKind.FILE, shown.mode, 1, shown.uid, shown.gid, file.size, *times)
            self.inodes[file.inode] = Said(what, now + shown.believed, now + shown.told)
            self.names[parent, file.name] = Said(file.inode, now + shown.name_believed, now + shown.name_told)
            if file.offered:
                self.offered.add(file.inode)
        return len(files)

    def reclaim_inode(self, inode: InodeNumber) -> bool:
        if inode not in self.offered or self.lookups.get(inode, 0):
            return False
        self.offered.discard(inode)
        self.inodes.pop(inode, None)
        for place in [place for place, said in self.names.items() if said.what == inode]:
            del self.names[place]
        return True

    def retract_inode(self, inode: InodeNumber) -> None:
        self.inodes.pop(inode, None)

    def retract_name(self, parent: InodeNumber, name: bytes) -> None:
        self.names.pop((parent, name), None)

    def retract_names(self, parent: InodeNumber) -> None:
        for each in [each for each in self.names if each[0] == parent]:
            self.retract_name(*each)

    def retract_all(self) -> None:
        self.inodes.clear()
        self.names.clear()

    def withdraw_inode(self, inode: InodeNumber) -> int:
        self.inodes.pop(inode, None)
        counted = inode in self.offered
        self.offered.discard(inode)
        return self.lookups.pop(inode, 0) - counted

    def statistics(self) -> PublishedStatistics:
        return PublishedStatistics(len(self.inodes), len(self.names), lookups=sum(self.lookups.values()))

    # --- private ---

    def _believed(self, said: Said | None) -> Said | None:
        return said if said is not None and self._clock() < said.until else None
