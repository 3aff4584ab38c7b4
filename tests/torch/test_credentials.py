"""Keys that change while samples are read, against the emulator."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from csi.errors import AuthenticationFailed, CredentialsMissing
from csi.torch import AnonymousCredentials, OssIterableDataset, OssMapDataset
from csi.torch.samples import OssObject
from csi.volume.spec import HttpOptions
from tests.support.emulator import IssuedToken, RunningEmulator
from tests.support.service_accounts import PROVIDER, ROLE, TokenIssuer
from tests.torch.conftest import Ground

COUNT = 60


def text_of(sample: OssObject) -> str:
    return sample.read().decode()


@pytest.fixture
def samples(ground: Ground) -> Ground:
    for number in range(COUNT):
        ground.emulator.seed(f"data/{number:04}", str(number))
    return ground


def write(path: str, token: IssuedToken) -> None:
    """As a platform renews a file: the old one or the new one is there at any moment."""
    expiration = datetime.fromtimestamp(token.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {**token.pairs(), "Expiration": expiration}
    Path(f"{path}.new").write_text(json.dumps(document))
    os.replace(f"{path}.new", path)


def refused(emulator: RunningEmulator) -> int:
    return sum(entry["status"] == 403 for entry in emulator.requests())


def test_keys_that_are_renewed_in_time_cost_no_failed_request(samples: Ground) -> None:
    write(samples.cred_path, samples.emulator.issue_token(30))  # within the margin: the file is looked at all the time
    made = OssMapDataset.from_prefix(samples.uri("data/"), **samples.arguments, transform=text_of)
    assert made[0] == "0"
    write(samples.cred_path, samples.emulator.issue_token(3600))
    assert [made[number] for number in range(COUNT)] == [str(number) for number in range(COUNT)]
    assert refused(samples.emulator) == 0


def test_keys_that_were_taken_back_are_replaced_by_those_in_the_file(samples: Ground) -> None:
    write(samples.cred_path, samples.emulator.issue_token(3600))
    made = OssIterableDataset.from_prefix(samples.uri("data/"), **samples.arguments, transform=text_of)
    samples.emulator.expire_tokens()
    write(samples.cred_path, samples.emulator.issue_token(3600))
    assert list(made) == [str(number) for number in range(COUNT)]


def test_keys_that_expired_end_training_with_what_to_do(samples: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csi.torch.connection.HttpOptions", partial(HttpOptions, retries=1))
    write(samples.cred_path, samples.emulator.issue_token(3600))
    made = OssMapDataset.from_prefix(samples.uri("data/"), **samples.arguments, transform=text_of, on_error="skip")
    samples.emulator.expire_tokens()
    with pytest.raises(AuthenticationFailed, match=rf"oss://{samples.emulator.bucket}/data/0003.*renew") as told:
        made.__getitems__([3])
    assert (told.value.bucket, told.value.key) == (samples.emulator.bucket, "data/0003")
    assert told.value.request_id


def test_a_half_written_file_is_told_at_the_start_and_borne_later(samples: Ground) -> None:
    whole = Path(samples.cred_path).read_text()
    made = OssMapDataset.from_prefix(samples.uri("data/"), **samples.arguments, transform=text_of)
    assert made[0] == "0"
    Path(samples.cred_path).write_text(whole[:20])
    assert made[1] == "1"
    with pytest.raises(CredentialsMissing, match="is not a JSON object"):
        OssMapDataset.from_prefix(samples.uri("data/"), **samples.arguments)


def test_a_public_bucket_is_read_without_keys(ground: Ground) -> None:
    bucket = ground.emulator.create_bucket(public=True)
    ground.emulator.seed("data/one", "1", bucket=bucket)
    arguments = ground.arguments | {"cred_path": "", "cred_provider": AnonymousCredentials()}
    made = OssMapDataset.from_objects(f"oss://{bucket}/data/one", **arguments, transform=text_of)
    assert made[0] == "1"


def test_a_pod_assumes_its_role(samples: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = TokenIssuer()
    issuer.register(samples.emulator)
    (tmp_path / "token").write_text(issuer.token())
    for name, value in {
        "ALIBABA_CLOUD_ROLE_ARN": ROLE,
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": PROVIDER,
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(tmp_path / "token"),
        "ALIBABA_CLOUD_STS_ENDPOINT": samples.emulator.sts_endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    arguments = samples.arguments | {"cred_path": ""}
    with samples.emulator.tokens_live_for(2):
        made = OssMapDataset.from_prefix(samples.uri("data/"), **arguments, transform=text_of)
        assert [made[number] for number in range(COUNT)] == [str(number) for number in range(COUNT)]
    assert refused(samples.emulator) == 0
