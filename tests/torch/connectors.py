"""Ours and the original side by side: each in a process of its own that sees the names `BUCKET.oss.local`.

The original speaks to a bucket by such a name only. Both get them in a mount namespace of their own, in which
/etc/hosts is a file of the test; the machine's is left alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.torch.conftest import Ground

OURS = "csi.torch"
ORIGINAL = "osstorchconnector"
ABSENT = "no-such-bucket"
_WITH_HOSTS = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


@dataclass(frozen=True)
class Raised:
    """What a case raised. `DIED` is the type of no exception: the process ended."""

    type: str
    text: str


DIED = "the process ended"
_TRIES = 3


class Connector:
    """A process, started when it is first asked something, and again after it died."""

    def __init__(self, module: str, hosts: Path, log: Path) -> None:
        self.module = module
        self._hosts = hosts
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def ask(self, case: str, ground: Ground, patience: float = 300.0, **arguments: object) -> Any:
        """What came of the case, or what it raised. After `patience` seconds the process is killed.

        Threads of osstorchconnector (obj-executor) crash now and then in a worker that was forked, and spoil the
        process that had it: the case is then asked of a new one.
        """
        for _ in range(_TRIES if self.module == ORIGINAL else 1):
            answer = self._ask(case, ground, patience, **arguments)
            if not (isinstance(answer, Raised) and "DataLoader worker" in answer.text):
                break
            self.end()
        return answer

    def _ask(self, case: str, ground: Ground, patience: float, **arguments: object) -> Any:
        self._hosts.write_text(f"127.0.0.1 localhost oss.local {ground.emulator.bucket}.oss.local {ABSENT}.oss.local\n")
        connection = {
            "endpoint": f"http://oss.local:{ground.emulator.port}",
            "cred_path": ground.cred_path,
            "config_path": ground.config_path,
            "region": ground.emulator.region,
        }
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"case": case, "arguments": {"connection": connection, **arguments}}) + "\n")
        process.stdin.flush()
        ending = threading.Timer(patience, process.kill)
        ending.start()
        line = process.stdout.readline()
        ending.cancel()
        if not line:
            status = process.wait()
            self.end()
            return Raised(DIED, f"status {status}; see {self._log}")
        answer = json.loads(line)
        return Raised(answer["error"], answer["text"]) if "error" in answer else answer["result"]

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            command = [sys.executable, "-m", "tests.torch.connector_program", self.module]
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    ["unshare", "--mount", "sh", "-c", _WITH_HOSTS, "sh", str(self._hosts), *command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        return self._process
