"""Bytes that no kernel would send: the decoder refuses them as Malformed and does nothing else.

`--fuzz-seconds=N` lets atheris go on for that long; without it, it makes as many attempts as take a few seconds.
"""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.fuse.protocol.constants import Opcode
from csi.fuse.protocol.messages import Malformed, decode
from tests.support.fuzzing import fuzz
from tests.support.recorded_fuse import OLD, messages

ATTEMPTS = 40_000
RECORDED = [message.data for message in messages() if message.is_request]
WITH_BODIES = [
    message.data
    for message in messages()
    if message.is_request and message.session == OLD and message.opcode != Opcode.NOTIFY_REPLY
]


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_what_atheris_finds_is_refused_and_nothing_worse(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    seconds = pytestconfig.getoption("fuzz_seconds")

    ended = fuzz("tests.support.fuzz_protocol", tmp_path, attempts=ATTEMPTS, seconds=seconds)

    assert ended.returncode == 0, ended.stderr[-4000:]


@given(data=st.data())
def test_a_recorded_message_with_other_bytes_in_it_is_decoded_or_refused(data: st.DataObject) -> None:
    message = bytearray(data.draw(st.sampled_from(RECORDED)))
    position = data.draw(st.integers(4, len(message) - 1))
    message[position : position + 8] = data.draw(st.binary(min_size=1, max_size=8))
    message[0:4] = struct.pack("<I", len(message))

    outcome = attempt(bytes(message))

    assert outcome in ("decoded", "refused")


@pytest.mark.parametrize("message", WITH_BODIES, ids=range(len(WITH_BODIES)))
def test_a_message_that_ends_early_is_refused_or_says_less(message: bytes) -> None:
    whole = decode(memoryview(message)).body
    shorter = [struct.pack("<I", length) + message[4:length] for length in range(len(message))]

    as_whole = [cut for cut in shorter if attempt(cut) == "decoded" and decode(memoryview(cut)).body == whole]

    # only padding and reserved words, which say nothing, may be missing
    assert all(not any(message[len(cut) :]) for cut in as_whole)


def attempt(message: bytes) -> str:
    try:
        decode(memoryview(message))
    except Malformed:
        return "refused"
    return "decoded"
