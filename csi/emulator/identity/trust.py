"""Whom a role trusts: the condition `oidc:sub` of its trust policy, for the roles that have one here.

A role nobody spoke of trusts every identity of every provider; one that was told its subjects trusts those alone.
Survives a restart.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from typing import Any

from csi.emulator.identity.oidc import Identity
from csi.emulator.store.index import Index
from csi.emulator.wire.refusals import Refusal, invalid_argument

_FACT = "role trust "


class RoleTrust:
    def __init__(self, index: Index) -> None:
        self._index = index

    def register(self, values: Mapping[str, Any]) -> None:
        """`arn` and `subjects`, patterns as StringLike has them (`system:serviceaccount:team:*`)."""
        arn, subjects = str(values.get("arn", "")), values.get("subjects")
        if not arn or not isinstance(subjects, list) or not all(isinstance(subject, str) for subject in subjects):
            raise invalid_argument("A role needs arn and subjects, a list of patterns.", "arn", arn)
        self.trust(arn, subjects)

    def trust(self, arn: str, subjects: Sequence[str]) -> None:
        self._index.set_fact(_FACT + arn, json.dumps(list(subjects)))

    def check(self, arn: str, identity: Identity) -> None:
        """NoPermission unless the role trusts `identity`."""
        fact = self._index.fact(_FACT + arn)
        if fact and not any(fnmatch.fnmatchcase(identity.subject, subject) for subject in json.loads(fact)):
            message = "You are not authorized to do this action. You should be authorized by RAM."
            raise Refusal(403, "NoPermission", message)
