"""Log and audit files."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.errors import EndpointUnreachable, InvalidOption
from csi.oss.exchange import ConnectionStatistics, HttpAnswer, HttpRequest
from csi.torch import logs
from csi.torch.configuration import LogOptions
from csi.torch.logs import Audit, AuditedTransport, TurningFile, start_logs
from csi.volume.units import Seconds


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    logger = logging.getLogger("csi")
    handlers, level, propagates = logger.handlers[:], logger.level, logger.propagate
    yield
    for handler in logger.handlers:
        if handler not in handlers:
            handler.close()
    logger.handlers[:], logger.propagate = handlers, propagates
    logger.setLevel(level)


def test_a_file_turns_over_at_its_size_and_keeps_some(tmp_path: Path) -> None:
    file = TurningFile(str(tmp_path / "new" / "log"), largest=40, kept=2)
    for number in range(10):
        file.write(f"line {number} " + "x" * 20)
    file.close()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["log", "log.1", "log.2"]
    assert (tmp_path / "new" / "log").read_text().endswith("line 9 " + "x" * 20 + "\n")


def write_many(path: str, number: int) -> None:
    file = TurningFile(path, largest=2000, kept=1000)
    for line in range(200):
        file.write(f"{number}-{line}")


def test_processes_that_turn_the_same_file_over_lose_no_line(tmp_path: Path) -> None:
    start = multiprocessing.get_context("fork")
    writers = [start.Process(target=write_many, args=(str(tmp_path / "log"), number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{number}-{line}" for number in range(4) for line in range(200))


def descriptors_of(directory: Path) -> list[str]:
    """The files below `directory` that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(descriptor))
    return [path for path in found if path.startswith(str(directory))]


def test_a_file_that_nobody_holds_any_more_is_closed(tmp_path: Path) -> None:
    """As the audit log is when its data set is dropped."""
    file = TurningFile(str(tmp_path / "log"), largest=40, kept=2)
    for _ in range(5):
        file.write("x" * 30)
    assert descriptors_of(tmp_path) == [str(tmp_path / "log")]
    del file
    gc.collect()
    assert descriptors_of(tmp_path) == []


def test_a_file_that_cannot_be_made_anew_writes_to_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its old descriptor may be that of another file by then."""
    file = TurningFile(str(tmp_path / "log"), largest=40, kept=2)
    file.write("x" * 50)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", no_descriptors)
        file.write("lost")
    with (tmp_path / "other").open("w"):
        file.write("found")
    file.close()
    assert (tmp_path / "other").read_text() == ""
    assert (tmp_path / "log").read_text() == "found\n"


def no_descriptors(*_: object) -> int:
    raise OSError(errno.EMFILE, "too many open files")


def test_a_secret_does_not_reach_the_log(tmp_path: Path) -> None:
    start_logs(LogOptions(logging.INFO, str(tmp_path / "log"), ""))
    logging.getLogger("csi.torch").info("AccessKeySecret: %s", "hunter2hunter2")
    text = (tmp_path / "log").read_text()
    assert "hunter2" not in text
    assert "INFO csi.torch: AccessKeySecret" in text


def test_the_level_counts_for_the_file_and_the_programs_own_for_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start_logs(LogOptions(logging.INFO, str(tmp_path / "log"), ""))
    logger = logging.getLogger("csi.torch")
    logger.debug("one")
    logger.info("two")
    logger.warning("three")
    assert [line.rpartition(" ")[2] for line in (tmp_path / "log").read_text().splitlines()] == ["two", "three"]
    assert [record.message for record in caplog.records] == ["three"]


def test_logs_that_are_started_again_take_the_place_of_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As for a second data set in the same process."""
    for name in ("first", "second", "third"):
        start_logs(LogOptions(logging.INFO, str(tmp_path / name), ""))
    logging.getLogger("csi.torch").warning("once")
    written = {path.name: path.read_text().count("once") for path in tmp_path.iterdir()}
    assert written == {"first": 0, "second": 0, "third": 1}
    assert [record.message for record in caplog.records] == ["once"]


def test_a_path_that_was_asked_for_must_be_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidOption, match="logPath"):
        start_logs(LogOptions(logging.INFO, str(tmp_path / "file" / "log"), ""))


def test_the_default_falls_back_to_a_place_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    default = str(tmp_path / "file" / "connector.log")
    monkeypatch.setattr(logs, "DEFAULT_LOG", default)
    monkeypatch.setattr(logs, "_own_directories", lambda: [str(tmp_path / "file"), str(tmp_path / "home")])
    start_logs(LogOptions(logging.INFO, default, ""))
    logging.getLogger("csi").info("here")
    assert "here" in (tmp_path / "home" / "connector.log").read_text()


class Answering:
    """A transport that has one answer."""

    def __init__(self, answer: HttpAnswer | EndpointUnreachable) -> None:
        self.answer = answer

    def send(self, request: HttpRequest, *, timeout: Seconds, stall: Seconds, patience: Seconds) -> HttpAnswer:
        if isinstance(self.answer, EndpointUnreachable):
            raise self.answer
        return self.answer

    def send_plain(self, endpoint: str, head: bytes, target: memoryview, **_: object) -> HttpAnswer | None:
        return self.answer if isinstance(self.answer, HttpAnswer) else None

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics()

    def close(self) -> None:
        return


NOW = Seconds(0.0)
NEVER = Seconds(3600.0)
BOUND = Seconds(1.0)


def audited(path: Path, answer: HttpAnswer | EndpointUnreachable, slow: Seconds) -> AuditedTransport:
    return AuditedTransport(Answering(answer), Audit(TurningFile(str(path)), slow=slow))


def asked(transport: AuditedTransport) -> None:
    transport.send(HttpRequest("GET", "http://host/bucket/key", ()), timeout=BOUND, stall=BOUND, patience=BOUND)


@pytest.mark.parametrize("plain", [False, True])
def test_a_slow_request_is_told_with_its_outcome(tmp_path: Path, plain: bool) -> None:
    transport = audited(tmp_path / "audit", HttpAnswer(200, {"x-oss-request-id": "5C1B"}, received=7), NOW)
    if plain:
        head = b"GET /bucket/key HTTP/1.1\r\n\r\n"
        transport.send_plain("http://host", head, memoryview(bytearray(7)), timeout=BOUND, stall=BOUND)
    else:
        asked(transport)
    (line,) = (tmp_path / "audit").read_text().splitlines()
    assert "GET http://host/bucket/key status=200 bytes=7 ms=" in line
    assert line.endswith("request=5C1B")


def test_a_request_without_an_answer_is_told_too(tmp_path: Path) -> None:
    transport = audited(tmp_path / "audit", EndpointUnreachable("no"), NOW)
    with pytest.raises(EndpointUnreachable):
        asked(transport)
    assert "status=0" in (tmp_path / "audit").read_text()


def test_a_quick_request_is_not_told(tmp_path: Path) -> None:
    transport = audited(tmp_path / "audit", HttpAnswer(200, {}), NEVER)
    asked(transport)
    assert not (tmp_path / "audit").exists()
