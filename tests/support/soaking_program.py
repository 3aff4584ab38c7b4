"""A program that works in a directory of its own on a mount in consistent mode and compares everything with a model.

`python -m tests.support.soaking_program DIRECTORY SEED OPERATIONS`. The model is docs/semantics.md: files are byte
strings, directories exist until they are removed, errors are those of the tables. It prints what did not agree, one
line each, and last `done COUNT`.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable

SIZES = (0, 1, 4095, 4096, 70_000, 300_000, 1_300_000)


class Soak:
    """`files` maps paths to contents, `directories` are paths; both below `root`, which is ''."""

    def __init__(self, root: str, seed: str) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.files: dict[str, bytes] = {}
        self.directories = {""}
        self.disagreements = 0

    def step(self) -> None:
        actions = [self.create, self.append, self.read, self.read, self.listing, self.rename, self.unlink]
        actions += [self.make_directory, self.remove_directory, self.rename_directory, self.exclusive, self.state]
        self.random.choice(actions)()

    # --- actions: each does one thing to the mount and to the model, and compares ---

    def create(self) -> None:
        path, data = self.any_path(), self.bytes()
        wanted = self.refusal_of_writing(path)
        if self.agree(f"create {path}", wanted, lambda: self.write(path, os.O_TRUNC, data)):
            self.files[path] = data

    def append(self) -> None:
        path, data = self.any_path(), self.bytes()
        wanted = self.refusal_of_writing(path)
        if self.agree(f"append {path}", wanted, lambda: self.write(path, os.O_APPEND, data)):
            self.files[path] = self.files.get(path, b"") + data

    def exclusive(self) -> None:
        path, data = self.any_path(), self.bytes()
        wanted = errno.EEXIST if self.is_there(path) else self.refusal_of_writing(path)
        if self.agree(f"exclusive {path}", wanted, lambda: self.write(path, os.O_EXCL, data)):
            self.files[path] = data

    def read(self) -> None:
        path = self.any_path()
        wanted = 0 if path in self.files else errno.EISDIR if path in self.directories else errno.ENOENT
        found: list[bytes] = []
        if self.agree(f"read {path}", wanted, lambda: found.append(self.slurp(path))):
            self.same(f"content of {path}", found[0], self.files[path])

    def state(self) -> None:
        path = self.any_path()
        found: list[os.stat_result] = []
        wanted = 0 if self.is_there(path) else errno.ENOENT
        if self.agree(f"stat {path}", wanted, lambda: found.append(os.stat(self.at(path)))) and path in self.files:
            self.same(f"size of {path}", found[0].st_size, len(self.files[path]))

    def listing(self) -> None:
        path = self.random.choice(sorted(self.directories))
        found: list[list[str]] = []
        if self.agree(f"list {path}", 0, lambda: found.append(os.listdir(self.at(path)))):
            below = [name for name in (*self.files, *self.directories) if name and self.parent(name) == path]
            self.same(f"names in {path}", sorted(found[0]), sorted(name.rpartition("/")[2] for name in below))

    def rename(self) -> None:
        if not self.files:
            return
        old, new = self.random.choice(sorted(self.files)), self.any_path()
        wanted = (
            errno.EISDIR if new in self.directories else 0 if self.parent(new) in self.directories else errno.ENOENT
        )
        if old.startswith(new + "/"):
            wanted = errno.ENOTEMPTY  # onto a directory above it: the kernel's own answer
        if self.agree(f"rename {old} {new}", wanted, lambda: os.rename(self.at(old), self.at(new))):
            self.files[new] = self.files.pop(old) if new != old else self.files[old]

    def unlink(self) -> None:
        path = self.any_path()
        wanted = 0 if path in self.files else errno.EISDIR if path in self.directories else errno.ENOENT
        if self.agree(f"unlink {path}", wanted, lambda: os.unlink(self.at(path))):
            del self.files[path]

    def make_directory(self) -> None:
        path = self.any_path()
        wanted = errno.EEXIST if self.is_there(path) else 0 if self.parent(path) in self.directories else errno.ENOENT
        if self.agree(f"mkdir {path}", wanted, lambda: os.mkdir(self.at(path))):
            self.directories.add(path)

    def remove_directory(self) -> None:
        path = self.any_path()
        wanted = errno.ENOTDIR if path in self.files else 0 if path in self.directories else errno.ENOENT
        if wanted == 0 and any(self.parent(name) == path for name in (*self.files, *self.directories) if name):
            wanted = errno.ENOTEMPTY
        if self.agree(f"rmdir {path}", wanted, lambda: os.rmdir(self.at(path))):
            self.directories.discard(path)

    def rename_directory(self) -> None:
        movable = sorted(self.directories - {""})
        if not movable:
            return
        old, new = self.random.choice(movable), f"moved-{self.random.randrange(4)}"
        if self.is_there(new) or new == old:
            return
        if self.agree(f"rename {old} {new}", 0, lambda: os.rename(self.at(old), self.at(new))):
            self.files = {self.moved(path, old, new): data for path, data in self.files.items()}
            self.directories = {self.moved(path, old, new) for path in self.directories}

    # --- their parts ---

    def any_path(self) -> str:
        above = self.random.choice(sorted(self.directories))
        name = self.random.choice("abcd")
        return f"{above}/{name}" if above else name

    def bytes(self) -> bytes:
        return self.random.randbytes(16) * (self.random.choice(SIZES) // 16 + 1)

    def at(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def is_there(self, path: str) -> bool:
        return path in self.files or path in self.directories

    def parent(self, path: str) -> str:
        return path.rpartition("/")[0]

    def moved(self, path: str, old: str, new: str) -> str:
        return new + path[len(old) :] if path == old or path.startswith(old + "/") else path

    def refusal_of_writing(self, path: str) -> int:
        return (
            errno.EISDIR if path in self.directories else 0 if self.parent(path) in self.directories else errno.ENOENT
        )

    def write(self, path: str, flags: int, data: bytes) -> None:
        descriptor = os.open(self.at(path), os.O_WRONLY | os.O_CREAT | flags)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view[:100_000]) :]
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)

    def slurp(self, path: str) -> bytes:
        with open(self.at(path), "rb", buffering=0) as file:
            return file.read()

    def agree(self, what: str, wanted: int, act: Callable[[], object]) -> bool:
        """Whether the action succeeded, as it should; 0 is success."""
        found = 0
        try:
            act()
        except OSError as error:
            found = error.errno or -1
        self.same(f"result of {what}", errno.errorcode.get(found, found), errno.errorcode.get(wanted, wanted))
        return found == wanted == 0

    def same(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.disagreements += 1
            print(f"{what}: {str(found)[:80]} instead of {str(wanted)[:80]}", flush=True)


def main(root: str, seed: str, operations: str) -> None:
    os.mkdir(root)
    soak = Soak(root, seed)
    for _ in range(int(operations)):
        soak.step()
        if soak.disagreements:
            break
    print(f"done {operations}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
