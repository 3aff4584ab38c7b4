"""What blocks there are: by version and offset, and in which order they go when memory is needed.

A block belongs to exactly one version of one object and is immutable once it is there. Blocks on the grid (multiples of
128 KiB) are found by offset by every reader of the version; others are known only to who asked for them. A block is
*ahead* while a reader still means to read it and *spent* afterwards; spent blocks are kept up to a limit, least
recently used first out. Nothing here waits or makes a request: that is `blocks`, whose lock guards all of this.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict

from csi.data.buffers import charged_size
from csi.data.streams import BlockTable
from csi.data.workers import Task
from csi.errors import OssFuseError
from csi.oss.store import ObjectVersion
from csi.volume.units import KIB, ObjectKey

UNIT = 128 * KIB
"""The grid: what the kernel asks for at a time unless its read-ahead was raised."""


class Block:
    """The bytes `start`..`end` of one version.

    `view` is None until they are there and again once they were given up: whoever reads it takes one reference and
    looks at that. The other fields are guarded by the lock of `BlockCache`.
    """

    __slots__ = (
        "charge",
        "detached",
        "end",
        "error",
        "gates",
        "on_grid",
        "pins",
        "shelf",
        "shown",
        "start",
        "target",
        "task",
        "users",
        "view",
    )

    def __init__(self, shelf: Shelf, start: int, end: int, *, on_grid: bool) -> None:
        self.shelf = shelf
        self.start = start
        self.end = end
        self.on_grid = on_grid
        self.charge = charged_size(end - start)
        self.view: memoryview | None = None
        self.target: memoryview | None = None  # memory for a request that is still to be made, by who created it
        self.error: OssFuseError | None = None
        self.users = 0  # windows this block is part of
        self.pins = 0  # reads that must not lose it
        self.gates: list[threading.Lock] | None = []  # closed semaphores of waiting threads; None: the request ended
        self.task: Task | None = None
        self.shown = False  # published: reads may be answered from it without the engine
        self.detached = False  # not to be found or kept any more


class Shelf:
    """The blocks of one version. `grid` may be read without a lock; `readers` is guarded by `BlockCache`'s."""

    __slots__ = ("content", "grid", "readers", "shared", "shown", "version")

    def __init__(self, version: ObjectVersion, content: int) -> None:
        self.version = version
        self.content = content  # the number its blocks are published by
        self.shown = 0  # readers that want them published
        self.grid: dict[int, Block] = {}
        self.readers = 0
        self.shared = bool(version.etag)  # without an ETag no two readers know that they mean the same bytes


class Shelves:
    """All blocks by version, and two lists of those that are there. Every method is called with `BlockCache`'s lock
    held."""

    def __init__(self, *, retained: int, published: BlockTable | None) -> None:
        """`retained`: how many bytes of spent blocks are kept."""
        self._retained = retained
        self._published = published
        self._contents = itertools.count(1)
        self._shelves: dict[ObjectVersion, Shelf] = {}
        self._ahead: OrderedDict[Block, None] = OrderedDict()
        self._spent: OrderedDict[Block, None] = OrderedDict()
        self.ahead_bytes = 0
        self.spent_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        """Blocks that are there."""
        return len(self._ahead) + len(self._spent)

    # --- versions ---

    def open(self, version: ObjectVersion) -> Shelf:
        shelf = self._shelves.get(version) if version.etag else None
        if shelf is None:
            shelf = Shelf(version, next(self._contents))
            if shelf.shared:
                self._shelves[version] = shelf
        shelf.readers += 1
        return shelf

    def close(self, shelf: Shelf) -> None:
        shelf.readers -= 1
        if shelf.readers == 0 and not shelf.shared:
            self._clear(shelf)
        self._tidy(shelf)

    def forget(self, key: ObjectKey) -> None:
        """Blocks of this key are not found any more; those in use go when they are no longer."""
        for shelf in [shelf for version, shelf in self._shelves.items() if version.key == key]:
            self._clear(shelf)
            self._tidy(shelf)

    def clear(self) -> None:
        for shelf in list(self._shelves.values()):
            self._clear(shelf)
        for block in [*self._ahead, *self._spent]:
            block.detached = True
            if block.pins == 0:
                self.drop(block)
        self._shelves.clear()

    def show(self, shelf: Shelf) -> int | None:
        """Publish the blocks of a version: those on the grid that are there, and those that come."""
        if self._published is None:
            return None
        shelf.shown += 1
        if shelf.shown == 1:
            for block in dict.fromkeys(shelf.grid.values()):
                self.publish(block)
        return shelf.content

    def conceal(self, shelf: Shelf) -> None:
        """The opposite, when nobody else wants it."""
        shelf.shown -= 1
        if shelf.shown == 0 and self._published is not None:
            self._published.retract_content(shelf.content)
            for block in shelf.grid.values():
                block.shown = False

    def publish(self, block: Block) -> None:
        """A block that may be there, of a version that may be shown."""
        if block.shelf.shown and block.on_grid and block.view is not None and self._published is not None:
            block.shown = self._published.publish_block(block.shelf.content, block.start, block.view)

    # --- blocks ---

    def place(self, block: Block) -> None:
        """A block that is about to be fetched: from now on it is found."""
        if block.on_grid:
            for index in _units(block):
                block.shelf.grid[index] = block

    def remove(self, block: Block) -> None:
        """A block is not found any more."""
        if block.shown and self._published is not None:
            block.shown = False
            self._published.retract_block(block.shelf.content, block.start)
        if block.on_grid:
            grid = block.shelf.grid
            for index in _units(block):
                if grid.get(index) is block:
                    del grid[index]
            self._tidy(block.shelf)

    def clip(self, shelf: Shelf, start: int, end: int) -> int:
        """Where a block from `start` must end so as not to overlap another."""
        for index in range(start // UNIT + 1, (end + UNIT - 1) // UNIT):
            if index in shelf.grid:
                return index * UNIT
        return end

    def arrange(self, block: Block) -> None:
        """Put a block that is there on the list it belongs to: after it came, or its users or pins changed."""
        if block.detached and not block.users and not block.pins:
            self.drop(block)
        elif block.users and block not in self._ahead:
            self._unlist(block)
            self._ahead[block] = None
            self.ahead_bytes += block.charge
        elif not block.users and block not in self._spent:
            self._unlist(block)
            self._spend(block)
        while self.spent_bytes > self._retained:
            oldest = next((spent for spent in self._spent if spent.pins == 0), None)
            if oldest is None:
                break
            self.drop(oldest)

    def demote(self, block: Block) -> None:
        """A block of a window that is not being read may go as if it were spent."""
        if block in self._ahead:
            self._unlist(block)
            self._spend(block)

    def touch(self, block: Block) -> None:
        """A spent block was read again."""
        if block in self._spent:
            self._spent.move_to_end(block)

    def drop(self, block: Block) -> None:
        """Give up a block that is there."""
        self._unlist(block)
        self.remove(block)
        block.view = None

    def evict(self, size: int, *, ahead: bool) -> int:
        """Give up at least `size` bytes of blocks that no read holds, spent ones first and others only if `ahead`;
        returns how many it were."""
        given = 0
        for blocks in (self._spent, self._ahead) if ahead else (self._spent,):
            victims = []
            for block in blocks:
                if given >= size:
                    break
                if block.pins == 0:
                    given += block.charge
                    victims.append(block)
            for block in victims:
                self.drop(block)
            self.evicted += len(victims)
        return given

    # --- private ---

    def _spend(self, block: Block) -> None:
        self._spent[block] = None
        self.spent_bytes += block.charge

    def _unlist(self, block: Block) -> None:
        if block in self._ahead:
            del self._ahead[block]
            self.ahead_bytes -= block.charge
        elif block in self._spent:
            del self._spent[block]
            self.spent_bytes -= block.charge

    def _clear(self, shelf: Shelf) -> None:
        for block in dict.fromkeys(shelf.grid.values()):
            block.detached = True
            if block.view is None or block.pins:
                self.remove(block)
            else:
                self.drop(block)

    def _tidy(self, shelf: Shelf) -> None:
        if shelf.readers == 0 and not shelf.grid and self._shelves.get(shelf.version) is shelf:
            del self._shelves[shelf.version]


def _units(block: Block) -> range:
    return range(block.start // UNIT, (block.end + UNIT - 1) // UNIT)
