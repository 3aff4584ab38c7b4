"""The sidecar's log: one record a line on stderr, JSON or text, without secrets.

Logging never ends the sidecar and never blocks it: when the reader of stderr is gone, or does not read and the pipe to
it is full, the line is dropped. What looks like a credential is struck out, whoever logged it.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from typing import Final

from csi.volume.redaction import redacted

_STANDARD_ERROR: Final = 2
LEVELS: Final = ("debug", "info", "warning", "error")


class _Formatter(logging.Formatter):
    """`context` (such as the volume) is added to every record once it is known."""

    def __init__(self) -> None:
        super().__init__()
        self.context: dict[str, str] = {}

    def message_of(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return redacted(text)


class JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {"time": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "logger": record.name}
        return json.dumps(fields | self.context | {"message": self.message_of(record)}, ensure_ascii=False)


class TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        context = "".join(f" {name}={value}" for name, value in self.context.items())
        return f"{stamp} {record.levelname:<7} {record.name}{context}: {self.message_of(record)}"


class LastProblem(logging.Handler):
    """Remembers the newest warning or error, for health reports."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = redacted(record.getMessage())[:500]


class _LineWriter(logging.Handler):
    """One write(2) a line; a line up to PIPE_BUF arrives whole or not at all."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))
        except OSError:
            return  # there is nobody to tell
        except Exception:
            self.handleError(record)


class SidecarLog:
    """What `configure` set up."""

    def __init__(self, formatter: _Formatter, problems: LastProblem) -> None:
        self._formatter = formatter
        self._problems = problems

    @property
    def last_problem(self) -> str:
        return self._problems.text

    def add_context(self, **context: str) -> None:
        self._formatter.context |= context


def configure(style: str, level: str, descriptor: int = _STANDARD_ERROR) -> SidecarLog:
    """Send the process's log to `descriptor` as `style` (json, text), from `level` upwards."""
    formatter = JsonFormatter() if style == "json" else TextFormatter()
    handler = _LineWriter(_unblocked(descriptor))
    handler.setFormatter(formatter)
    problems = LastProblem()
    root = logging.getLogger()
    root.handlers[:] = [handler, problems]
    root.setLevel(level.upper())
    return SidecarLog(formatter, problems)


def _unblocked(descriptor: int) -> int:
    """A way to write to the same pipe that never waits. The flag belongs to the open file, which others share, so a
    second open of the pipe is needed; it works only before the rights are given up. Other files stay as they are."""
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return descriptor
    return descriptor
