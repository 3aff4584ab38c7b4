from __future__ import annotations

from csi.handover.wire import Answer
from csi.sidecar.openers import PATIENCE, AskedOpeners


class Asked:
    def __init__(self, answer):
        self.answer = answer

    def wait(self, timeout):
        assert timeout == PATIENCE
        return self.answer


class Informant:
    """Answers with what `knows` has for a question; None is no answer, and what is not there cannot be asked."""

    def __init__(self, knows, seen=None):
        self.knows = knows
        self.questions = []
        self.seen = {} if seen is None else seen

    def is_ending(self, process, started):
        return self.seen.get((process, started))

    def ask(self, pid, started, inode=0):
        if inode:
            return Asked(Answer(3, holds=inode == 5))
        self.questions.append((pid, started))
        return Asked(self.knows[pid, started]) if (pid, started) in self.knows else None


PROCESS = {(8, 0): Answer(1, 7, 99)}


def test_the_process_of_the_thread_that_opened_is_asked_about():
    informant = Informant({**PROCESS, (7, 99): Answer(2, killed=True)})
    opener = AskedOpeners(informant).opener(8)
    assert informant.questions == [(8, 0)]
    assert not opener.is_killed()
    opener.identify()
    assert opener.is_killed()
    assert opener.is_killed()
    assert informant.questions == [(8, 0), (7, 99), (7, 99)]


def test_nobody_is_killed_of_whom_nothing_is_known():
    for knows in (
        {**PROCESS, (7, 99): Answer(2)},
        {**PROCESS, (7, 99): None},
        PROCESS,
        {(8, 0): None},
        {(8, 0): Answer(1)},
    ):
        opener = AskedOpeners(Informant(knows)).opener(8)
        opener.identify()
        assert not opener.is_killed()


def test_there_is_no_opener_without_a_pid_or_anybody_to_ask():
    informant = Informant({})
    assert AskedOpeners(informant).opener(0) is None
    assert informant.questions == []
    assert AskedOpeners(informant).opener(8) is None


def test_any_process_is_asked_about_for_those_that_share():
    for answer, killed in ((Answer(2, killed=True), True), (Answer(2), False), (None, False)):
        assert AskedOpeners(Informant({**PROCESS, (0, 0): answer})).opener(8).sharer_is_killed() is killed


def test_whether_the_process_still_holds_the_file_is_asked():
    opener = AskedOpeners(Informant(PROCESS)).opener(8)
    assert not opener.holds(5)
    opener.identify()
    assert opener.holds(5)
    assert not opener.holds(6)


def test_a_thread_that_opens_file_after_file_is_asked_about_once_a_second():
    now = [100.0]
    informant = Informant({**PROCESS, (7, 99): Answer(2, killed=True)})
    openers = AskedOpeners(informant, lambda: now[0])
    openers.opener(8).identify()
    now[0] += 0.9
    second = openers.opener(8)
    second.identify()
    assert informant.questions == [(8, 0)]
    assert second.is_killed()
    now[0] += 0.2
    openers.opener(8).identify()
    assert informant.questions == [(8, 0), (7, 99), (8, 0)]


def test_of_a_process_that_is_seen_to_live_nobody_is_asked():
    seen = {(7, 99): False}
    informant = Informant({**PROCESS, (7, 99): Answer(2, killed=True)}, seen)
    opener = AskedOpeners(informant).opener(8)
    opener.identify()
    assert not opener.is_killed()
    assert informant.questions == [(8, 0)]
    seen[7, 99] = True  # it is exiting: by a signal or not, that is for who may know
    assert opener.is_killed()
    del seen[7, 99]  # it is not seen from here
    assert opener.is_killed()


def test_the_first_thread_of_a_process_that_is_seen_to_live_is_asked_about_once():
    now = [100.0]
    seen = {(7, 99): False}
    informant = Informant({(7, 0): Answer(1, 7, 99), (8, 0): Answer(1, 7, 99), (7, 99): Answer(2, killed=True)}, seen)
    openers = AskedOpeners(informant, lambda: now[0])
    for pid in (7, 8):
        openers.opener(pid).identify()
    now[0] += 3600.0
    again = openers.opener(7)
    again.identify()
    assert informant.questions == [(7, 0), (8, 0)]
    openers.opener(8).identify()  # the number of a thread may be another's by now
    assert informant.questions == [(7, 0), (8, 0), (8, 0)]
    seen[7, 99] = True
    assert again.is_killed()
    openers.opener(7)
    assert informant.questions[-1] == (7, 0)
