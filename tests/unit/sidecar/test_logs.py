from __future__ import annotations

import json
import logging
import os

import pytest

from csi.sidecar.logs import configure
from csi.volume.redaction import redacted


@pytest.fixture
def pipe():
    ends = os.pipe()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield ends
    added = [handler for handler in root.handlers if handler not in before[0]]
    root.handlers[:], root.level = before
    for handler in added:
        descriptor = getattr(handler, "_descriptor", None)
        if descriptor is not None and descriptor not in ends:
            os.close(descriptor)
    for end in ends:
        os.close(end)


def test_a_json_line_has_time_level_logger_context_and_message(pipe):
    configure("json", "info", pipe[1]).add_context(volume="vol-1")
    logging.getLogger("csi.test").warning("part %d is late\nvery", 7)
    line = json.loads(os.read(pipe[0], 4096))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "csi.test", "volume": "vol-1", "message": "part 7 is late\nvery"}


def test_a_text_line_is_one_line_for_people(pipe):
    configure("text", "info", pipe[1]).add_context(volume="vol-1")
    logging.getLogger("csi.test").info("ready")
    assert os.read(pipe[0], 4096).decode().endswith("INFO    csi.test volume=vol-1: ready\n")


def test_the_level_holds_back_what_is_below(pipe):
    log = configure("text", "error", pipe[1])
    logging.getLogger("csi.test").warning("quiet")
    logging.getLogger("csi.test").error("loud")
    text = os.read(pipe[0], 4096).decode()
    assert "quiet" not in text
    assert "loud" in text
    assert log.last_problem == "loud"


def test_an_exception_is_logged_with_its_trace_and_without_its_secret(pipe):
    configure("json", "info", pipe[1])
    try:
        int("AccessKeySecret=abc123")
    except ValueError:
        logging.getLogger("csi.test").exception("it failed")
    message = json.loads(os.read(pipe[0], 65536))["message"]
    assert "Traceback" in message
    assert "abc123" not in message


def test_a_pipe_that_nobody_reads_does_not_block_the_logger(pipe):
    configure("text", "info", pipe[1])
    for _ in range(2000):
        logging.getLogger("csi.test").info("x" * 200)
    assert len(os.read(pipe[0], 1 << 20)) >= 4096


def test_a_pipe_whose_reader_is_gone_does_not_end_the_logger(capfd):
    read, write = os.pipe()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure("text", "info", write)
    os.close(read)
    logging.getLogger("csi.test").info("nobody hears this")
    os.close(root.handlers[0]._descriptor)
    root.handlers[:], root.level = before
    os.close(write)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("AccessKeySecret=abcdef", "abcdef"),
        ('{"akSecret": "abcdef"}', "abcdef"),
        ("x-oss-security-token: CAISabc/def==", "CAISabc/def=="),
        ("Authorization: OSS LTAI:c2lnbmF0dXJl", "c2lnbmF0dXJl"),
        ("GET /b/k?x-oss-signature=0a1b2c&x=1", "0a1b2c"),
        ("Signature='abcdef'", "abcdef"),
    ],
)
def test_what_looks_like_a_credential_is_struck_out(text, secret):
    assert secret not in redacted(text)


@pytest.mark.parametrize("text", ["signature version 4", "the token expired", "no secret here", "GET /b/k?x=1"])
def test_ordinary_words_stay(text):
    assert redacted(text) == text
