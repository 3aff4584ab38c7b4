"""open(2) and O_CREAT: which node, by which program, as what.

Whether a file may be opened is decided in `csi/fs/files.py`; here the name is found or made, and the program that is
going to write is identified while it is sure to be there.
"""

from __future__ import annotations

import os

from csi.errors import EntryExists, InvalidOperation, IsADirectory
from csi.fs.files import Files
from csi.fs.names import check_new, join, shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.openers import Opener, Openers
from csi.fs.types import Caller, Entry, FileKind, OpenFile


class Opening:
    def __init__(self, namespace: Namespace, files: Files, openers: Openers | None) -> None:
        self._namespace = namespace
        self._table = namespace.table
        self._files = files
        self._openers = openers

    def open(self, node: Node, flags: int, caller: Caller | None) -> OpenFile:
        """Raises IsADirectory, InvalidOperation (a symbolic link) and what `Files.open` raises."""
        if node.is_directory:
            raise IsADirectory(f"{shown(node.name)} is a directory")
        if node.kind is FileKind.SYMLINK:
            raise InvalidOperation(f"{shown(node.name)} is a symbolic link")
        opener = self._opener(flags, caller)
        opened = self._files.open(node, flags, opener)
        if opener is not None:
            opener.identify()  # it was asked for before, and what comes from OSS took longer
        return opened

    def open_cached(self, node: Node, flags: int) -> OpenFile | None:
        """`open` for reading from what is known, else None."""
        return None if node.kind is not FileKind.FILE else self._files.open_cached(node, flags)

    def create(self, directory: Node, name: bytes, flags: int, caller: Caller | None) -> tuple[Entry, OpenFile]:
        """A name that is there already is opened as it is. Raises EntryExists (O_EXCL)."""
        knowledge = self._namespace.knowledge
        check_new(self._table.prefix, join(self._table.path(directory), name), name)
        with self._namespace.held(directory, name) as node:
            if node is not None:
                if flags & os.O_EXCL:
                    raise EntryExists(f"{shown(name)} exists")
                opened = self.open(node, flags, caller)
                return knowledge.tell(node, count=True), opened
        node = knowledge.made(directory, name, FileKind.FILE)
        opener = self._opener(flags, caller)
        try:
            opened = self._files.create(node, flags, opener)
        except BaseException:
            self._table.forget(node.inode, 1)
            raise
        if opener is not None:
            opener.identify()
        return knowledge.tell(node), opened

    def _opener(self, flags: int, caller: Caller | None) -> Opener | None:
        if self._openers is None or caller is None or flags & os.O_ACCMODE == os.O_RDONLY:
            return None
        return self._openers.opener(caller.pid)
