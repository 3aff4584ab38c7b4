"""Asking the node plugin to register files: what it answers, answers late, or not at all."""

from __future__ import annotations

import errno
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csi.handover.channel import Channel
from csi.handover.wire import Message, Register, Registered, Unregister
from csi.sidecar.passing import Passing
from csi.volume.units import Seconds
from tests.support.descriptors import open_files

SOON = Seconds(10.0)
AT_ONCE = Seconds(0.01)


class NodePlugin:
    """The other end of a connection, played by the test."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._theirs, self.ours = Channel(theirs), Channel(ours)

    def hear(self) -> Message:
        """The next request; what came with it is the device, and the file of one that registers."""
        received = self._theirs.receive(SOON)
        assert received is not None
        names = [os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in received.descriptors]
        received.close()
        assert names[0] == "/dev/null"
        assert [Path(name).name for name in names[1:]] == (["block"] if isinstance(received.message, Register) else [])
        return received.message

    def hear_nothing(self) -> bool:
        try:
            self._theirs.receive(Seconds(0.05))
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._theirs.close()
        self.ours.close()


class Sidecar:
    def __init__(self, directory: Path) -> None:
        self.plugins: list[NodePlugin] = []
        self.passing = Passing(SOON)
        (directory / "block").touch()
        self.device, self.file = os.open("/dev/null", os.O_RDWR), os.open(directory / "block", os.O_RDONLY)
        self.passing.files(self.device)

    def plugin(self) -> NodePlugin:
        """One more that registers files."""
        self.plugins.append(NodePlugin())
        self.passing.begin(self.plugins[-1].ours)
        return self.plugins[-1]

    def registering(self) -> queue.Queue[int | OSError]:
        """What `register` returns or raises, once it does."""
        answers: queue.Queue[int | OSError] = queue.Queue()

        def register() -> None:
            try:
                answers.put(self.passing.register(self.file))
            except OSError as error:
                answers.put(error)

        threading.Thread(target=register, daemon=True).start()
        return answers

    def impatient(self) -> None:
        self.passing._patience = AT_ONCE

    def close(self) -> None:
        self.passing.close()
        for plugin in self.plugins:
            plugin.close()
        os.close(self.device)
        os.close(self.file)


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    before = open_files()
    sidecar = Sidecar(tmp_path)
    yield sidecar
    sidecar.close()
    assert open_files() == before


def test_a_file_is_registered_and_given_back(sidecar: Sidecar) -> None:
    plugin, answer = sidecar.plugin(), sidecar.registering()
    assert plugin.hear() == Register(1)
    sidecar.passing.answered(Registered(1, number=7))
    assert answer.get(timeout=SOON) == 7
    sidecar.passing.unregister(7)
    assert plugin.hear() == Unregister(2, 7)


def test_what_is_refused_is_an_error_with_its_errno(sidecar: Sidecar) -> None:
    plugin, answer = sidecar.plugin(), sidecar.registering()
    plugin.hear()
    sidecar.passing.answered(Registered(1, error=errno.ELOOP))
    error = answer.get(timeout=SOON)
    assert isinstance(error, OSError)
    assert error.errno == errno.ELOOP


def test_one_thing_is_asked_at_a_time_and_first_what_somebody_waits_for(sidecar: Sidecar) -> None:
    plugin = sidecar.plugin()
    sidecar.passing.unregister(1)
    sidecar.passing.unregister(2)
    answer = sidecar.registering()
    assert plugin.hear() == Unregister(1, 1)
    assert plugin.hear_nothing()
    _until_waited_for(sidecar.passing, 1)
    sidecar.passing.answered(Registered(1))
    assert plugin.hear() == Register(2)
    sidecar.passing.answered(Registered(2, 9))
    assert plugin.hear() == Unregister(3, 2)
    assert answer.get(timeout=SOON) == 9


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda _sidecar: None, id="no node plugin said that it registers files"),
        pytest.param(lambda sidecar: (sidecar.plugin(), sidecar.passing.end()), id="it is gone"),
        pytest.param(lambda sidecar: (sidecar.plugin(), sidecar.passing.close()), id="the session is over"),
    ],
)
def test_where_nobody_registers_files_none_is_and_nobody_waits(
    sidecar: Sidecar, prepare: Callable[[Sidecar], object]
) -> None:
    prepare(sidecar)
    assert sidecar.passing.register(sidecar.file) == 0


def test_whether_there_is_anybody(sidecar: Sidecar) -> None:
    assert not sidecar.passing.is_there()
    sidecar.plugin()
    assert sidecar.passing.is_there()


# --- late, or never ---


def test_a_number_that_comes_too_late_is_given_back_and_files_are_registered_again(sidecar: Sidecar) -> None:
    plugin = sidecar.plugin()
    sidecar.impatient()
    assert sidecar.passing.register(sidecar.file) == 0
    assert plugin.hear() == Register(1)
    sidecar.passing.answered(Registered(1, number=7))
    assert plugin.hear() == Unregister(2, 7)
    sidecar.passing.answered(Registered(2))
    sidecar.passing.register(sidecar.file)
    assert plugin.hear() == Register(3)


def test_a_silent_node_plugin_costs_one_wait_and_one_line(sidecar: Sidecar, caplog: pytest.LogCaptureFixture) -> None:
    plugin = sidecar.plugin()
    sidecar.impatient()
    assert sidecar.passing.register(sidecar.file) == 0
    sidecar.passing._patience = Seconds(1e6)
    assert [sidecar.passing.register(sidecar.file) for _ in range(3)] == [0, 0, 0]
    assert plugin.hear() == Register(1)
    assert plugin.hear_nothing()
    assert [record.message for record in caplog.records] == [
        "the node plugin does not answer: files of the disk cache are read through this sidecar"
    ]


def test_one_that_is_silent_about_what_nobody_waits_for_costs_one_wait_too(sidecar: Sidecar) -> None:
    plugin = sidecar.plugin()
    sidecar.passing.unregister(1)
    sidecar.impatient()
    assert sidecar.passing.register(sidecar.file) == 0
    sidecar.passing._patience = Seconds(1e6)
    assert sidecar.passing.register(sidecar.file) == 0
    assert plugin.hear() == Unregister(1, 1)
    assert plugin.hear_nothing()


def test_who_waits_behind_a_silent_one_does_not_wait_for_itself(sidecar: Sidecar) -> None:
    sidecar.plugin()
    sidecar.passing.unregister(1)
    behind = sidecar.registering()
    _until_waited_for(sidecar.passing, 1)
    sidecar.impatient()
    assert sidecar.passing.register(sidecar.file) == 0
    assert behind.get(timeout=Seconds(SOON / 2)) == 0


# --- gone, and back ---


def test_nobody_waits_for_the_answer_of_a_node_plugin_that_is_gone(sidecar: Sidecar) -> None:
    plugin, answer = sidecar.plugin(), sidecar.registering()
    plugin.hear()
    waiting = sidecar.registering()
    _until_waited_for(sidecar.passing, 1)
    sidecar.passing.end()
    assert (answer.get(timeout=SOON), waiting.get(timeout=SOON)) == (0, 0)


def test_what_was_to_be_given_back_meanwhile_is_given_back_to_the_next_one(sidecar: Sidecar) -> None:
    first = sidecar.plugin()
    sidecar.passing.unregister(1)
    assert first.hear() == Unregister(1, 1)
    sidecar.passing.end()  # whether it was done is not known
    sidecar.passing.unregister(2)
    second = sidecar.plugin()
    assert second.hear() == Unregister(2, 1)
    sidecar.passing.answered(Registered(2, error=errno.ENOENT))
    assert second.hear() == Unregister(3, 2)


def test_an_answer_of_an_earlier_connection_is_nobodys(sidecar: Sidecar) -> None:
    first = sidecar.plugin()
    sidecar.impatient()
    sidecar.passing.register(sidecar.file)
    assert first.hear() == Register(1)
    sidecar.passing.end()
    second = sidecar.plugin()
    sidecar.passing._patience = SOON
    answer = sidecar.registering()
    assert second.hear() == Register(2)
    sidecar.passing.answered(Registered(1, number=7))
    sidecar.passing.answered(Registered(2, number=8))
    assert answer.get(timeout=SOON) == 8


def test_a_connection_that_breaks_while_it_is_used_is_like_one_that_is_gone(sidecar: Sidecar) -> None:
    sidecar.plugin().close()
    assert sidecar.passing.register(sidecar.file) == 0
    sidecar.passing.unregister(3)
    assert sidecar.plugin().hear() == Unregister(2, 3)


def _until_waited_for(passing: Passing, count: int) -> None:
    for _ in range(1000):
        if len(passing._waiting) == count:
            return
        threading.Event().wait(0.01)
    raise AssertionError("nobody waits")
