"""Many programs at once: nothing deadlocks, nothing is lost, nothing is left."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from typing import Any

from csi.errors import FilesystemError, StoreError
from csi.fs.types import ROOT_INODE, Entry
from tests.support.filesystems import World
from tests.support.programs import WRITE, Program


def together(*programs: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def run(program: Callable[[], None]) -> None:
        try:
            program()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(program,), daemon=True) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a program hangs"
    if failures:
        raise failures[0]


def test_writers_of_different_files_do_not_disturb_each_other(world: World, consistent: Program) -> None:
    consistent.mkdir("d")

    def writer(number: int) -> None:
        for round_ in range(10):
            consistent.write(f"d/{number}-{round_}", bytes([number]) * 1000)

    together(*[lambda number=number: writer(number) for number in range(8)])
    assert {key: found.data for key, found in world.store.objects.items() if key != "d/"} == {
        f"d/{number}-{round_}": bytes([number]) * 1000 for number in range(8) for round_ in range(10)
    }


def test_files_written_while_their_directory_moves_to_and_fro_are_all_there(world: World, consistent: Program) -> None:
    """Programs in the directory hold it as a working directory does: by inode, whatever its name is."""
    consistent.mkdir("d")
    with consistent.walk("d") as inode:
        filesystem = consistent.filesystem

        def writer(number: int) -> None:
            for round_ in range(15):
                entry, opened = filesystem.create(inode, b"%d-%d" % (number, round_), 0o644, WRITE)
                filesystem.write(opened.handle, 0, b"one ")
                filesystem.fsync(opened.handle)
                filesystem.write(opened.handle, 4, b"two")
                filesystem.flush(opened.handle)
                filesystem.release(opened.handle)
                filesystem.forget(entry.attributes.inode, 1)

        def mover() -> None:
            for _ in range(6):
                consistent.rename("d", "e")
                consistent.rename("e", "d")

        together(*[lambda number=number: writer(number) for number in range(4)], mover)
    expected = {f"d/{number}-{round_}": b"one two" for number in range(4) for round_ in range(15)}
    assert {key: found.data for key, found in world.store.objects.items()} == {"d/": b"", **expected}


def test_programs_that_do_anything_anywhere_neither_hang_nor_leave_anything_behind(
    world: World, consistent: Program
) -> None:
    names = ["a", "b", "d", "d/a", "d/b", "e", "e/a"]

    def anything(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(120):
            path, other = dice.choice(names), dice.choice(names)
            operation = dice.choice(
                [
                    lambda path=path: consistent.write(path, b"data"),
                    lambda path=path: consistent.append(path, b"more"),
                    lambda path=path: consistent.read(path),
                    lambda path=path: consistent.mkdir(path),
                    lambda path=path: consistent.rmdir(path),
                    lambda path=path: consistent.unlink(path),
                    lambda path=path, other=other: consistent.rename(path, other),
                    lambda path=path: consistent.list(path),
                    lambda path=path: consistent.truncate(path, 0),
                ]
            )
            # what one program takes away the other misses; that is what errors are for
            with contextlib.suppress(FilesystemError, StoreError):
                operation()

    together(*[lambda seed=seed: anything(seed) for seed in range(6)])
    tree = {key for key in world.store.objects if not key.endswith("/")}
    for key in tree:
        assert consistent.exists(key)


def test_an_inode_is_counted_before_another_thread_can_forget_it(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x")
    filesystem = consistent.filesystem
    inode = filesystem.lookup(ROOT_INODE, b"a").attributes.inode
    knowledge = filesystem._namespace.knowledge
    tell = knowledge.tell

    def tell_late(*arguments: Any, **options: Any) -> Entry:
        knowledge.tell = tell
        filesystem.forget(inode, 1)  # what the kernel was told first
        return tell(*arguments, **options)

    knowledge.tell = tell_late
    assert filesystem.lookup(ROOT_INODE, b"a").attributes.inode == inode
    assert filesystem.getattr(inode).attributes.size == 1
    filesystem.forget(inode, 1)
