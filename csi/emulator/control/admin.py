"""The admin API: JSON over HTTP under the admin path, from the same machine only. Documented in docs/emulator.md.

Not part of OSS: it makes faults, tells what happened, seeds objects, creates buckets and issues tokens.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from csi.emulator.control import given
from csi.emulator.control.faults import Faults, parse_rule
from csi.emulator.control.seeds import Seeder
from csi.emulator.control.traffic import Traffic
from csi.emulator.identity.keyring import Keyring
from csi.emulator.identity.oidc import OidcProviders
from csi.emulator.identity.trust import RoleTrust
from csi.emulator.operations.buckets import BUCKET_ACLS, check_bucket_name
from csi.emulator.store.receive import receive_document
from csi.emulator.store.storage import Storage
from csi.emulator.wire.answers import Answer
from csi.emulator.wire.call import Call
from csi.emulator.wire.refusals import Refusal, access_denied, invalid_argument


class Admin:
    """`operations` are the names that fault rules may select by."""

    def __init__(
        self,
        storage: Storage,
        keyring: Keyring,
        providers: OidcProviders,
        trust: RoleTrust,
        faults: Faults,
        traffic: Traffic,
        operations: Collection[str],
    ) -> None:
        self._storage = storage
        self._keyring = keyring
        self._providers = providers
        self._trust = trust
        self._faults = faults
        self._traffic = traffic
        self._operations = operations
        self._seeder = Seeder(storage)
        self._calls: Mapping[tuple[str, str], Callable[[Call], Awaitable[object]]] = {
            ("GET", "/health"): self._health,
            ("GET", "/faults"): self._list_faults,
            ("POST", "/faults"): self._add_fault,
            ("DELETE", "/faults"): self._clear_faults,
            ("GET", "/counters"): self._counters,
            ("DELETE", "/counters"): self._reset_counters,
            ("GET", "/requests"): self._requests,
            ("POST", "/seed"): self._seeder.seed,
            ("PUT", "/buckets"): self._create_bucket,
            ("POST", "/tokens"): self._issue_token,
            ("PUT", "/oidc-providers"): self._register_provider,
            ("PUT", "/roles"): self._register_role,
            ("PUT", "/token-lifetime"): self._limit_lifetime,
            ("DELETE", "/tokens"): self._expire_tokens,
        }

    async def answer(self, call: Call) -> Answer:
        if not _is_loopback(call.notes.get("peer", "")):
            raise access_denied("The admin API answers this machine only.")
        handler = self._calls.get((call.method, call.path.rstrip("/")))
        if handler is None:
            known = ", ".join(f"{method} {path}" for method, path in self._calls)
            raise Refusal(404, "NoSuchAdminCall", f"{call.method} {call.path} is not one of: {known}")
        result = await handler(call)
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(result).encode())

    def ensure_bucket(self, name: str, *, public: bool = False, acl: str = "") -> None:
        """The bucket exists afterwards. `public`: anybody may read and list it."""
        check_bucket_name(name)
        wanted = acl or ("public-read" if public else "private")
        if wanted not in BUCKET_ACLS:
            raise invalid_argument("The bucket ACL you specified is invalid.", "acl", wanted)
        if self._storage.index.bucket(name) is None:
            self._storage.index.create_bucket(name, int(self._storage.now()), wanted, listable=public)
        elif public or acl:
            self._storage.index.set_bucket_acl(name, wanted, listable=public)

    async def _health(self, _: Call) -> object:
        return {"status": "ok"}

    async def _list_faults(self, _: Call) -> object:
        return self._faults.describe()

    async def _add_fault(self, call: Call) -> object:
        return {"id": self._faults.add(parse_rule(await _json(call), self._operations))}

    async def _clear_faults(self, call: Call) -> object:
        return {"removed": self._faults.clear(call.query.get("id", ""))}

    async def _counters(self, _: Call) -> object:
        return self._traffic.counters()

    async def _reset_counters(self, _: Call) -> object:
        self._traffic.reset()
        return {}

    async def _requests(self, call: Call) -> object:
        return self._traffic.requests(call.whole_number("since") if "since" in call.query else 0)

    async def _create_bucket(self, call: Call) -> object:
        values = await _json(call)
        name, acl = given.text(values, "name"), given.text(values, "acl")
        self.ensure_bucket(name, public=values.get("public") is True, acl=acl)
        return {}

    async def _issue_token(self, call: Call) -> object:
        values = await _json(call)
        token = self._keyring.issue(float(given.number(values, "seconds", 3600)), given.text(values, "role"))
        return {
            "AccessKeyId": token.access_key_id,
            "AccessKeySecret": token.access_key_secret,
            "SecurityToken": token.security_token,
            "Expires": token.expires,
        }

    async def _register_provider(self, call: Call) -> object:
        self._providers.register(await _json(call))
        return {}

    async def _register_role(self, call: Call) -> object:
        self._trust.register(await _json(call))
        return {}

    async def _limit_lifetime(self, call: Call) -> object:
        seconds = (await _json(call)).get("seconds")
        if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < float("inf")):
            raise invalid_argument("A lifetime is a number of seconds, or null for what is asked.")
        self._keyring.longest_life = seconds
        return {}

    async def _expire_tokens(self, call: Call) -> object:
        return {"expired": self._keyring.expire(call.query.get("access_key_id", ""))}


async def _json(call: Call) -> Mapping[str, Any]:
    body = await receive_document(call)
    try:
        values = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise invalid_argument("The body is not JSON.") from None
    if not isinstance(values, dict):
        raise invalid_argument("The body is not a JSON object.")
    return values


def _is_loopback(peer: str) -> bool:
    try:
        found = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
