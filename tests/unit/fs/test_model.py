"""Random programs and other clients against a model of what docs/semantics.md promises.

The model is the bucket as a dictionary and the files being written; everything the mount shows is derived from those
two after every step, so there is one definition of what is right. All timeouts are 0: nothing old may be seen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from csi.errors import (
    DirectoryNotEmpty,
    EntryExists,
    FileBusy,
    FilesystemError,
    InvalidOperation,
    IsADirectory,
    NoSuchEntry,
    NotADirectory,
    StaleFile,
)
from csi.fs.reports import FilesystemReport
from csi.fs.types import FileKind
from tests.support.filesystems import World
from tests.support.programs import WRITE, OpenedFile

PATHS = st.sampled_from(["a", "b", "a-", "a.b", "a/a", "a/b", "b/a", "a/b/a", "b/a/b"])
CONTENT = st.binary(min_size=1, max_size=5)
HIDDEN = st.sampled_from(["a//x", "a/./x", "b/../x"])


@dataclass
class Writing:
    content: bytes
    stored: bool
    file: OpenedFile | None = None
    path: str = ""
    removed: bool = False


@dataclass
class Looking:
    """A file open for reading, and what was in it when that was last seen."""

    file: OpenedFile
    seen: bytes


@dataclass
class Model:
    """`bucket`: every object; `writing`: files with an unfinished version, by path; `open`: all files that programs
    hold open for writing."""

    bucket: dict[str, bytes] = field(default_factory=dict)
    writing: dict[str, Writing] = field(default_factory=dict)
    open: list[Writing] = field(default_factory=list)

    def is_directory(self, path: str) -> bool:
        below = f"{path}/"
        return not path or any(key.startswith(below) for key in (*self.bucket, *self.writing))

    def is_file(self, path: str) -> bool:
        return path in self.writing or (path in self.bucket and not self.is_directory(path))

    def walk(self, path: str) -> None:
        """What resolving the directories of `path` raises."""
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            if self.is_directory(above):
                continue
            raise NotADirectory("") if self.is_file(above) else NoSuchEntry("")

    def require(self, path: str) -> None:
        self.walk(path)
        if not self.is_file(path) and not self.is_directory(path):
            raise NoSuchEntry("")

    def size(self, path: str) -> int:
        return len(self.content(path))

    def content(self, path: str) -> bytes:
        return self.writing[path].content if path in self.writing else self.bucket[path]

    def keep_parent(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent:
            self.bucket.setdefault(f"{parent}/", b"")

    def names(self, path: str) -> set[str]:
        below = f"{path}/" if path else ""
        found = {key[len(below) :].split("/")[0] for key in (*self.bucket, *self.writing) if key.startswith(below)}
        return found - {"", ".", ".."}

    # --- operations: each raises what the mount must raise, or changes the model ---

    def write(self, path: str, data: bytes) -> None:
        self.start(path)
        self.writing.pop(path, None)  # there is nothing in it: who writes is the one whose file it is
        self.bucket[path] = data

    def start(self, path: str) -> None:
        self.walk(path)
        if self.is_directory(path):
            raise IsADirectory("")
        if path in self.writing and self.size(path):
            raise FileBusy("")

    def append(self, path: str, data: bytes) -> None:
        self.start(path)
        before = b"" if self.writing.pop(path, None) else self.bucket.get(path, b"")
        self.bucket[path] = before + data

    def empty(self, path: str) -> None:
        self.require(path)
        if self.is_directory(path):
            raise IsADirectory("")
        if path in self.writing and self.size(path):
            raise FileBusy("")
        if path not in self.writing:
            self.bucket[path] = b""

    def unlink(self, path: str) -> None:
        self.require(path)
        if self.is_directory(path):
            raise IsADirectory("")
        draft = self.writing.pop(path, None)
        self.lose(path)
        if draft is None or draft.stored:
            self.keep_parent(path)
            self.bucket.pop(path, None)

    def lose(self, path: str) -> None:
        """Whoever has the file of this name open, has no name for it any more."""
        for held in self.open:
            held.removed = held.removed or held.path == path

    def mkdir(self, path: str) -> None:
        self.walk(path)
        if self.is_directory(path) or self.is_file(path):
            raise EntryExists("")
        self.bucket[f"{path}/"] = b""

    def rmdir(self, path: str) -> None:
        self.require(path)
        if not self.is_directory(path):
            raise NotADirectory("")
        self.require_empty(path)
        self.keep_parent(path)
        self.bucket.pop(f"{path}/", None)

    def require_empty(self, path: str) -> None:
        below = f"{path}/"
        if any(key.startswith(below) and key != below for key in (*self.bucket, *self.writing)):
            raise DirectoryNotEmpty("")

    def rename(self, old: str, new: str) -> None:
        self.walk(old)
        self.walk(new)
        self.require(old)
        if old == new:
            return
        directory = self.is_directory(old)
        if directory and new.startswith(f"{old}/"):
            raise InvalidOperation("")
        if self.is_directory(new):
            if not directory:
                raise IsADirectory("")
            self.require_empty(new)
        elif self.is_file(new) and directory:
            raise NotADirectory("")
        if not directory:
            self.writing.pop(new, None)
            self.lose(new)
        moves = (lambda key: key.startswith(f"{old}/")) if directory else (lambda key: key == old)
        for path in [path for path in self.writing if moves(path)]:
            self.bucket[path] = self.writing[path].content  # finished first; it goes on under the new name
            self.writing.pop(path).stored = True
        for held in self.open:
            if not held.removed and moves(held.path):
                held.path = new + held.path[len(old) :]
        self.keep_parent(old)
        for key in [key for key in self.bucket if moves(key)]:
            self.bucket[new + key[len(old) :]] = self.bucket.pop(key)


class MountMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = World("memory")
        self.program = self.world.mount(prefix="v/")
        self.model = Model()
        self.open = self.model.open
        self.looking: list[Looking] = []

    def teardown(self) -> None:
        if hasattr(self, "open"):
            for reader in self.looking:
                reader.file.close()
            for draft in list(self.open):
                self.close(draft)
            assert self.program.filesystem.statistics() == FilesystemReport(1, 0, 0, 0)
            self.world.close()

    # --- programs ---

    @rule(path=PATHS, data=CONTENT)
    def write(self, path: str, data: bytes) -> None:
        self.both(lambda: self.program.write(path, data), lambda: self.model.write(path, data))

    @rule(path=PATHS, data=CONTENT)
    def append(self, path: str, data: bytes) -> None:
        self.both(lambda: self.program.append(path, data), lambda: self.model.append(path, data))

    @rule(path=PATHS)
    def empty(self, path: str) -> None:
        self.both(lambda: self.program.truncate(path, 0), lambda: self.model.empty(path))

    @rule(path=PATHS)
    def unlink(self, path: str) -> None:
        self.both(lambda: self.program.unlink(path), lambda: self.model.unlink(path))

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        self.both(lambda: self.program.mkdir(path), lambda: self.model.mkdir(path))

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.both(lambda: self.program.rmdir(path), lambda: self.model.rmdir(path))

    @rule(old=PATHS, new=PATHS)
    def rename(self, old: str, new: str) -> None:
        self.both(lambda: self.program.rename(old, new), lambda: self.model.rename(old, new))

    # --- files that stay open ---

    @rule(path=PATHS)
    def start(self, path: str) -> None:
        file = self.both(lambda: self.program.open(path, WRITE), lambda: self.model.start(path))
        if file is not None:
            draft = Writing(b"", path in self.model.bucket, file, path)
            self.model.writing.setdefault(path, draft)
            self.open.append(draft)

    @precondition(lambda self: self.open)
    @rule(data=CONTENT, which=st.integers(0, 9))
    def continue_(self, data: bytes, which: int) -> None:
        draft = self.open[which % len(self.open)]
        current = self.model.writing.get(draft.path)
        if not draft.removed and current is not None and current is not draft:
            if current.content or draft.content:
                with pytest.raises(FileBusy):
                    draft.file.write(data)
                return
            draft.stored = current.stored
            self.model.writing[draft.path] = draft
        if not draft.removed and current is None:
            # finished by a rename or fsync: it goes on from there, if nobody changed it since
            if self.model.bucket.get(draft.path) != draft.content or self.model.is_directory(draft.path):
                return
            self.model.writing[draft.path] = draft
        draft.file.write(data)
        draft.content += data

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def fsync(self, which: int) -> None:
        draft = self.open[which % len(self.open)]
        draft.file.fsync()
        self.finished(draft)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def finish(self, which: int) -> None:
        self.close(self.open[which % len(self.open)])

    # --- files that stay open for reading ---

    @rule(path=PATHS, flags=st.sampled_from([os.O_RDONLY, os.O_RDWR, os.O_DIRECT]))
    def look(self, path: str, flags: int) -> None:
        try:
            self.model.walk(path)
        except FilesystemError:
            return
        if self.model.is_file(path) and not self.model.is_directory(path):
            file = self.program.open(path, flags)
            assert file.pread() == self.model.content(path)
            self.looking.append(Looking(file, self.model.content(path)))

    @precondition(lambda self: self.looking)
    @rule(which=st.integers(0, 9))
    def look_again(self, which: int) -> None:
        """Whatever became of it: nothing of another version, but what the file was continued by."""
        reader = self.looking[which % len(self.looking)]
        try:
            found = reader.file.pread()
        except (FileBusy, StaleFile):
            return
        if found:  # else it was emptied
            assert found.startswith(reader.seen)
            reader.seen = found

    # --- other clients: they leave alone what is being written here ---

    @rule(path=PATHS, data=CONTENT)
    def put_elsewhere(self, path: str, data: bytes) -> None:
        if not self.touches_open(path):
            self.world.store.seed(f"v/{path}", data)
            self.model.bucket[path] = data

    @rule(path=HIDDEN)
    def put_hidden_elsewhere(self, path: str) -> None:
        if not self.touches_open(path.split("/", maxsplit=1)[0]):
            self.world.store.seed(f"v/{path}", b"hidden")
            self.model.bucket[path] = b"hidden"

    @rule(path=PATHS)
    def delete_elsewhere(self, path: str) -> None:
        if path in self.model.bucket and not self.touches_open(path):
            del self.world.store.objects[f"v/{path}"]
            del self.model.bucket[path]

    # --- what must hold ---

    @invariant()
    def the_bucket_is_what_the_model_says(self) -> None:
        if hasattr(self, "world"):
            objects = {key.removeprefix("v/"): found.data for key, found in self.world.store.objects.items()}
            assert objects == self.model.bucket

    @invariant()
    def the_tree_is_what_the_model_says(self) -> None:
        if hasattr(self, "world"):
            self.compare("")

    def compare(self, path: str) -> None:
        assert self.program.list(path) == sorted(self.model.names(path)), path
        for raw, entry in self.program.entries(path):
            below = f"{path}/{raw.decode()}" if path else raw.decode()
            listed, looked_up = entry.attributes, self.program.stat(below)
            assert listed == looked_up
            if self.model.is_directory(below) and below not in self.model.writing:
                assert listed.kind is FileKind.DIRECTORY
                self.compare(below)
            else:
                assert (listed.kind, listed.size) == (FileKind.FILE, self.model.size(below))
                assert self.program.read(below) == self.model.content(below)

    # --- private ---

    def both(self, real, expected):
        """Run an operation on the mount and on the model; both must do it, or raise the same."""
        try:
            expected()
        except FilesystemError as error:
            try:
                real()
            except type(error):
                return None
            raise AssertionError(f"the mount did not raise {type(error).__name__}") from error
        return real()

    def touches_open(self, path: str) -> bool:
        """Whether a file that is open here is at, above or below `path`."""
        return any(
            draft.path == path or draft.path.startswith(f"{path}/") or path.startswith(f"{draft.path}/")
            for draft in self.open
            if not draft.removed
        )

    def finished(self, draft: Writing) -> None:
        if self.model.writing.get(draft.path) is draft:
            del self.model.writing[draft.path]
            self.model.bucket[draft.path] = draft.content
            draft.stored = True

    def close(self, draft: Writing) -> None:
        draft.file.close()
        self.finished(draft)
        self.open.remove(draft)


TestMount = MountMachine.TestCase
TestMount.settings = settings(
    max_examples=120,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
