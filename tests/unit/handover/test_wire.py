from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi.errors import ProtocolError
from csi.handover.wire import (
    MAX_FRAME,
    Answer,
    Answering,
    Bye,
    Drain,
    Failed,
    Health,
    Hello,
    Heritage,
    Keeping,
    Lasting,
    Message,
    Mount,
    Passing,
    Question,
    Ready,
    Register,
    Registered,
    Session,
    Unregister,
    decode,
    encode,
    take_frame,
)

EXAMPLES = [
    Hello(1, 4711),
    Hello(1, 4711, True, "vol ü", "0123456789abcdef", True),
    Mount(1, "vol", "hash", '{"version":1}', True, "credentials", 1 << 30, 30.0),
    Ready(),
    Failed("BucketNotFound", "no bucket", "create it"),
    Health(50 << 20, 3, 2, 0.25, "GetObject: 503", {"engine.hits": 12, "engine.rate": 0.5}),
    Drain(12.5),
    Bye("SIGTERM"),
    Question(1, 4711, 99),
    Answer(1, 4711, 99, True),
    Answering(),
    Hello(1, 4711, chooses=True),
    Session("pyfuse3"),
    Hello(1, 4711, passes=True),
    Hello(1, 4711, lasts=True),
    Keeping(),
    Lasting(),
    Heritage(),
    Passing(),
    Register(1),
    Unregister(2, 7),
    Registered(1, 7),
    Registered(2, error=9),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_wire(message):
    buffer = bytearray(encode(message))
    assert take_frame(buffer) == message
    assert buffer == b""


@given(
    volume=st.text(),
    spec=st.text(),
    read_only=st.booleans(),
    limit=st.integers(0, 1 << 60),
    grace=st.floats(0, 1e6),
)
def test_any_content_survives_the_wire(volume, spec, read_only, limit, grace):
    message = Mount(1, volume, "h", spec, read_only, "credentials", limit, grace)
    assert take_frame(bytearray(encode(message))) == message


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_garbage_is_a_protocol_error_or_waits_for_more(data):
    buffer = bytearray(data)
    try:
        message = take_frame(buffer)
    except ProtocolError:
        return
    assert message is None or isinstance(message, Message)


@given(
    kind=st.integers(0, 16),
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["version", "pid", "grace", "reason", "memory", "statistics", "x"]), inner, max_size=5
            )
        ),
        max_leaves=12,
    ),
)
@settings(max_examples=300)
def test_any_json_is_a_whole_message_or_a_protocol_error(kind, content):
    try:
        message = decode(bytes([kind]) + json.dumps(content).encode())
    except ProtocolError:
        return
    assert take_frame(bytearray(encode(message))) == message


@given(st.lists(st.sampled_from(EXAMPLES), max_size=5), st.lists(st.integers(1, 60), min_size=1, max_size=400))
@settings(max_examples=60)
def test_frames_may_arrive_in_any_pieces(messages, sizes):
    stream = b"".join(encode(message) for message in messages)
    buffer, taken, position, turn = bytearray(), [], 0, 0
    while position < len(stream):
        piece = stream[position : position + sizes[turn % len(sizes)]]
        position, turn = position + len(piece), turn + 1
        buffer += piece
        while (message := take_frame(buffer)) is not None:
            taken.append(message)
    assert taken == messages


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "type missing is unknown"),
        (b"\x00{}", "type 00 is unknown"),
        (b"\x63{}", "type 63 is unknown"),
        (b"\x03", "not JSON"),
        (b"\x03[]", "not a JSON object"),
        (b"\x03\xff", "not JSON"),
        (b'\x06{"grace": NaN}', "not JSON"),
        (b'\x06{"grace": 1e999}', "grace is inf"),
        (b'\x06{"grace": true}', "grace is True"),
        (b'\x06{"grace": "1"}', "expected float"),
        (b"\x06{}", "lacks grace"),
        (b'\x06{"grace": 1, "hurry": 2}', "unknown fields: hurry"),
        (b'\x01{"version": 1.0, "pid": 2}', "version is 1.0"),
        (b"\x03" + b"[" * 100_000, "not JSON"),
        (b'\x05{"memory":1,"open_files":1,"inflight":0,"oldest_request":0,"statistics":{"a":"b"}}', "statistics is"),
    ],
)
def test_a_malformed_frame_is_refused_by_name(payload, words):
    with pytest.raises(ProtocolError, match=words):
        decode(payload)


def test_only_hello_may_say_what_this_version_does_not_know():
    assert decode(b'\x01{"version": 2, "pid": 7, "colour": "blue"}') == Hello(2, 7)


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 0xFFFFFFFF])
def test_a_frame_of_a_forbidden_length_is_refused_before_it_arrives(length):
    with pytest.raises(ProtocolError, match="is not allowed"):
        take_frame(bytearray(struct.pack(">I", length)))


def test_a_message_over_one_mebibyte_is_refused_by_the_sender():
    with pytest.raises(ProtocolError, match="Bye frame of"):
        encode(Bye("x" * MAX_FRAME))


def test_the_largest_message_passes():
    message = Bye("x" * (MAX_FRAME - 1 - len('{"reason":""}')))
    assert take_frame(bytearray(encode(message))) == message


def test_no_message_has_a_place_for_a_secret():
    names = {name for message in EXAMPLES for name in type(message).__dataclass_fields__}
    assert not {name for name in names if "secret" in name.lower() or "token" in name.lower() or "key" in name.lower()}


def test_health_of_an_older_and_of_a_newer_sidecar_is_understood():
    older = decode(b'\x05{"memory": 1, "open_files": 2, "inflight": 3, "oldest_request": 0.5}')
    assert older == Health(1, 2, 3, 0.5)
    assert (older.working_set, older.memory_limit) == (0, 0)
    newer = b'\x05{"memory": 1, "open_files": 2, "inflight": 3, "oldest_request": 0.5, "mood": "good"}'
    assert decode(newer) == Health(1, 2, 3, 0.5)
