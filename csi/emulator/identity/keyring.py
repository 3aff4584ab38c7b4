"""Who may sign: the access keys given at start and the STS tokens issued since, with their expiry.

Tokens survive a restart. Secrets leave only as the key of an HMAC; `repr` shows none.
"""

from __future__ import annotations

import hmac
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from csi.emulator.store.index import Index
from csi.emulator.wire.refusals import Refusal

_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Token:
    """An STS answer. `expires`: seconds since the epoch."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)
    expires: float
    role: str = ""


class Keyring:
    def __init__(self, index: Index, keys: Mapping[str, str], now: Callable[[], float]) -> None:
        self._index = index
        self._keys = dict(keys)
        self._now = now
        self.longest_life: float | None = None  # seconds; what is asked of STS is cut to it

    def __repr__(self) -> str:
        return f"Keyring({sorted(self._keys)})"

    def issue(self, lifetime_seconds: float, role: str = "") -> Token:
        life = lifetime_seconds if self.longest_life is None else min(lifetime_seconds, self.longest_life)
        token = Token("STS." + _random(24), _random(44), _random(172), self._now() + life, role)
        with self._index.changing() as db:
            db.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?)",
                (token.access_key_id, token.access_key_secret, token.security_token, token.expires, role),
            )
        return token

    def expire(self, access_key_id: str = "") -> int:
        """Make one token (or all) expired as of now; returns how many."""
        with self._index.changing() as db:
            cursor = db.execute(
                "UPDATE tokens SET expires = ? WHERE expires > ? AND (? = '' OR access_key_id = ?)",
                (self._now() - 1, self._now() - 1, access_key_id, access_key_id),
            )
            return cursor.rowcount

    def secret(self, access_key_id: str, security_token: str) -> str:
        """The secret to verify with; refuses unknown keys, wrong tokens and expired ones (403)."""
        if access_key_id in self._keys and not security_token:
            return self._keys[access_key_id]
        row = self._index.query(
            "SELECT secret, token, expires FROM tokens WHERE access_key_id = ?", (access_key_id,)
        ).fetchone()
        if row is None and access_key_id not in self._keys:
            raise Refusal(
                403,
                "InvalidAccessKeyId",
                "The OSS Access Key Id you provided does not exist in our records.",
                fields={"OSSAccessKeyId": access_key_id[:128]},
            )
        if row is None or not hmac.compare_digest(str(row[1]).encode(), security_token.encode("utf-8", "replace")):
            raise Refusal(403, "InvalidSecurityToken", "The security token you provided is invalid.")
        if float(row[2]) <= self._now():
            raise expired_token()
        return str(row[0])


def expired_token() -> Refusal:
    return Refusal(403, "SecurityTokenExpired", "The security token you provided has expired.")


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
