"""Where keys come from, and how new ones get in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from csi.errors import CredentialsMissing
from csi.torch.credentials import CredentialSource, ProvidedCredentials, Role, choose


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Found:
    def __init__(self, key: str) -> None:
        self.key = key

    def get_access_key_id(self) -> str:
        return self.key

    def get_access_key_secret(self) -> str:
        return "secret"

    def get_security_token(self) -> str:
        return ""


class Provider:
    """In the manner of oss2; asked `asked` times."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    def get_credentials(self) -> Found:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Found(f"key-{self.asked}")


def key_of(provider: object) -> str:
    current = provider.current()  # type: ignore[attr-defined]
    return str(current.access_key_id)


def test_a_provider_is_not_asked_for_every_request() -> None:
    clock, theirs = Clock(), Provider()
    ours = ProvidedCredentials(theirs, clock)
    assert [key_of(ours), key_of(ours)] == ["key-1", "key-1"]
    clock.now += 31
    assert key_of(ours) == "key-2"


def test_a_provider_is_asked_again_when_oss_refuses_its_key() -> None:
    ours = ProvidedCredentials(Provider(), Clock())
    assert key_of(ours) == "key-1"
    ours.refresh()
    assert key_of(ours) == "key-2"


def test_a_provider_that_fails_later_leaves_the_keys_there_are() -> None:
    clock, theirs = Clock(), Provider()
    ours = ProvidedCredentials(theirs, clock)
    assert key_of(ours) == "key-1"
    theirs.error = RuntimeError("token sts-secret-token")
    clock.now += 31
    assert key_of(ours) == "key-1"


def test_a_provider_that_fails_at_first_says_so_without_its_words() -> None:
    theirs = Provider()
    theirs.error = RuntimeError("token sts-secret-token")
    with pytest.raises(CredentialsMissing, match="Provider gave no credentials: RuntimeError") as refused:
        ProvidedCredentials(theirs, Clock()).current()
    assert "sts-secret-token" not in str(refused.value)


def test_a_provider_of_the_second_sdk_has_attributes() -> None:
    class Attributes:
        access_key_id = "key-of-v2"
        access_key_secret = "secret"
        security_token = None

    class Second:
        def get_credentials(self) -> Attributes:
            return Attributes()

    assert key_of(ProvidedCredentials(Second(), Clock())) == "key-of-v2"


def test_something_else_is_no_provider() -> None:
    with pytest.raises(CredentialsMissing, match="str without get_credentials"):
        choose(path="", provider="AccessKey", environ={})


def test_a_file_is_read_again_before_its_keys_expire(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "credentials"
    expiration = datetime.fromtimestamp(clock.now + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    path.write_text(json.dumps({"AccessKeyId": "first", "AccessKeySecret": "secret", "Expiration": expiration}))
    ours = CredentialSource(path=str(path)).open(clock)
    assert key_of(ours) == "first"
    path.write_text(json.dumps({"AccessKeyId": "other", "AccessKeySecret": "secret", "Expiration": expiration}))
    clock.now += 3550
    assert key_of(ours) == "other"


def test_a_half_written_file_leaves_the_keys_there_are(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "credentials"
    path.write_text(json.dumps({"AccessKeyId": "first", "AccessKeySecret": "secret"}))
    ours = CredentialSource(path=str(path)).open(clock)
    assert key_of(ours) == "first"
    path.write_text('{"AccessKeyId": "oth')
    clock.now += 2
    assert key_of(ours) == "first"


@pytest.mark.parametrize("text", ["", '{"AccessKeyId": "fir', "[]", '{"AccessKeyId": "first"}'])
def test_a_file_without_a_whole_key_is_told_apart(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials"
    path.write_text(text)
    with pytest.raises(CredentialsMissing, match="cred_path must be a JSON file"):
        CredentialSource(path=str(path)).open().current()


def test_a_role_comes_from_the_environment_of_a_pod(tmp_path: Path) -> None:
    environ = {
        "ALIBABA_CLOUD_ROLE_ARN": "acs:ram::1:role/training",
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/ack",
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(tmp_path / "token"),
    }
    source = choose(path="", provider=None, environ=environ)
    assert source.role == Role(
        "acs:ram::1:role/training",
        "acs:ram::1:oidc-provider/ack",
        str(tmp_path / "token"),
        "ossfuse-torch",
        "https://sts.aliyuncs.com",
    )
    with pytest.raises(CredentialsMissing, match="ALIBABA_CLOUD_OIDC_TOKEN_FILE"):
        source.open().current()


def test_a_platforms_file_is_found_last(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("{}")
    assert choose(path="", provider=None, environ={}, defaults=[str(path)]).path == str(path)
