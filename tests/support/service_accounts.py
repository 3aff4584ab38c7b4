"""Tokens of service accounts as a cluster signs them, and the volume context that kubelet hands them over in."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.emulator import RunningEmulator
from tests.support.secret_watch import watch_secret

ROLE = "acs:ram::1000000000000000:role/training"
PROVIDER = "acs:ram::1000000000000000:oidc-provider/ack-rrsa-test"
ISSUER = "https://oidc.example/cluster"
TOKENS = "csi.storage.k8s.io/serviceAccount.tokens"


@dataclass(frozen=True)
class TokenIssuer:
    """A cluster that signs tokens; an emulator trusts it once it is registered there."""

    key: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048), repr=False
    )

    @property
    def jwk(self) -> dict[str, str]:
        numbers = self.key.public_key().public_numbers()
        return {"kty": "RSA", "kid": "k1", "alg": "RS256", "n": _b64(_bytes(numbers.n)), "e": _b64(_bytes(numbers.e))}

    def register(self, emulator: RunningEmulator) -> None:
        emulator.admin("PUT", "/oidc-providers", {"arn": PROVIDER, "issuer": ISSUER, "keys": {"keys": [self.jwk]}})

    def token(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token of service account `trainer`, unless `claims` say otherwise."""
        head = {"alg": "RS256", "kid": "k1", **(header or {})}
        body = {
            "iss": ISSUER,
            "aud": ["sts.aliyuncs.com"],
            "sub": "system:serviceaccount:team:trainer",
            "iat": int(time.time()),
            "exp": int(time.time()) + 600,
            **claims,
        }
        signed = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(body).encode())}"
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return watch_secret(f"{signed}.{_b64(signature)}")


def pod_context(
    *, token: str = "", uid: str = "uid-1", name: str = "train-0", namespace: str = "team", account: str = "trainer"
) -> dict[str, str]:
    """What kubelet adds to a volume's attributes with podInfoOnMount and, with a `token`, tokenRequests."""
    prefix = "csi.storage.k8s.io/"
    context = {
        f"{prefix}pod.uid": uid,
        f"{prefix}pod.name": name,
        f"{prefix}pod.namespace": namespace,
        f"{prefix}serviceAccount.name": account,
        f"{prefix}ephemeral": "false",
    }
    return {**context, **tokens_of(token)} if token else context


def tokens_of(token: str) -> dict[str, str]:
    """The entry that holds the tokens, among attributes or secrets."""
    value = {"sts.aliyuncs.com": {"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"}}
    return {TOKENS: json.dumps(value)}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
