from __future__ import annotations

import math
import os
import queue
import select
import threading

import pytest

from csi.errors import ProtocolError, SidecarFailed
from csi.handover.listener import SidecarListener
from csi.handover.wire import (
    Answer,
    Answering,
    Bye,
    Drain,
    Hello,
    Heritage,
    Identified,
    Keeping,
    Mount,
    Passing,
    Question,
    Ready,
    Register,
    Registered,
    Session,
    Unregister,
)
from csi.sidecar.node_link import NodeLink
from csi.volume.units import Seconds
from tests.support.fake_kernel import FakeKernel

MOUNT = Mount(1, "vol", "hash", "{}", False, "credentials", 1 << 28, 1.0)
SOON = Seconds(10.0)


class NodePlugin:
    """The other end of the socket, played by the test."""

    def __init__(self, directory):
        self.directory = directory
        self.listener = None
        self.channels = []

    def listen(self):
        self.listener = SidecarListener(self.directory, "s", uid=os.getuid(), gid=os.getgid(), kernel=FakeKernel())

    def accept(self):
        assert select.select([self.listener], [], [], SOON)[0]
        channel = self.listener.accept()
        self.channels.append(channel)
        return channel

    def offer(self, *first):
        channel = self.accept()
        hello = channel.receive(SOON).message
        for message in first:
            channel.send(message)
        null = os.open("/dev/null", os.O_RDWR)
        channel.send(MOUNT, (null,))
        os.close(null)
        return channel, hello

    def close(self):
        for channel in self.channels:
            channel.close()
        if self.listener is not None:
            self.listener.close()


@pytest.fixture
def plugin(tmp_path):
    plugin = NodePlugin(tmp_path)
    plugin.listen()
    yield plugin
    plugin.close()


@pytest.fixture
def link(tmp_path):
    directory = os.open(tmp_path, os.O_PATH)
    link = NodeLink(directory, "s")
    yield link
    link.close()
    link.close()
    os.close(directory)


def in_background(function, *arguments):
    answers = queue.Queue()

    def run():
        try:
            answers.put(function(*arguments))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=run, daemon=True).start()
    return answers


def take(link, plugin):
    answers = in_background(link.take_volume, SOON)
    channel, hello = plugin.offer()
    volume, descriptor = answers.get(timeout=SOON)
    os.close(descriptor)
    return channel, hello, volume


def test_the_volume_is_taken_with_its_descriptor(link, plugin):
    _, hello, volume = take(link, plugin)
    assert hello == Hello(1, os.getpid(), asks=True, chooses=True, passes=True, watches=True)
    assert volume == MOUNT


def test_what_is_to_serve_the_volume_comes_before_it(link, plugin):
    answers = in_background(link.take_volume, SOON)
    plugin.offer(Session("pyfuse3"))
    _, descriptor = answers.get(timeout=SOON)
    os.close(descriptor)
    assert link.session == "pyfuse3"


def test_what_a_node_plugin_said_that_had_no_volume_is_forgotten(link, plugin):
    answers = in_background(link.take_volume, SOON)
    gone = plugin.accept()
    gone.send(Session("pyfuse3"))
    gone.close()
    plugin.offer()
    _, descriptor = answers.get(timeout=SOON)
    os.close(descriptor)
    assert link.session == ""


def test_a_socket_that_appears_later_is_waited_for(link, plugin):
    plugin.listener.close()
    answers = in_background(link.take_volume, SOON)
    with pytest.raises(queue.Empty):
        answers.get(timeout=0.1)
    plugin.listen()
    plugin.offer()
    volume, descriptor = answers.get(timeout=SOON)
    os.close(descriptor)
    assert volume == MOUNT


def test_nobody_there_within_the_patience_is_an_error(link):
    with pytest.raises(SidecarFailed, match="offered no volume"):
        link.take_volume(Seconds(0.05))


def test_a_refusal_and_nonsense_are_errors(link, plugin):
    for answer, error in (
        (lambda channel: channel.send(Bye(reason="occupied")), SidecarFailed),
        (lambda channel: channel.send(Ready()), ProtocolError),
    ):
        answers = in_background(link.take_volume, SOON)
        channel = plugin.accept()
        channel.receive(SOON)
        answer(channel)
        assert isinstance(answers.get(timeout=SOON), error)


def test_a_node_plugin_that_goes_away_without_a_word_is_waited_for(link, plugin):
    answers = in_background(link.take_volume, Seconds(math.inf))
    plugin.accept().close()
    plugin.offer()
    volume, descriptor = answers.get(timeout=SOON)
    os.close(descriptor)
    assert volume == MOUNT


def test_waiting_for_the_socket_can_be_interrupted(link, plugin):
    plugin.listener.close()
    answers = in_background(link.take_volume, Seconds(math.inf))
    link.interrupt()
    assert isinstance(answers.get(timeout=SOON), SidecarFailed)


def test_waiting_for_the_volume_can_be_interrupted(link, plugin):
    answers = in_background(link.take_volume, Seconds(math.inf))
    plugin.accept().receive(SOON)
    link.interrupt()
    assert isinstance(answers.get(timeout=SOON), SidecarFailed)


def test_an_interruption_while_serving_does_not_end_the_connection(link, plugin):
    channel, _, volume = take(link, plugin)
    link.attend(volume, lambda _grace: None, lambda: None)
    link.interrupt()
    channel.close()
    assert plugin.accept().receive(SOON).message.resume


def test_a_request_to_leave_is_passed_on(link, plugin):
    channel, _, volume = take(link, plugin)
    asked = queue.Queue()
    link.attend(volume, asked.put, lambda: None)
    channel.send(Drain(7.0))
    assert asked.get(timeout=SOON) == 7.0


def test_a_lost_connection_is_made_again_as_the_one_who_serves(link, plugin):
    channel, _, volume = take(link, plugin)
    returned = threading.Event()
    link.attend(volume, lambda _grace: None, returned.set)
    channel.close()
    again = plugin.accept()
    hello = again.receive(SOON).message
    assert hello == Hello(1, os.getpid(), True, "vol", "hash", asks=True, passes=True, watches=True)
    assert returned.wait(SOON)
    assert link.send(Ready())
    assert again.receive(SOON).message == Ready()


def test_a_connection_lost_to_nonsense_is_made_again(link, plugin):
    channel, _, volume = take(link, plugin)
    link.attend(volume, lambda _grace: None, lambda: None)
    channel.send(Ready())
    assert plugin.accept().receive(SOON).message.resume


def test_nobody_hears_when_the_node_plugin_is_gone(link):
    assert not link.send(Ready())


# --- what one sidecar leaves to the next ---


@pytest.fixture
def lasting(tmp_path):
    directory = os.open(tmp_path, os.O_PATH)
    link = NodeLink(directory, "s", lasts=True)
    yield link
    link.close()
    os.close(directory)


def take_heritage(link, plugin):
    taken = queue.SimpleQueue()
    threading.Thread(target=lambda: taken.put(link.take_volume(SOON))).start()
    channel = plugin.accept()
    assert channel.receive(SOON).message.lasts
    journal, noted = os.pipe()
    channel.send(Keeping())
    channel.send(Heritage(), (noted,))
    os.close(noted)
    null = os.open("/dev/null", os.O_RDWR)
    channel.send(MOUNT, (null,))  # what arrives together is told apart
    os.close(null)
    volume, descriptor = taken.get(timeout=SOON)
    assert volume == MOUNT
    os.close(descriptor)
    return channel, journal


def test_a_successor_gets_the_journal_of_the_one_before(lasting, plugin):
    _, journal = take_heritage(lasting, plugin)
    assert lasting.keeps
    left = lasting.take_left()
    assert os.fstat(left).st_ino == os.fstat(journal).st_ino
    assert lasting.take_left() == -1
    os.close(left)
    os.close(journal)


def test_a_journal_that_nobody_took_is_closed(lasting, plugin):
    _, journal = take_heritage(lasting, plugin)
    lasting.close()
    assert os.read(journal, 1) == b""
    os.close(journal)


def test_a_node_plugin_that_comes_back_says_anew_whether_it_keeps(lasting, plugin):
    channel, journal = take_heritage(lasting, plugin)
    os.close(journal)
    returned = queue.SimpleQueue()
    lasting.attend(MOUNT, lambda _grace: None, lambda: returned.put(lasting.keeps))
    channel.close()
    again = plugin.accept()
    assert again.receive(SOON).message.lasts
    assert not returned.get(timeout=SOON)
    again.send(Keeping())
    assert returned.get(timeout=SOON)


# --- questions ---


def attended(link, plugin):
    """A link that has its volume, and the plugin's end of it."""
    channel, _, volume = take(link, plugin)
    link.attend(volume, lambda _grace: None, lambda: None)
    return channel


def asking(link, *question):
    """Asks as soon as it is possible: the link has heard that there will be an answer."""
    for _ in range(1000):
        asked = link.questions.ask(*question)
        if asked is not None:
            return asked
        threading.Event().wait(0.01)
    raise AssertionError("nobody to ask")


def test_a_node_plugin_that_does_not_say_that_it_answers_is_not_asked(link, plugin):
    channel = attended(link, plugin)
    assert link.questions.ask(7, 0) is None
    assert link.send(Ready())
    assert channel.receive(SOON).message == Ready()


def test_that_it_answers_may_come_together_with_the_volume(link, plugin):
    answers = in_background(link.take_volume, SOON)
    channel = plugin.accept()
    channel.receive(SOON)
    with open("/dev/null", "rb") as null:
        channel.send(MOUNT, (null.fileno(),))
        channel.send(Answering())
    volume, descriptor = answers.get(timeout=SOON)
    os.close(descriptor)
    link.attend(volume, lambda _grace: None, lambda: None)
    asking(link, 7, 0)
    assert channel.receive(SOON).message == Question(1, 7, 0)


def test_answers_reach_who_asked_in_any_order(link, plugin):
    channel = attended(link, plugin)
    channel.send(Answering())
    first, second = asking(link, 7, 0), asking(link, 8, 99)
    questions = [channel.receive(SOON).message for _ in range(2)]
    assert [(question.pid, question.started) for question in questions] == [(7, 0), (8, 99)]
    answers = [Answer(questions[0].serial, 70, 700), Answer(questions[1].serial, killed=True)]
    channel.send(answers[1])
    channel.send(answers[0])
    channel.send(Answer(4711, killed=True))  # to nobody
    assert first.wait(SOON) == answers[0]
    assert second.wait(SOON) == answers[1]


def test_a_process_that_was_identified_is_seen_to_live(link, plugin):
    channel = attended(link, plugin)
    channel.send(Answering())
    asked = asking(link, os.getpid(), 0)
    serial = channel.receive(SOON).message.serial
    with open("/proc/self/stat", encoding="ascii") as status:
        started = int(status.read().rpartition(")")[2].split()[19])
        channel.send(Identified(serial, os.getpid(), started), (status.fileno(),))
    assert asked.wait(SOON) == Answer(serial, os.getpid(), started)
    assert link.questions.is_ending(os.getpid(), started) is False


def test_what_a_node_plugin_that_is_gone_left_open_its_successor_is_asked_when_it_says_so(link, plugin):
    channel = attended(link, plugin)
    channel.send(Answering())
    asked = asking(link, 7, 0)
    first = channel.receive(SOON).message
    channel.close()
    again = plugin.accept()
    assert again.receive(SOON).message.resume
    meanwhile = link.questions.ask(8, 0)
    again.send(Answering())
    questions = [again.receive(SOON).message for _ in range(2)]
    assert questions == [first, Question(first.serial + 1, 8, 0)]
    for question in questions:
        again.send(Answer(question.serial, question.pid * 10, 700))
    assert asked.wait(SOON).process == 70
    assert meanwhile.wait(SOON).process == 80


def test_nobody_waits_for_a_node_plugin_once_the_link_is_closed(link, plugin):
    channel = attended(link, plugin)
    channel.send(Answering())
    waited = in_background(asking(link, 7, 0).wait, Seconds(3600.0))
    channel.receive(SOON)
    link.close()
    assert waited.get(timeout=SOON) is None
    assert link.questions.ask(7, 0) is None


def test_a_node_plugin_that_is_silent_is_asked_again_only_when_it_has_answered(link, plugin):
    channel = attended(link, plugin)
    channel.send(Answering())
    assert asking(link, 7, 0).wait(Seconds(0.01)) is None
    assert link.questions.ask(7, 0) is None
    channel.send(Answer(channel.receive(SOON).message.serial))
    asking(link, 8, 0)


def test_a_node_plugin_that_reads_nothing_is_not_waited_for(link, plugin):
    channel = attended(link, plugin)
    channel.send(Answering())
    asking(link, 7, 0)
    asked = 1
    while link.questions.ask(7, 0) is not None:
        asked += 1
    assert 1 < asked <= 4096


# --- files that the kernel reads itself ---


def passing(link, plugin):
    """A link whose node plugin registers files, and the plugin's end of it."""
    answers = in_background(link.take_volume, SOON)
    channel, _ = plugin.offer(Passing())
    volume, descriptor = answers.get(timeout=SOON)
    os.close(descriptor)
    link.attend(volume, lambda _grace: None, lambda: None)
    return channel


def heard(channel):
    received = channel.receive(SOON)
    received.close()
    return received.message


def test_a_node_plugin_that_does_not_say_that_it_registers_files_is_not_asked_to(link, plugin):
    take(link, plugin)
    assert not link.passing.is_there()


def test_one_that_says_so_with_the_volume_is_asked_and_answers(link, plugin):
    channel = passing(link, plugin)
    assert link.passing.is_there()
    with open("/dev/null", "rb") as null:
        answers = in_background(link.passing.files(null.fileno()).register, null.fileno())
        assert heard(channel) == Register(1)
        channel.send(Registered(1, number=5))
        assert answers.get(timeout=SOON) == 5


def test_its_successor_gets_what_was_to_be_given_back_when_it_says_so(link, plugin):
    channel = passing(link, plugin)
    with open("/dev/null", "rb") as null:
        link.passing.files(null.fileno())
        channel.close()
        again = plugin.accept()
        assert again.receive(SOON).message.resume
        link.passing.unregister(5)
        again.send(Passing())
        assert heard(again) == Unregister(1, 5)
        link.passing.close()
