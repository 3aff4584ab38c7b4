"""How long an answer is waited for, by a clock of the test's own."""

from __future__ import annotations

import pytest

from csi.handover.wire import Answer
from csi.sidecar.questions import ABSENCE, Questions
from csi.volume.units import Seconds

PATIENCE = Seconds(5.0)


class Plugin:
    """A channel to a node plugin that says nothing; `gone`: it cannot be sent to."""

    def __init__(self):
        self.heard = []
        self.gone = False

    def send(self, question, *, timeout):
        assert timeout == 0.0
        if self.gone:
            raise BrokenPipeError
        self.heard.append(question.pid)


class Clock:
    """Each look at it takes `pace`."""

    def __init__(self):
        self.now = 1000.0
        self.pace = 0.0

    def __call__(self):
        self.now += self.pace
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def questions(clock):
    return Questions(clock)


def test_nobody_is_waited_for_who_has_never_been_there(questions):
    assert questions.ask(7, 0) is None
    questions.end()
    assert questions.ask(7, 0) is None


def test_a_node_plugin_that_is_away_is_waited_for_from_when_it_went(questions, clock):
    questions.begin(Plugin())
    questions.end()
    back_by = clock.now + ABSENCE
    clock.now, clock.pace = back_by - 0.1, 0.03
    asked = questions.ask(7, 0)
    assert asked.wait(PATIENCE) is None
    assert clock.now >= back_by
    assert questions.ask(8, 0) is None


def test_a_question_that_met_the_end_of_the_connection_is_asked_again(questions):
    plugin, successor = Plugin(), Plugin()
    questions.begin(plugin)
    plugin.gone = True
    asked = questions.ask(7, 0)
    questions.end()
    questions.begin(successor)
    assert successor.heard == [7]
    questions.answered(Answer(1, 70, 700))
    assert asked.wait(PATIENCE) == Answer(1, 70, 700)


def test_a_successor_has_as_much_time_as_anybody(questions, clock):
    questions.begin(Plugin())
    asked = questions.ask(7, 0)
    clock.now += PATIENCE - 0.1
    questions.end()
    clock.now += ABSENCE - 0.1
    questions.begin(Plugin())
    patient_until = clock.now + PATIENCE
    clock.now, clock.pace = patient_until - 0.1, 0.03
    assert asked.wait(PATIENCE) is None
    assert clock.now >= patient_until
    assert questions.ask(8, 0) is None  # it is silent


def test_an_absence_is_not_silence(questions, clock):
    questions.begin(Plugin())
    questions.end()
    asked = questions.ask(7, 0)
    clock.now += ABSENCE
    assert asked.wait(PATIENCE) is None
    successor = Plugin()
    questions.begin(successor)
    assert successor.heard == []
    assert questions.ask(8, 0) is not None
    assert successor.heard == [8]
