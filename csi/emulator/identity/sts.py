"""Alibaba Cloud STS (2015-04-01): AssumeRole and AssumeRoleWithOIDC answer with tokens this server accepts.

RPC style: parameters in the query string or in a form, answers in XML or JSON by `Format`. AssumeRole is signed
(SignatureVersion 1.0, HMAC-SHA1 or HMAC-SHA256) with an access key of this server or an STS token; AssumeRoleWithOIDC
is not signed, its OIDC token is verified (`csi/emulator/identity/oidc.py`). Every well-formed role exists and may do
everything; one whose trust was told (`csi/emulator/identity/trust.py`) is for the subjects it names.
Source: STS API reference; "Request syntax and signature method V2 for RPC".
"""

from __future__ import annotations

import base64
import calendar
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from csi.emulator.identity.keyring import Keyring, Token
from csi.emulator.identity.oidc import Identity, OidcProviders
from csi.emulator.identity.trust import RoleTrust
from csi.emulator.store.receive import receive_document
from csi.emulator.wire.answers import Answer
from csi.emulator.wire.call import Call, first_values, parse_query
from csi.emulator.wire.documents import Node, document
from csi.emulator.wire.refusals import Refusal

VERSION = "2015-04-01"
MAX_SKEW = 15 * 60
STS_OPERATIONS = frozenset({"AssumeRole", "AssumeRoleWithOIDC", "SecurityTokenService"})
"""The last is an action that only the body names."""
_ROLE = re.compile(r"acs:ram::(\d+):role/([\w.@-]+)")
_SESSION_NAME = re.compile(r"[A-Za-z0-9.@_-]{2,64}")
_DIGESTS = {"HMAC-SHA1": "sha1", "HMAC-SHA256": "sha256"}


class SecurityTokenService:
    """`now`: seconds since the epoch."""

    def __init__(self, keyring: Keyring, providers: OidcProviders, trust: RoleTrust, now: Callable[[], float]) -> None:
        self._keyring = keyring
        self._providers = providers
        self._trust = trust
        self._now = now

    async def answer(self, call: Call, fault: Refusal | None = None) -> Answer:
        """With `fault`, that refusal in the words of STS, whatever was asked."""
        form = (await receive_document(call)).decode("utf-8", "replace") if call.method == "POST" else ""
        pairs = [*call.pairs, *parse_query(form)]
        values = first_values(pairs)
        try:
            if fault is not None:
                raise fault
            children = self._act(call, values)
        except Refusal as refusal:
            return _render(call, values, "Error", _error(call, refusal), refusal.status, refusal.code)
        return _render(call, values, f"{values['Action']}Response", [("RequestId", call.request_id), *children])

    def _act(self, call: Call, values: Mapping[str, str]) -> list[Node]:
        if values.get("Version", VERSION) != VERSION:
            raise Refusal(400, "InvalidVersion", "Specified parameter Version is not valid.")
        action = values.get("Action", "")
        if action == "AssumeRole":
            self._check_signature(call, values)
            return self._assume(values, None)
        if action == "AssumeRoleWithOIDC":
            token, arn = _required(values, "OIDCToken"), _required(values, "OIDCProviderArn")
            return self._assume(values, self._providers.verify(arn, token, self._now()))
        raise Refusal(404, "InvalidAction.NotFound", "The specified action is not found.")

    def _assume(self, values: Mapping[str, str], identity: Identity | None) -> list[Node]:
        match = _ROLE.fullmatch(_required(values, "RoleArn"))
        if match is None:
            raise Refusal(400, "InvalidParameter.RoleArn", "The parameter RoleArn is wrongly formed.")
        session = _required(values, "RoleSessionName")
        if not _SESSION_NAME.fullmatch(session):
            raise Refusal(400, "InvalidParameter.RoleSessionName", "The parameter RoleSessionName is wrongly formed.")
        duration = values.get("DurationSeconds", "3600")
        if not duration.isdigit() or not 900 <= int(duration) <= 43200:
            message = "The Min/Max value of DurationSeconds is 15min/12hr."
            raise Refusal(400, "InvalidParameter.DurationSeconds", message)
        if identity is not None:
            self._trust.check(match[0], identity)
        account, role = match.groups()
        token = self._keyring.issue(int(duration), match[0])
        user: list[Node] = [
            ("Arn", f"acs:ram::{account}:role/{role}/{session}"),
            ("AssumedRoleId", f"300000000000000000:{session}"),
        ]
        children: list[Node] = [("AssumedRoleUser", user), ("Credentials", _credentials(token))]
        if identity is not None:
            children.insert(0, ("OIDCTokenInfo", _token_info(identity)))
        return children

    def _check_signature(self, call: Call, values: Mapping[str, str]) -> None:
        method = values.get("SignatureMethod", "HMAC-SHA1")
        if method not in _DIGESTS or values.get("SignatureVersion", "1.0") != "1.0":
            raise Refusal(400, "InvalidSignatureMethod", "Supported is SignatureVersion 1.0 with HMAC-SHA1 or -SHA256.")
        self._check_time(_required(values, "Timestamp"))
        _required(values, "SignatureNonce")
        try:
            secret = self._keyring.secret(_required(values, "AccessKeyId"), values.get("SecurityToken", ""))
        except Refusal as refusal:
            if refusal.code == "InvalidAccessKeyId":
                message = "Specified access key is not found."
                raise Refusal(404, "InvalidAccessKeyId.NotFound", message) from None
            raise
        signed = sorted((name, value) for name, value in values.items() if name != "Signature")
        query = "&".join(f"{_encode(name)}={_encode(value)}" for name, value in signed)
        to_sign = f"{call.method}&%2F&{_encode(query)}"
        digest = hmac.digest(f"{secret}&".encode(), to_sign.encode("utf-8", "surrogateescape"), _DIGESTS[method])
        provided = _required(values, "Signature").encode("utf-8", "replace")
        if not hmac.compare_digest(base64.b64encode(digest), provided):
            shown = to_sign if "SecurityToken" not in values else "(not shown, it holds a token)"
            message = f"Specified signature is not matched with our calculation. server string to sign is:{shown}"
            raise Refusal(400, "SignatureDoesNotMatch", message)

    def _check_time(self, timestamp: str) -> None:
        try:
            seconds = calendar.timegm(time.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ"))
        except ValueError:
            raise Refusal(400, "InvalidTimeStamp.Format", "Specified time stamp is not well formatted.") from None
        if abs(seconds - self._now()) > MAX_SKEW:
            raise Refusal(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")


def is_sts(call: Call, sts_path: str) -> bool:
    """STS answers on its own path, and at the root to RPC calls, which is where Alibaba's SDKs send them."""
    if call.path.rstrip("/") == sts_path:
        return True
    return call.path == "/" and (call.method == "POST" or "Action" in call.query)


def sts_operation(call: Call) -> str:
    """What a request to STS is counted as and selected by: its action, where the address says it as SDKs do."""
    action = call.query.get("Action", "")
    return action if action in STS_OPERATIONS else "SecurityTokenService"


def _required(values: Mapping[str, str], name: str) -> str:
    value = values.get(name, "")
    if not value:
        raise Refusal(400, f"Missing{name}", f"{name} is mandatory for this action.")
    return value


def _credentials(token: Token) -> list[Node]:
    return [
        ("AccessKeyId", token.access_key_id),
        ("AccessKeySecret", token.access_key_secret),
        ("SecurityToken", token.security_token),
        ("Expiration", _iso(token.expires)),
    ]


def _token_info(identity: Identity) -> list[Node]:
    return [
        ("Issuer", identity.issuer),
        ("Subject", identity.subject),
        ("ClientIds", ",".join(str(client) for client in identity.client_ids)),
        ("IssuanceTime", _iso(identity.issued)),
        ("ExpirationTime", _iso(identity.expires)),
        ("VerificationInfo", "Success"),
    ]


def _error(call: Call, refusal: Refusal) -> list[Node]:
    return [
        ("RequestId", call.request_id),
        ("HostId", urlsplit(f"//{call.host}").hostname or ""),
        ("Code", refusal.code),
        ("Message", refusal.message),
    ]


def _render(
    call: Call, values: Mapping[str, str], root: str, children: list[Node], status: int = 200, code: str = ""
) -> Answer:
    wants_json = values.get("Format", "XML").upper() == "JSON" or "json" in call.header("Accept")
    if wants_json:
        body = json.dumps(_mapping(children)).encode()
        return Answer(status, {"Content-Type": "application/json;charset=utf-8"}, body, code=code)
    return Answer(status, {"Content-Type": "text/xml;charset=utf-8"}, document(root, children), code=code)


def _mapping(children: list[Node]) -> dict[str, object]:
    return {name: value if isinstance(value, str | int) else _mapping(list(value)) for name, value in children}


def _encode(value: str) -> str:
    return quote(value, safe="-_.~", errors="surrogateescape")


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
