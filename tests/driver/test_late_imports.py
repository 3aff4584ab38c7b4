"""A sidecar loads everything before it gives up its rights: afterwards the interpreter's files may be out of reach."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest


@pytest.mark.parametrize(
    "expiration",
    ["2099-10-01T00:00:00Z", (datetime.now(UTC) + timedelta(hours=1)).isoformat()],
    ids=["in years", "in an hour"],
)
def test_a_volume_with_an_sts_token_is_used_without_importing_anything(emulator, tmp_path, expiration):
    token = emulator.issue_token()
    fields = {
        "AccessKeyId": token.access_key_id,
        "akSecret": token.access_key_secret,
        "SecurityToken": token.security_token,
        "Expiration": expiration,
    }
    for name, value in fields.items():
        (tmp_path / name).write_text(value)
    command = [sys.executable, "-m", "tests.support.sealed_volume", emulator.endpoint, emulator.bucket, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "sealed: OK", done.stderr
