from __future__ import annotations

import array
import contextlib
import os
import socket

import pytest

from csi.errors import ProtocolError
from csi.handover.channel import Channel
from csi.handover.wire import MAX_FRAME, Bye, Drain, Mount, Ready, Register, encode
from csi.volume.units import Seconds
from tests.support.descriptors import open_files

MOUNT = Mount(1, "vol", "hash", "{}", False, "", 1 << 28, 1.0)
SOON = Seconds(5.0)


@pytest.fixture
def ends():
    left, right = socket.socketpair()
    channel = Channel(right)
    yield left, channel
    left.close()
    channel.close()


@pytest.fixture
def device():
    read, write = os.pipe()
    yield write
    os.close(read)
    os.close(write)


def open_descriptors():
    return len(open_files())


def send_raw(sock, data, descriptors=()):
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else [])


def test_a_descriptor_arrives_with_its_message_and_is_not_inherited(ends, device):
    left, channel = ends
    Channel(left.dup()).send(MOUNT, (device,))
    received = channel.receive(SOON)
    assert received is not None
    assert received.message == MOUNT
    assert received.descriptor is not None
    assert os.fstat(received.descriptor).st_ino == os.fstat(device).st_ino
    assert not os.get_inheritable(received.descriptor)
    os.close(received.descriptor)


def test_a_descriptor_arrives_once_when_its_frame_comes_in_pieces(ends, device):
    left, channel = ends
    frame = encode(MOUNT)
    send_raw(left, frame[:3], [device])
    assert channel.receive_ready() == []
    send_raw(left, frame[3:] + encode(Ready()))
    first, second = channel.receive_ready()
    assert first.descriptor is not None
    assert second.descriptor is None
    os.close(first.descriptor)


def test_two_descriptors_arrive_in_the_order_in_which_they_were_sent(ends, device, tmp_path):
    left, channel = ends
    file = os.open(tmp_path, os.O_RDONLY)
    before = open_descriptors()
    Channel(left.dup()).send(Register(1), (device, file))
    received = channel.receive(SOON)
    assert received is not None
    assert [os.fstat(one).st_ino for one in received.descriptors] == [os.fstat(one).st_ino for one in (device, file)]
    received.close()
    assert open_descriptors() == before
    os.close(file)


@pytest.mark.parametrize("count", [0, 2, 5, 30])
def test_a_mount_without_exactly_one_descriptor_is_refused_and_all_are_closed(ends, device, count):
    left, channel = ends
    before = open_descriptors()
    send_raw(left, encode(MOUNT), [device] * count)
    with pytest.raises(ProtocolError, match="descriptors"):
        channel.receive_ready()
    assert open_descriptors() == before


def test_a_descriptor_with_a_message_that_has_none_is_refused_and_closed(ends, device):
    left, channel = ends
    before = open_descriptors()
    send_raw(left, encode(Ready()), [device])
    with pytest.raises(ProtocolError, match="a frame that has none"):
        channel.receive_ready()
    assert open_descriptors() == before


def test_descriptors_that_nobody_took_are_closed_with_the_channel(ends, device):
    left, channel = ends
    before = open_descriptors()
    send_raw(left, encode(MOUNT)[:4], [device])
    channel.receive_ready()
    channel.close()
    channel.close()
    assert open_descriptors() == before - 1  # the channel's own socket


def test_the_end_of_the_stream_is_none(ends):
    left, channel = ends
    left.close()
    assert channel.receive(SOON) is None
    assert channel.ended


def test_what_was_sent_before_the_end_still_arrives(ends):
    left, channel = ends
    left.send(encode(Bye("SIGTERM")))
    left.close()
    received = channel.receive(SOON)
    assert received is not None
    assert received.message == Bye("SIGTERM")
    assert channel.receive(SOON) is None


def test_a_stream_that_ends_inside_a_frame_is_a_protocol_error(ends):
    left, channel = ends
    left.send(encode(Bye("SIGTERM"))[:-1])
    left.close()
    with pytest.raises(ProtocolError, match="ended inside a frame"):
        channel.receive(SOON)


def test_several_messages_are_received_one_by_one(ends):
    left, channel = ends
    left.send(encode(Ready()) + encode(Drain(2.0)))
    assert [channel.receive(SOON).message for _ in range(2)] == [Ready(), Drain(2.0)]


def test_silence_is_a_timeout(ends):
    _, channel = ends
    with pytest.raises(TimeoutError):
        channel.receive(Seconds(0.01))


def test_a_peer_that_does_not_read_is_a_timeout(ends):
    _, channel = ends
    with pytest.raises(TimeoutError, match="did not read"):
        for _ in range(100):
            channel.send(Bye("x" * 100_000), timeout=Seconds(0.02))


def test_a_peer_that_is_gone_is_an_error_and_no_signal(ends):
    left, channel = ends
    left.close()
    with pytest.raises(OSError, match="Broken pipe"):
        channel.send(Ready())


def test_a_message_larger_than_the_socket_buffer_arrives_whole(ends):
    left, channel = ends
    message = Bye("y" * (MAX_FRAME - 100))
    data = encode(message)
    left.setblocking(False)
    sent, received = 0, []
    while not received:
        if sent < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += left.send(data[sent:])
        received = channel.receive_ready()
    assert received[0].message == message


def test_the_peer_is_who_the_kernel_says(ends):
    _, channel = ends
    assert (channel.peer.pid, channel.peer.uid) == (os.getpid(), os.getuid())
