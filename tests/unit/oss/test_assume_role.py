from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from csi.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    EndpointUnreachable,
    PermissionDenied,
    RequestRejected,
    ServerFailure,
    StoreError,
)
from csi.oss.assume_role import RoleClaim, RoleExchange, session_name, sts_endpoint
from csi.oss.exchange import HttpAnswer
from csi.volume.spec import Location
from csi.volume.units import Seconds
from tests.support.scripted_transport import ScriptedTransport, Step, Time

TOKEN = "header.claims.signature-do-not-show"
CLAIM = RoleClaim("acs:ram::1:role/training", "acs:ram::1:oidc-provider/ack", "team/trainer", "team.train-0", TOKEN)
CREDENTIALS = {
    "AccessKeyId": "STS.abcdefghijkl",
    "AccessKeySecret": "sts-secret",
    "SecurityToken": "sts-token",
    "Expiration": "2033-05-18T03:33:20Z",
}
GOOD = HttpAnswer(200, {}, json.dumps({"RequestId": "R-1", "Credentials": CREDENTIALS}).encode())


def refused(status: int, code: str, message: str = "no") -> HttpAnswer:
    return HttpAnswer(status, {}, json.dumps({"Code": code, "Message": message, "RequestId": "R-7"}).encode())


class Sts:
    def __init__(self, *steps: Step, endpoint: str = "https://sts.example") -> None:
        self.transport = ScriptedTransport(list(steps))
        self.time = Time()
        self.endpoint = endpoint
        self.exchange = RoleExchange(
            self.transport, clock=self.time.clock, monotonic=self.time.clock, sleep=self.time.sleep
        )

    def assume(self, patience: float = 8.0):
        return self.exchange.assume(self.endpoint, CLAIM, Seconds(patience))


def test_the_token_buys_credentials_with_an_expiration() -> None:
    found = Sts(GOOD).assume()

    assert (found.access_key_id, found.access_key_secret, found.security_token) == (
        "STS.abcdefghijkl",
        "sts-secret",
        "sts-token",
    )
    assert found.expiration == 2_000_000_000.0


def test_the_request_is_an_unsigned_form_and_the_token_is_in_its_body_only() -> None:
    sts = Sts(GOOD)
    sts.assume()

    (request,) = sts.transport.requests
    query = parse_qs(urlsplit(request.url).query)
    form = parse_qs(b"".join(bytes(part) for part in request.body).decode())
    assert request.method == "POST"
    assert (query["Action"], query["Version"], query["Format"]) == (["AssumeRoleWithOIDC"], ["2015-04-01"], ["JSON"])
    assert "Signature" not in request.url and TOKEN not in request.url
    assert form == {
        "RoleArn": [CLAIM.role_arn],
        "OIDCProviderArn": [CLAIM.provider_arn],
        "OIDCToken": [TOKEN],
        "RoleSessionName": ["team.train-0"],
        "DurationSeconds": ["3600"],
    }


@pytest.mark.parametrize(
    ("endpoint", "path"), [("https://sts.example", "/"), ("http://127.0.0.1:1/sts", "/sts"), ("http://h:1/a/b", "/a/b")]
)
def test_an_endpoint_may_have_a_path(endpoint: str, path: str) -> None:
    sts = Sts(GOOD, endpoint=endpoint)
    sts.assume()

    assert urlsplit(sts.transport.requests[0].url).path == path


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (refused(400, "AuthenticationFail.OIDCToken.Invalid"), AuthenticationFailed, "OIDC provider in RAM"),
        (refused(401, "AuthenticationFail.OIDCToken.Expired"), AuthenticationFailed, "clock of this node"),
        (refused(404, "EntityNotExist.OIDCProvider"), AuthenticationFailed, "check oidcProviderArn"),
        (refused(404, "EntityNotExist.Role"), PermissionDenied, "check roleArn"),
        (refused(403, "NoPermission"), PermissionDenied, "trust policy of the role"),
        (refused(403, "SomethingNew"), PermissionDenied, "trust policy of the role"),
        (refused(400, "InvalidParameter.RoleArn"), RequestRejected, "check roleArn and oidcProviderArn"),
        (HttpAnswer(404, {}, b"<html>not here</html>"), EndpointUnreachable, "check --sts-endpoint"),
    ],
)
def test_a_refusal_is_typed_and_says_who_wanted_what_where_and_what_to_check(
    answer: HttpAnswer, kind: type[StoreError], words: str
) -> None:
    sts = Sts(*[answer] * 3)

    with pytest.raises(kind) as raised:
        sts.assume()

    assert "AssumeRoleWithOIDC at https://sts.example: service account team/trainer" in raised.value.message
    assert "role acs:ram::1:role/training through acs:ram::1:oidc-provider/ack" in raised.value.message
    assert words in raised.value.hint
    assert TOKEN not in str(raised.value)


def test_the_request_id_that_support_asks_for_is_told() -> None:
    with pytest.raises(PermissionDenied, match=r"403 NoPermission: no \(request R-7\)"):
        Sts(refused(403, "NoPermission")).assume()


@pytest.mark.parametrize(
    "failure",
    [refused(503, "ServiceUnavailable"), refused(400, "Throttling.User"), EndpointUnreachable("reset")],
    ids=["503", "throttled", "reset"],
)
def test_what_may_pass_is_tried_again(failure: Step) -> None:
    sts = Sts(failure, failure, GOOD)

    assert sts.assume().security_token == "sts-token"
    assert len(sts.transport.requests) == 3


def test_it_is_tried_three_times_and_no_more() -> None:
    sts = Sts(*[refused(503, "ServiceUnavailable")] * 4)

    with pytest.raises(ServerFailure, match="503 ServiceUnavailable"):
        sts.assume()

    assert len(sts.transport.requests) == 3


@pytest.mark.parametrize(
    "failure", [EndpointUnreachable("refused"), DeadlineExceeded("silent", hint="raise a timeout")]
)
def test_silence_says_where_was_asked_and_how_to_ask_elsewhere(failure: StoreError) -> None:
    with pytest.raises(EndpointUnreachable, match=r"at https://sts.example: .*security groups.*--sts-endpoint"):
        Sts(*[failure] * 3).assume()


def test_a_refusal_is_not_tried_again() -> None:
    sts = Sts(refused(403, "NoPermission"), GOOD)

    with pytest.raises(PermissionDenied):
        sts.assume()

    assert len(sts.transport.requests) == 1


def test_nothing_is_tried_when_patience_is_over() -> None:
    sts = Sts(EndpointUnreachable("reset"), GOOD)

    with pytest.raises(EndpointUnreachable):
        sts.assume(patience=0.2)

    assert len(sts.transport.requests) == 1


@pytest.mark.parametrize(
    "changes", [{"SecurityToken": ""}, {"Expiration": ""}], ids=["without a token", "without an expiration"]
)
def test_credentials_that_would_last_for_ever_are_not_taken(changes: dict[str, str]) -> None:
    answer = HttpAnswer(200, {}, json.dumps({"Credentials": {**CREDENTIALS, **changes}}).encode())

    with pytest.raises(ServerFailure, match="no temporary credentials"):
        Sts(*[answer] * 3).assume()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b'{"Credentials": 7}'])
def test_an_answer_that_is_none_of_sts_is_told_as_such(body: bytes) -> None:
    with pytest.raises(StoreError) as raised:
        Sts(*[HttpAnswer(200, {}, body)] * 3).assume()

    assert "--sts-endpoint" in raised.value.hint


@pytest.mark.parametrize(
    ("location", "endpoint"),
    [
        (
            Location("b", "https://oss-cn-beijing.aliyuncs.com", region="cn-beijing"),
            "https://sts.cn-beijing.aliyuncs.com",
        ),
        (
            Location("b", "https://oss-cn-beijing-internal.aliyuncs.com", region="cn-beijing"),
            "https://sts-vpc.cn-beijing.aliyuncs.com",
        ),
        (Location("b", "https://data.example.com"), "https://sts.aliyuncs.com"),
    ],
)
def test_sts_is_asked_where_the_bucket_is(location: Location, endpoint: str) -> None:
    assert sts_endpoint(location) == endpoint


def test_a_session_is_named_after_the_pod_in_at_most_64_characters() -> None:
    assert session_name("team", "train-0") == "team.train-0"
    assert len(session_name("n" * 63, "p" * 253)) == 64


def test_no_repr_shows_the_token() -> None:
    assert TOKEN not in repr(CLAIM)
