"""`config.json` of the guide, as frozen values: what is fetched how far ahead, and where the logs go.

Names, meanings and defaults are the guide's, so that its file can be used as it is. Keys that the original connector
knows but that mean nothing here are told as "accepted, no effect"; any other key is refused with the nearest valid one.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from csi.errors import InvalidOption
from csi.volume.units import MIB, Bytes, Seconds

_log = logging.getLogger(__name__)

DEFAULT_PATH: Final = "/etc/oss-connector/config.json"
"""Read when no path is given; it need not be there."""
DEFAULT_LOG: Final = "/var/log/oss-connector/connector.log"
DEFAULT_AUDIT: Final = "/var/log/oss-connector/audit.log"

_DATASET: Final = "datasetConfig"
_CHECKPOINT: Final = "checkpointConfig"
_LARGEST_COUNT: Final = 4096
_LARGEST_SIZE: Final = 1 << 20  # MiB


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """`concurrency` requests at a time in each process, on `workers` processors; `budget` bytes that may be held of
    what was not asked for yet; objects larger than `unit` bytes are read by ranges."""

    concurrency: int = 24
    workers: int = 4
    budget: Bytes = Bytes(128 * MIB)
    unit: Bytes = Bytes(8 * MIB)
    timeout: Seconds | None = None


@dataclass(frozen=True, slots=True)
class CheckpointOptions:
    """Reading: `concurrency` requests of `read_size` bytes at a time on `workers` processors, `read_buffer` bytes of
    them ahead of what was asked for. Writing: `upload_concurrency` parts of `part_size` bytes at a time, as many as fit
    in `upload_buffer`. Memory used already is so much faster than fresh one that buffers larger than they need be make
    all slower."""

    concurrency: int = 24
    workers: int = 4
    read_size: Bytes = Bytes(4 * MIB)
    read_buffer: Bytes = Bytes(128 * MIB)
    upload_concurrency: int = 64
    part_size: Bytes = Bytes(16 * MIB)
    upload_buffer: Bytes = Bytes(256 * MIB)
    timeout: Seconds | None = None


@dataclass(frozen=True, slots=True)
class LogOptions:
    """`level` is one of `logging`'s; `path` and `audit_path` '' switch a file off."""

    level: int = logging.INFO
    path: str = DEFAULT_LOG
    audit_path: str = DEFAULT_AUDIT


@dataclass(frozen=True, slots=True)
class Configuration:
    log: LogOptions = field(default_factory=LogOptions)
    dataset: DatasetOptions = field(default_factory=DatasetOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)


def load(path: str) -> Configuration:
    """The configuration in the file `path`; with '' that of `DEFAULT_PATH` if it is there, else the defaults.

    Raises InvalidOption for a named file that cannot be read, text that is not JSON, a key or a value that is not one.
    """
    try:
        with open(path or DEFAULT_PATH, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        if not path:
            return Configuration()
        raise InvalidOption(
            "config_path", path, "a file that exists", hint="leave config_path out to use the defaults"
        ) from None
    except OSError as error:
        raise InvalidOption("config_path", path or DEFAULT_PATH, "a readable file", hint=str(error.strerror)) from None
    return parse(text, source=os.fspath(path or DEFAULT_PATH))


def parse(text: str, *, source: str) -> Configuration:
    """The configuration in the JSON `text`, which came from `source`."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidOption.stating("config_path", f"{source} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidOption.stating("config_path", f"{source} is not a JSON object")
    document = {_DATASET if key == "DatasetConfig" else key: value for key, value in document.items()}  # as in a table
    top = _Section(source, "", document)
    dataset = _Section(source, _DATASET, top.section(_DATASET))
    checkpoint = _Section(source, _CHECKPOINT, top.section(_CHECKPOINT))
    top.has_no_effect("ioEngineType")
    levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    configuration = Configuration(
        LogOptions(
            levels[top.integer("logLevel", 1, least=0, most=len(levels) - 1)],
            top.text("logPath", DEFAULT_LOG),
            top.text("auditPath", DEFAULT_AUDIT),
        ),
        _dataset(dataset),
        _checkpoint(checkpoint),
    )
    for section in (top, dataset, checkpoint):
        section.finish()
    return configuration


def _dataset(section: _Section) -> DatasetOptions:
    section.has_no_effect(
        "listConcurrency", "listWorker", "enableFastList", "enableBatchGet", "batchGetSize", "ioEngineType"
    )
    defaults = DatasetOptions()
    return DatasetOptions(
        section.integer("prefetchConcurrency", defaults.concurrency),
        section.integer("prefetchWorker", defaults.workers),
        section.size("prefetchMB", defaults.budget),
        section.size("prefetchUnitMB", defaults.unit),
        section.timeout("timeoutMs"),
    )


def _checkpoint(section: _Section) -> CheckpointOptions:
    section.has_no_effect("prefetchUnitMB", "writeIoSizeMB", "ioEngineType")
    defaults = CheckpointOptions()
    return CheckpointOptions(
        section.integer("prefetchConcurrency", defaults.concurrency),
        section.integer("prefetchWorker", defaults.workers),
        section.size("prefetchIoSizeMB", defaults.read_size),
        section.size("prefetchMB", defaults.read_buffer),
        section.integer("uploadConcurrency", defaults.upload_concurrency),
        section.size("uploadIoSizeMB", defaults.part_size),
        section.size("uploadBufferSizeMB", defaults.upload_buffer),
        section.timeout("timeoutMs"),
    )


class _Section:
    """One JSON object, of which every key has to be asked for before `finish`."""

    def __init__(self, source: str, name: str, values: Mapping[str, object]) -> None:
        self._source = source
        self._prefix = f"{name}." if name else ""
        self._values = values
        self._known: set[str] = set()
        self._idle: set[str] = set()

    def integer(self, key: str, default: int, *, least: int = 1, most: int = _LARGEST_COUNT) -> int:
        self._known.add(key)
        value = self._values.get(key, default)
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._refused(key, f"an integer from {least} to {most}")
        return value

    def size(self, key: str, default: Bytes) -> Bytes:
        return Bytes(self.integer(key, default // MIB, most=_LARGEST_SIZE) * MIB)

    def timeout(self, key: str) -> Seconds | None:
        given = self.integer(key, 0, least=0, most=3_600_000)
        return Seconds(given / 1000) if given else None

    def text(self, key: str, default: str) -> str:
        self._known.add(key)
        value = self._values.get(key, default)
        if not isinstance(value, str) or "\0" in value:
            raise self._refused(key, "a path, or '' for none")
        return value

    def section(self, key: str) -> Mapping[str, object]:
        self._known.add(key)
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self._refused(key, "a JSON object")
        return value

    def has_no_effect(self, *keys: str) -> None:
        self._idle.update(keys)

    def finish(self) -> None:
        """Raises InvalidOption for the first key that nobody knows."""
        for key in self._values:
            if key in self._idle:
                _log.warning("%s: %s%s is accepted, but has no effect here", self._source, self._prefix, key)
            elif key not in self._known:
                near = difflib.get_close_matches(key, sorted(self._known), 1, 0.5)
                raise InvalidOption.stating(
                    self._prefix + key,
                    f"{self._source}: unknown key {(self._prefix + key)!r}",
                    hint=f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(self._known))}",
                )

    def _refused(self, key: str, accepted: str) -> InvalidOption:
        return InvalidOption(f"{self._source}: {self._prefix}{key}", self._values.get(key), accepted)
