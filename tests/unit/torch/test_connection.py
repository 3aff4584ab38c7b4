"""Endpoints, credentials and the stores made of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from csi.errors import CredentialsMissing, InvalidOption
from csi.oss.credentials import AnonymousCredentials
from csi.torch.connection import Connection
from csi.torch.logs import Audit
from csi.torch.uri import Place
from csi.volume.units import Seconds

KEYS = {"OSS_ACCESS_KEY_ID": "key-of-environment", "OSS_ACCESS_KEY_SECRET": "secret-of-environment"}


@pytest.fixture(autouse=True)
def no_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csi.torch.connection.start_logs", lambda options: Audit(None))


def connection(endpoint: str = "http://oss.local:9000", **given: object) -> Connection:
    return Connection.of(endpoint, environ=KEYS, **given)  # type: ignore[arg-type]


def test_an_internal_endpoint_is_the_way_to_a_public_address_of_the_same_region() -> None:
    ours = connection("oss-cn-wulanchabu-internal.aliyuncs.com")
    location = ours.location(Place("bucket", "oss-cn-wulanchabu.aliyuncs.com"))
    assert location.endpoint == "https://oss-cn-wulanchabu-internal.aliyuncs.com"
    assert location.region == "cn-wulanchabu"


def test_an_address_in_another_region_is_asked_there() -> None:
    ours = connection("oss-cn-wulanchabu.aliyuncs.com", region="cn-wulanchabu")
    location = ours.location(Place("bucket", "oss-cn-beijing.aliyuncs.com"))
    assert (location.endpoint, location.region) == ("https://oss-cn-beijing.aliyuncs.com", "cn-beijing")


def test_the_endpoint_says_how_to_reach_its_own_host() -> None:
    assert connection().location(Place("bucket", "oss.local")).endpoint == "http://oss.local:9000"


def test_without_any_endpoint_it_is_said_which_bucket_has_none() -> None:
    with pytest.raises(InvalidOption, match="endpoint is given for bucket 'bucket'"):
        connection("").location(Place("bucket"))


def test_a_connection_pickles_and_makes_its_own_stores() -> None:
    ours = connection(region="cn-hangzhou").with_bounds(connections=7, timeout=Seconds(5.0))
    store = ours.store(Place("bucket"))
    theirs = pickle.loads(pickle.dumps(ours))
    assert theirs.location(Place("bucket")) == ours.location(Place("bucket"))
    assert theirs.store(Place("bucket")) is not store
    assert ours.store(Place("bucket")) is store


def test_no_credential_is_shown() -> None:
    ours = connection()
    assert "secret-of-environment" not in f"{ours!r} {ours._source!r} {ours.credentials()!r}"


def test_a_file_goes_before_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(json.dumps({"AccessKeyId": "key-of-file", "AccessKeySecret": "secret"}))
    current = connection(cred_path=str(path)).credentials().current()
    assert current is not None
    assert current.access_key_id == "key-of-file"


def test_a_public_bucket_needs_no_keys() -> None:
    assert connection(cred_provider=AnonymousCredentials()).credentials().current() is None


def test_without_credentials_it_is_said_how_to_give_some() -> None:
    with pytest.raises(CredentialsMissing, match="cred_path"):
        Connection.of("http://oss.local", environ={}, cred_path="").credentials()
