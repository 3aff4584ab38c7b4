"""OIDC identity providers and the tokens they sign: what AssumeRoleWithOIDC needs to trust a service account.

Providers are registered at the start or by admin call (issuer, client ids, keys) and survive a restart. Tokens are JWTs
signed with RS256 (RFC 7515, 7519), the algorithm of Kubernetes service accounts; others are refused. Verification uses
public values only, so plain integer arithmetic (RFC 8017 §8.2.2, by comparing the whole encoded message) is enough.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from csi.emulator.store.index import Index
from csi.emulator.wire.refusals import Refusal, invalid_argument
from csi.errors import OssFuseError

_FACT = "oidc provider "
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
_CLOCK_LEEWAY = 60


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a verified token speaks for. Times in seconds since the epoch."""

    issuer: str
    subject: str
    client_ids: tuple[str, ...]
    issued: float
    expires: float


def read_keys(path: Path) -> dict[str, Any]:
    """A JSON Web Key Set, from a file that holds one (what a cluster answers at /openid/v1/jwks) or a PEM public key
    (kube-apiserver's --service-account-key-file). Raises OssFuseError."""
    try:
        data = path.read_bytes()
        if data.lstrip().startswith(b"{"):
            keys = json.loads(data)
            if isinstance(keys, dict) and keys.get("keys"):
                return keys
        elif isinstance(found := serialization.load_pem_public_key(data), rsa.RSAPublicKey):
            numbers = found.public_numbers()
            return {"keys": [{"kty": "RSA", "n": _number_text(numbers.n), "e": _number_text(numbers.e)}]}
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise OssFuseError(f"{path}: {error}", hint="check --oidc-keys") from error
    raise OssFuseError(f"{path} holds neither a JSON Web Key Set nor an RSA public key", hint="check --oidc-keys")


class OidcProviders:
    def __init__(self, index: Index) -> None:
        self._index = index

    def register(self, values: Mapping[str, Any]) -> None:
        """`arn`, `issuer`, `client_ids` (default sts.aliyuncs.com) and `keys`, a JSON Web Key Set."""
        arn, issuer = str(values.get("arn", "")), str(values.get("issuer", ""))
        keys = values.get("keys")
        if not arn or not issuer or not isinstance(keys, dict) or not keys.get("keys"):
            raise invalid_argument("A provider needs arn, issuer and keys, a JSON Web Key Set.", "arn", arn)
        kept = {"issuer": issuer, "client_ids": values.get("client_ids", ["sts.aliyuncs.com"]), "keys": keys}
        self._index.set_fact(_FACT + arn, json.dumps(kept))

    def verify(self, arn: str, token: str, now: float) -> Identity:
        """The identity in `token`; refuses an unknown provider, a bad signature, issuer, audience or time."""
        fact = self._index.fact(_FACT + arn)
        if not fact:
            raise Refusal(404, "EntityNotExist.OIDCProvider", "The specified OIDC provider does not exist.")
        provider = json.loads(fact)
        header, claims, signed, signature = _decode(token)
        if header.get("alg") != "RS256" or not any(
            _rs256_verifies(key, signed, signature) for key in _candidates(provider["keys"], header)
        ):
            raise _invalid("The signature of the OIDC token does not verify.")
        if claims.get("iss") != provider["issuer"]:
            raise _invalid("The issuer of the OIDC token is not the provider's.")
        audience = claims.get("aud")
        client_ids = tuple(audience if isinstance(audience, list) else [audience])
        if not set(client_ids) & set(provider["client_ids"]):
            raise _invalid("The audience of the OIDC token is not a client id of the provider.")
        expires = _number(claims, "exp")
        if expires <= now:
            raise Refusal(401, "AuthenticationFail.OIDCToken.Expired", "The OIDC token is expired.")
        if "nbf" in claims and _number(claims, "nbf") > now + _CLOCK_LEEWAY:
            raise _invalid("The OIDC token is not valid yet.")
        issued = _number(claims, "iat") if "iat" in claims else now
        return Identity(provider["issuer"], str(claims.get("sub", "")), client_ids, issued, expires)


def _decode(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    parts = token.split(".")
    try:
        header, claims = (json.loads(_octets(part)) for part in parts[:2])
        signature = _octets(parts[2])
    except (ValueError, IndexError):
        raise _invalid("The OIDC token is not a signed JWT.") from None
    if len(parts) != 3 or not isinstance(header, dict) or not isinstance(claims, dict):
        raise _invalid("The OIDC token is not a signed JWT.")
    return header, claims, f"{parts[0]}.{parts[1]}".encode(), signature


def _candidates(keys: Mapping[str, Any], header: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    wanted = header.get("kid")
    rsa = [key for key in keys["keys"] if key.get("kty") == "RSA"]
    return [key for key in rsa if wanted is None or key.get("kid") in (wanted, None)]


def _rs256_verifies(key: Mapping[str, Any], signed: bytes, signature: bytes) -> bool:
    try:
        modulus, exponent = (int.from_bytes(_octets(str(key.get(name, ""))), "big") for name in ("n", "e"))
    except ValueError:
        return False
    size = (modulus.bit_length() + 7) // 8
    if size < 256 or len(signature) != size:  # RFC 7518 §3.3: at least 2048 bits
        return False
    opened = pow(int.from_bytes(signature, "big"), exponent, modulus).to_bytes(size, "big")
    digest = _SHA256_PREFIX + hashlib.sha256(signed).digest()
    expected = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
    return hmac.compare_digest(opened, expected)


def _number_text(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from None


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(f"The OIDC token has no valid {name}.")
    return float(value)


def _invalid(message: str) -> Refusal:
    return Refusal(400, "AuthenticationFail.OIDCToken.Invalid", message)
