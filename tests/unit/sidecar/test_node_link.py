from __future__ import annotations

import math
import os
import queue
import select
import threading

import pytest

from csi.errors import ProtocolError, SidecarFailed
from csi.handover.listener import SidecarListener
from csi.handover.wire import Bye, Drain, Hello, Mount, Ready
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

    def offer(self):
        channel = self.accept()
        hello = channel.receive(SOON).message
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
    assert hello == Hello(1, os.getpid())
    assert volume == MOUNT


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
    assert again.receive(SOON).message == Hello(1, os.getpid(), True, "vol", "hash")
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
