"""Which operations wait for which; csi/fs/turns.py."""

from __future__ import annotations

import threading

import pytest

from csi.fs.turns import Gate


class Announcing(list):
    """The list of moves under way, telling when there is one."""

    def __init__(self, announced: threading.Event) -> None:
        super().__init__()
        self._announced = announced

    def append(self, move: tuple[str, ...]) -> None:
        super().append(move)
        self._announced.set()


class Attempt:
    """An operation on another thread: `asked` when it has come to the gate, `entered` when it is through; a move is
    `announced` when it keeps others out, which is before it is through."""

    def __init__(self, gate: Gate, kind: str, *paths: str) -> None:
        self.entered = threading.Event()
        self.asked = threading.Event()
        self.leave = threading.Event()
        self.announced = threading.Event()
        self._gate, self._kind, self._paths = gate, kind, paths
        if kind == "move" and not gate._moves:
            gate._moves = Announcing(self.announced)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _path(self) -> str:
        self.asked.set()
        return self._paths[0]

    def _run(self) -> None:
        with self._gate.change(self._path) if self._kind == "change" else self._gate.move(*self._paths):
            self.entered.set()
            assert self.leave.wait(30)

    def end(self) -> None:
        self.leave.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("path", ["d", "d/a", "d/a/b", "new", "new/x"])
def test_changes_in_a_directory_being_moved_wait(path: str) -> None:
    gate = Gate()
    with gate.move("d", "new"):
        attempt = Attempt(gate, "change", path)
        assert attempt.asked.wait(30)
        assert not attempt.entered.is_set()
    assert attempt.entered.wait(30)
    attempt.end()


@pytest.mark.parametrize("path", ["dd", "e/d", "", "newer/x"])
def test_changes_elsewhere_go_through(path: str) -> None:
    gate = Gate()
    with gate.move("d", "new"):
        attempt = Attempt(gate, "change", path)
        assert attempt.entered.wait(30)
        attempt.end()


def test_changes_of_one_name_go_side_by_side() -> None:
    gate = Gate()
    with gate.change(lambda: "a"):
        attempt = Attempt(gate, "change", "a")
        assert attempt.entered.wait(30)
        attempt.end()


def test_a_move_waits_for_changes_below_it_and_lets_no_more_in() -> None:
    gate = Gate()
    first = Attempt(gate, "change", "d/a")
    assert first.entered.wait(30)
    move = Attempt(gate, "move", "d", "e")
    assert move.announced.wait(30)
    late = Attempt(gate, "change", "d/b")
    assert late.asked.wait(30)
    assert not move.entered.is_set()
    first.end()
    assert move.entered.wait(30)
    assert not late.entered.is_set()
    move.end()
    assert late.entered.wait(30)
    late.end()


@pytest.mark.parametrize(("one", "other"), [(("d", "e"), ("d/x", "f")), (("a", "b"), ("b", "a"))])
def test_moves_that_overlap_go_one_after_the_other(one: tuple[str, str], other: tuple[str, str]) -> None:
    gate = Gate()
    with gate.move(*one):
        attempt = Attempt(gate, "move", *other)
        assert gate._moves == [one]
        assert not attempt.entered.is_set()
    assert attempt.entered.wait(30)
    attempt.end()


def test_a_change_that_waited_is_told_its_new_path() -> None:
    gate = Gate()
    paths = iter(["d/a", "e/a", "e/a"])
    asked = threading.Event()
    entered: list[str] = []

    def path() -> str:
        asked.set()
        return next(paths)

    def change() -> None:
        with gate.change(path) as entered_at:
            entered.append(entered_at)

    with gate.move("d", "other"):
        thread = threading.Thread(target=change)
        thread.start()
        assert asked.wait(30)
    thread.join(30)
    assert entered == ["e/a"]
