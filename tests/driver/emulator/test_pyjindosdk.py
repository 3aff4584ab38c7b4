"""pyjindosdk, the strictest client: it refuses answers without CRC64, escapes slashes in keys and sends odd Hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.emulator import RunningEmulator

CLIENT = Path(__file__).with_name("jindo_client.py")


def run(emulator: RunningEmulator, logs: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    known = {
        "port": emulator.port,
        "bucket": emulator.bucket,
        "access_key_id": emulator.access_key_id,
        "access_key_secret": emulator.access_key_secret,
        "logs": str(logs),
        "signer": 4,
        "region": "",
    }
    return subprocess.run(
        [sys.executable, str(CLIENT)],
        input=json.dumps({**known, **settings}),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=logs,
        check=False,
    )


@pytest.mark.parametrize(("signer", "region"), [(1, ""), (4, ""), (4, "cn-hangzhou")])
def test_every_operation_works(emulator: RunningEmulator, tmp_path: Path, signer: int, region: str) -> None:
    done = run(emulator, tmp_path, signer=signer, region=region)

    assert done.returncode == 0, done.stderr
    base = f"oss://{emulator.bucket}/"
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "small": "hello",
        "big is whole": True,
        "pread is right": True,
        "listed": [base + "a b/", base + "big"],
        "renamed": [False, True],
        "copied size": 5,
        "everything": sorted(base + key for key in ("a b/c+d&.txt", "copy", "d/", "d/e/", "d/moved")),
        "removed": True,
    }
    assert emulator.count("UploadPart") == 3


@pytest.mark.parametrize("signer", [1, 4])
def test_a_wrong_secret_is_refused(emulator: RunningEmulator, tmp_path: Path, signer: int) -> None:
    done = run(emulator, tmp_path, signer=signer, access_key_secret="wrong")

    assert done.returncode != 0
    assert "SignatureDoesNotMatch" in done.stderr
    assert {entry["status"] for entry in emulator.requests()} == {403}
