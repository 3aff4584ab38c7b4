"""No secret of any test in any log, command line, environment, report or event of the whole run.

A pytest plugin. Tests name their secrets (`watch_secret`; the emulator does it for every key and token it gives out)
and the logs that processes wrote (`search_log`); the plugin looks at every process of the machine up to four times a
second and at whatever pytest captured or reported of every test. One find anywhere fails the run, whichever tests
passed. The one place where a secret may be is the environment that a user gives to `ossfuse mount` (CONTRACT §4).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_INTERVAL = 0.25
_SHARE = 0.05
"""Of one processor, the most that looking may take."""
_SHORTEST = 8
"""Characters. Shorter values are also found in innocent words."""
_GIVEN = ("OSS_ACCESS_KEY_SECRET=", "OSS_SESSION_TOKEN=")


@dataclass(frozen=True)
class Findings:
    """Of one process of a run; those of several can be added. Holds no secret."""

    secrets: int = 0
    texts: int = 0
    processes: int = 0
    places: tuple[str, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(*(mine + theirs for mine, theirs in zip(self.plain(), other.plain(), strict=True)))

    def plain(self) -> tuple[Any, ...]:
        return self.secrets, self.texts, self.processes, self.places

    def summary(self) -> str:
        return (
            f"{self.secrets} secrets looked for in {self.texts} logs and reports and in {self.processes} "
            f"processes: {'found in ' + '; '.join(self.places) if self.places else 'none found'}"
        )


@dataclass
class SecretWatch:
    """`_lock` guards the rest. `proc` is where processes are looked for."""

    proc: Path = Path("/proc")
    secrets: set[str] = field(default_factory=set)
    finds: dict[str, None] = field(default_factory=dict)
    processes: set[str] = field(default_factory=set)
    texts: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, secret: str) -> None:
        """From now on `secret` must be nowhere."""
        assert len(secret) >= _SHORTEST, "a test's secret must be long enough to be found"
        with self._lock:
            self.secrets.add(secret)

    def search(self, where: str, text: str) -> None:
        with self._lock:
            self.texts += 1
            if any(secret in text for secret in self.secrets):
                self.finds[where] = None

    def search_processes(self) -> None:
        """Command lines and environments of all that runs now."""
        for pid in filter(str.isdigit, os.listdir(self.proc)):
            try:
                command, environment = (self._words(pid, kind) for kind in ("cmdline", "environ"))
            except OSError:
                continue  # it has ended meanwhile
            given = _GIVEN if "mount" in command else ()
            with self._lock:
                self.processes.add(pid)
                for kind, words in (("command line", command), ("environment", environment)):
                    if any(secret in word for word in words if not word.startswith(given) for secret in self.secrets):
                        self.finds[f"the {kind} of process {pid} ({Path(command[0]).name})"] = None

    def _words(self, pid: str, kind: str) -> list[str]:
        return (self.proc / pid / kind).read_bytes().decode("utf-8", "replace").split("\0")

    def findings(self) -> Findings:
        return Findings(len(self.secrets), self.texts, len(self.processes), tuple(self.finds))


_RUN = SecretWatch()
"""Of this process of a test run."""
_KEY = "secret watch"
_OF_WORKERS = pytest.StashKey[Findings]()


def watch_secret(secret: str) -> str:
    """`secret`, which must be nowhere from now on."""
    _RUN.watch(secret)
    return secret


def search_log(path: Path) -> None:
    """Look through what a process wrote, once nobody writes there any more."""
    if path.exists():
        _RUN.search(f"log {path}", path.read_text(encoding="utf-8", errors="replace"))


@pytest.fixture(scope="session", autouse=True)
def _processes_watched() -> Iterator[None]:
    over = threading.Event()

    def look() -> None:
        pause = _INTERVAL
        while not over.wait(pause):
            begin = time.thread_time()
            _RUN.search_processes()
            pause = max(_INTERVAL, (time.thread_time() - begin) / _SHARE)

    thread = threading.Thread(target=look, name="secret watch", daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for title, text in report.sections:
        _RUN.search(f"{title} of {report.nodeid} ({report.when})", text)
    if report.longrepr is not None and not report.skipped:
        _RUN.search(f"report of {report.nodeid}", str(report.longrepr))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes of pytest-xdist: the first one hears of it
        session.config.workeroutput[_KEY] = _RUN.findings().plain()
    elif _found(session.config).places and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Called by pytest-xdist in the first process, with what a worker had to tell."""
    config, told = node.config, getattr(node, "workeroutput", {}).get(_KEY)
    if told is not None:
        config.stash[_OF_WORKERS] = config.stash.get(_OF_WORKERS, Findings()) + Findings(*told[:3], tuple(told[3]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = _found(terminalreporter.config)
    if found.secrets:
        terminalreporter.section("secrets")
        terminalreporter.write_line(found.summary(), red=bool(found.places))


def _found(config: pytest.Config) -> Findings:
    return _RUN.findings() + config.stash.get(_OF_WORKERS, Findings())
