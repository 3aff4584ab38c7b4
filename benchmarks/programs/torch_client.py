"""What the programs with PyTorch have in common: the client's module, its two files, what a stretch of work cost."""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.clients import CONNECTOR
from benchmarks.model import OURS

CONFIGURATION = {
    "logLevel": 2,
    "auditPath": "",
    "datasetConfig": {"prefetchConcurrency": 24, "prefetchWorker": 2},
    "checkpointConfig": {"prefetchConcurrency": 24, "prefetchWorker": 4, "uploadConcurrency": 64},
}
"""The guide's."""
_MODULES = {OURS: "csi.torch", CONNECTOR: "osstorchconnector"}


def module_of(client: str) -> Any:
    return importlib.import_module(_MODULES[client])


def arguments(endpoint: str, directory: str) -> dict[str, str]:
    """What every constructor of both takes; the keys come by standard input."""
    cred_path, config_path = Path(directory) / "credentials", Path(directory) / "config.json"
    cred_path.touch(mode=0o600)
    cred_path.write_text(sys.stdin.read())
    config_path.write_text(json.dumps({"logPath": str(Path(directory) / "connector.log"), **CONFIGURATION}))
    return {
        "endpoint": endpoint,
        "cred_path": str(cred_path),
        "config_path": str(config_path),
        "region": "cn-hangzhou",
    }


class Meter:
    """Time, CPU seconds (with children that have ended) and the highest resident size above that of the start."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._resident = _status("VmRSS")
        self._cpu = _cpu()
        self._start = time.monotonic()
        self.seconds = 0.0

    def stop(self) -> None:
        self.seconds = time.monotonic() - self._start

    @property
    def cpu(self) -> float:
        return _cpu() - self._cpu

    @property
    def grown(self) -> int:
        return _status("VmHWM") - self._resident


def report(**said: object) -> None:
    """What the load program prints. Nothing may be printed after it: a client's own threads are not waited for."""
    sys.stdout.write("\n" + json.dumps(said) + "\n")
    sys.stdout.flush()
    os._exit(0)


def _cpu() -> float:
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)
