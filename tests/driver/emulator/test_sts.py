"""STS as Alibaba's own SDK core calls it, and as a pod with a service-account token does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import oss2
import pytest
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.request import CommonRequest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.emulator import RunningEmulator, start_emulator
from tests.support.service_accounts import ISSUER, PROVIDER, ROLE, TokenIssuer


def assume_role(emulator: RunningEmulator, *, secret: str = "", **parameters: str) -> bytes:
    client = AcsClient(emulator.access_key_id, secret or emulator.access_key_secret, "cn-hangzhou")
    request = CommonRequest(domain=f"127.0.0.1:{emulator.port}", version="2015-04-01", action_name="AssumeRole")
    request.set_method("POST")
    request.set_protocol_type("http")
    for name, value in {"RoleArn": ROLE, "RoleSessionName": "test", **parameters}.items():
        request.add_query_param(name, value)
    answer = client.do_action_with_exception(request)
    assert isinstance(answer, bytes)
    return answer


def bucket_with(emulator: RunningEmulator, credentials: dict[str, Any]) -> oss2.Bucket:
    auth = oss2.StsAuth(
        credentials["AccessKeyId"], credentials["AccessKeySecret"], credentials["SecurityToken"], oss2.AUTH_VERSION_4
    )
    return oss2.Bucket(auth, emulator.endpoint, emulator.bucket, region="cn-hangzhou")


def test_assume_role_gives_credentials_that_work(emulator: RunningEmulator) -> None:
    answer = json.loads(assume_role(emulator, DurationSeconds="900"))

    bucket_with(emulator, answer["Credentials"]).put_object("k", b"x")
    expires = time.mktime(time.strptime(answer["Credentials"]["Expiration"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert 850 < expires - time.time() <= 901
    assert answer["AssumedRoleUser"]["Arn"] == ROLE + "/test"
    assert answer["RequestId"]


def test_assume_role_with_a_wrong_secret_is_refused(emulator: RunningEmulator) -> None:
    with pytest.raises(ServerException) as refused:
        assume_role(emulator, secret="wrong")

    assert refused.value.get_error_code() == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"RoleArn": "not an arn"}, "InvalidParameter.RoleArn"),
        ({"RoleSessionName": "x"}, "InvalidParameter.RoleSessionName"),
        ({"DurationSeconds": "10"}, "InvalidParameter.DurationSeconds"),
    ],
)
def test_assume_role_refuses_bad_parameters(emulator: RunningEmulator, parameters: dict[str, str], code: str) -> None:
    with pytest.raises(ServerException) as refused:
        assume_role(emulator, **parameters)

    assert refused.value.get_error_code() == code


# --- OIDC ---


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def provider(emulator: RunningEmulator, key: rsa.RSAPrivateKey) -> str:
    emulator.admin("PUT", "/oidc-providers", {"arn": PROVIDER, "issuer": ISSUER, "keys": {"keys": [jwk_of(key)]}})
    return PROVIDER


def jwk_of(key: rsa.RSAPrivateKey) -> dict[str, str]:
    return TokenIssuer(key).jwk


def token(key: rsa.RSAPrivateKey, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    claims = {"sub": "system:serviceaccount:default:trainer", **claims}
    return TokenIssuer(key).token(header=header, **claims)


def exchange(
    emulator: RunningEmulator, token: str, provider: str = PROVIDER, **more: str
) -> tuple[int, dict[str, Any]]:
    """AssumeRoleWithOIDC as a form on the STS path; status and JSON answer."""
    status, body = ask(emulator, {"OIDCProviderArn": provider, "OIDCToken": token, "Format": "JSON", **more})
    return status, json.loads(body)


def ask(emulator: RunningEmulator, parameters: dict[str, str]) -> tuple[int, bytes]:
    values = {
        "Action": "AssumeRoleWithOIDC",
        "Version": "2015-04-01",
        "RoleArn": ROLE,
        "RoleSessionName": "pod",
        **parameters,
    }
    request = urllib.request.Request(emulator.sts_endpoint, urllib.parse.urlencode(values).encode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def test_a_service_account_token_buys_working_credentials(
    emulator: RunningEmulator, key: rsa.RSAPrivateKey, provider: str
) -> None:
    status, answer = exchange(emulator, token(key))

    assert status == 200
    assert answer["OIDCTokenInfo"]["Subject"] == "system:serviceaccount:default:trainer"
    bucket_with(emulator, answer["Credentials"]).put_object("k", b"x")


def test_answers_are_xml_unless_json_is_asked_for(
    emulator: RunningEmulator, key: rsa.RSAPrivateKey, provider: str
) -> None:
    _, good = ask(emulator, {"OIDCProviderArn": provider, "OIDCToken": token(key)})
    _, bad = ask(emulator, {"OIDCProviderArn": provider})

    root, error = ElementTree.fromstring(good), ElementTree.fromstring(bad)
    assert root.tag == "AssumeRoleWithOIDCResponse"
    assert (root.findtext("Credentials/AccessKeyId") or "").startswith("STS.")
    assert (error.tag, error.findtext("Code")) == ("Error", "MissingOIDCToken")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"exp": 1_000_000_000}, 401, "AuthenticationFail.OIDCToken.Expired"),
        ({"aud": "somebody.else"}, 400, "AuthenticationFail.OIDCToken.Invalid"),
        ({"iss": "https://evil.example"}, 400, "AuthenticationFail.OIDCToken.Invalid"),
        ({"exp": "soon"}, 400, "AuthenticationFail.OIDCToken.Invalid"),
        ({"nbf": 4_000_000_000}, 400, "AuthenticationFail.OIDCToken.Invalid"),
        ({"header": {"alg": "none"}}, 400, "AuthenticationFail.OIDCToken.Invalid"),
        ({"header": {"alg": "HS256"}}, 400, "AuthenticationFail.OIDCToken.Invalid"),
        ({"header": {"kid": "other"}}, 400, "AuthenticationFail.OIDCToken.Invalid"),
    ],
)
def test_a_token_that_does_not_hold_is_refused(
    emulator: RunningEmulator, key: rsa.RSAPrivateKey, provider: str, change: dict[str, Any], status: int, code: str
) -> None:
    found = exchange(emulator, token(key, **change))

    assert (found[0], found[1]["Code"]) == (status, code)


def test_a_token_signed_by_somebody_else_is_refused(
    emulator: RunningEmulator, key: rsa.RSAPrivateKey, provider: str
) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    genuine = token(key)
    forged = genuine.rpartition(".")[0] + "." + token(other).rpartition(".")[2]

    assert exchange(emulator, token(other))[0] == 400
    assert exchange(emulator, forged)[0] == 400
    assert exchange(emulator, "not.a.token")[0] == 400
    assert exchange(emulator, genuine)[0] == 200


def test_an_unknown_provider_or_action_is_refused(emulator: RunningEmulator, key: rsa.RSAPrivateKey) -> None:
    assert exchange(emulator, token(key), PROVIDER + "-other")[1]["Code"] == "EntityNotExist.OIDCProvider"
    assert exchange(emulator, token(key), Action="GetCallerIdentity")[1]["Code"] == "InvalidAction.NotFound"


# --- a real cluster's tokens, and whom a role trusts ---


@pytest.mark.parametrize("form", ["pem", "jwks"])
def test_a_provider_can_be_given_at_the_start_with_the_keys_of_a_cluster(
    tmp_path: Path, key: rsa.RSAPrivateKey, form: str
) -> None:
    keys = tmp_path / "keys"
    if form == "pem":
        keys.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    else:
        keys.write_text(json.dumps({"keys": [jwk_of(key)]}))
    arguments = ("--oidc-provider", PROVIDER, "--oidc-issuer", ISSUER, "--oidc-keys", str(keys))
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    with start_emulator(tmp_path / "data", arguments=arguments) as running:
        status, answer = exchange(running, token(key))
        refused, _ = exchange(running, token(other))
        bucket_with(running, answer["Credentials"]).put_object("k", b"x")

    assert (status, refused) == (200, 400)


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        (b"no key at all", ("--oidc-provider", PROVIDER, "--oidc-issuer", ISSUER)),
        (b"{}", ("--oidc-provider", PROVIDER, "--oidc-issuer", ISSUER)),
        (b"{}", ("--oidc-provider", PROVIDER)),
    ],
)
def test_keys_that_are_none_stop_the_start_with_one_line(
    tmp_path: Path, content: bytes, arguments: tuple[str, ...]
) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(content)
    command = [sys.executable, "-m", "csi.emulator", "--data", str(tmp_path / "data"), "--port", "0"]

    done = subprocess.run(
        [*command, *arguments, "--oidc-keys", str(keys)], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("emulator: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_role_that_was_told_its_subjects_trusts_no_other(
    emulator: RunningEmulator, key: rsa.RSAPrivateKey, provider: str
) -> None:
    role = "acs:ram::1000000000000000:role/for-one-team"
    emulator.admin("PUT", "/roles", {"arn": role, "subjects": ["system:serviceaccount:team:*"]})

    own, _ = exchange(emulator, token(key, sub="system:serviceaccount:team:trainer"), RoleArn=role)
    other, answer = exchange(emulator, token(key, sub="system:serviceaccount:default:trainer"), RoleArn=role)

    assert own == 200
    assert (other, answer["Code"]) == (403, "NoPermission")


def test_a_role_can_be_given_its_subject_at_the_start(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    subject = "system:serviceaccount:team:trainer"
    with start_emulator(tmp_path, arguments=("--role-subject", f"{ROLE}={subject}")) as running:
        keys = {"keys": [jwk_of(key)]}
        running.admin("PUT", "/oidc-providers", {"arn": PROVIDER, "issuer": ISSUER, "keys": keys})
        statuses = [exchange(running, token(key, sub=sub))[0] for sub in (subject, f"{subject}2")]

    assert statuses == [200, 403]


def test_tokens_live_no_longer_than_a_test_wants(
    emulator: RunningEmulator, key: rsa.RSAPrivateKey, provider: str
) -> None:
    emulator.admin("PUT", "/token-lifetime", {"seconds": 5})
    try:
        _, answer = exchange(emulator, token(key), DurationSeconds="3600")
    finally:
        emulator.admin("PUT", "/token-lifetime", {"seconds": None})

    expires = time.mktime(time.strptime(answer["Credentials"]["Expiration"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert expires - time.time() <= 5
