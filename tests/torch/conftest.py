"""What tests with PyTorch stand on: `tools/test-torch.sh [FILE …]` runs them, in the Python of tools/torch.sh."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.emulator import RunningEmulator

if find_spec("torch") is None:
    raise pytest.UsageError("tests/torch needs PyTorch: run tools/test-torch.sh, which gives them a Python that has it")


@dataclass(frozen=True)
class Ground:
    """A bucket of one test, and the two files of the guide that lead to it."""

    emulator: RunningEmulator
    cred_path: str
    config_path: str

    def uri(self, key: str = "") -> str:
        return f"oss://{self.emulator.bucket}/{key}"

    @property
    def arguments(self) -> dict[str, Any]:
        """`endpoint`, `cred_path` and `config_path`, as every constructor takes them."""
        return {"endpoint": self.emulator.endpoint, "cred_path": self.cred_path, "config_path": self.config_path}

    def configure(self, **sections: object) -> None:
        """Write the configuration anew: datasetConfig={...}, logLevel=0, …"""
        logs = {"logPath": str(self._directory / "connector.log"), "auditPath": str(self._directory / "audit.log")}
        Path(self.config_path).write_text(json.dumps({**logs, **sections}))

    @property
    def _directory(self) -> Path:
        return Path(self.config_path).parent


@pytest.fixture
def ground(emulator: RunningEmulator, tmp_path: Path) -> Ground:
    cred_path = tmp_path / "credentials"
    cred_path.touch(mode=0o600)
    keys = {"AccessKeyId": emulator.access_key_id, "AccessKeySecret": emulator.access_key_secret}
    cred_path.write_text(json.dumps(keys))
    made = Ground(emulator, str(cred_path), str(tmp_path / "config.json"))
    made.configure()
    return made
