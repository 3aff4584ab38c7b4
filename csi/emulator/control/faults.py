"""Misbehaviour on request: which faults strike a request, decided once when it arrives.

A rule selects requests by operation, bucket and key, and may skip the first ones, strike only the next few, or strike
with a probability from a seeded generator, so a run can be repeated. It must not know sockets: the effects are carried
out by `csi/emulator/wire/send.py` and the body reader.
"""

from __future__ import annotations

import asyncio
import difflib
import fnmatch
import math
import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields

from csi.emulator.control.given import refuse
from csi.emulator.wire.call import Call
from csi.emulator.wire.refusals import invalid_argument

_HUGE = 2**63
_RANGES = {
    "skip": (0, _HUGE),
    "count": (-1, _HUGE),
    "probability": (0, 1),
    "latency": (0, _HUGE),
    "bandwidth": (0, _HUGE),
    "reset_after": (-1, _HUGE),
    "reset_upload_after": (-1, _HUGE),
    "truncate_after": (-1, _HUGE),
}
"""The least and the most of each number; infinities and NaN, which Python reads from JSON, are in none of them."""
_FIRST_ERROR, _LAST_ERROR = 400, 599
_SELECTION = ("operation", "bucket", "key", "skip", "count", "probability", "seed", "code")


@dataclass(frozen=True, slots=True)
class Rule:
    """Selection, then effects. Sizes in bytes, times in seconds; −1 and '' mean "not this effect".

    operation: names of operations separated by commas, `*` any. key, bucket: shell patterns.
    skip: let so many selected requests pass first. count: then strike so many (−1: for ever).
    probability, seed: strike each with this probability, repeatable.

    latency: wait before doing anything, or until the rule is cleared. bandwidth: bytes per second in both directions.
    status, code: answer this error without doing the operation. reset_after: reset the connection after so many bytes
    of the response body. reset_upload_after: likewise of the request body. drop_answer: do the operation, then reset
    the connection instead of answering. truncate_after: end the connection after so many bytes of the response body,
    Content-Length unchanged. wrong_crc64: a false x-oss-hash-crc64ecma. corrupt_body: one byte of the response body is
    flipped. corrupt_upload: the first byte of the request body is. expire_token: the security token counts as expired.
    blackhole: never answer, keep the connection.
    """

    operation: str = "*"
    bucket: str = "*"
    key: str = "*"
    skip: int = 0
    count: int = -1
    probability: float = 1.0
    seed: int = 0
    latency: float = 0.0
    bandwidth: float = 0.0
    status: int = 0
    code: str = ""
    reset_after: int = -1
    reset_upload_after: int = -1
    drop_answer: bool = False
    truncate_after: int = -1
    wrong_crc64: bool = False
    corrupt_body: bool = False
    corrupt_upload: bool = False
    expire_token: bool = False
    blackhole: bool = False


_EFFECTS = tuple(item.name for item in fields(Rule) if item.name not in _SELECTION)


@dataclass(slots=True)
class _Armed:
    """A rule with what it has done so far."""

    id: str
    rule: Rule
    dice: random.Random
    seen: int = 0
    struck: int = 0


@dataclass(slots=True)
class Plan:
    """The effects on one request: those of all rules that strike it, the last rule winning where they contradict."""

    rules: list[Rule] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def latency(self) -> float:
        return sum(rule.latency for rule in self.rules)

    @property
    def bandwidth(self) -> float:
        return min((rule.bandwidth for rule in self.rules if rule.bandwidth > 0), default=0.0)

    @property
    def error(self) -> Rule | None:
        return next((rule for rule in reversed(self.rules) if rule.status), None)

    @property
    def reset_after(self) -> int:
        return _smallest(rule.reset_after for rule in self.rules)

    @property
    def reset_upload_after(self) -> int:
        return _smallest(rule.reset_upload_after for rule in self.rules)

    @property
    def truncate_after(self) -> int:
        return _smallest(rule.truncate_after for rule in self.rules)

    def any(self, effect: str) -> bool:
        return any(getattr(rule, effect) for rule in self.rules)


class Faults:
    """Used on the event loop only. `changed` is replaced, and the old one set, whenever rules change."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._serial = 0
        self.changed = asyncio.Event()

    def add(self, rule: Rule) -> str:
        self._serial += 1
        armed = _Armed(f"fault-{self._serial}", rule, random.Random(rule.seed))
        self._armed.append(armed)
        self._signal()
        return armed.id

    def clear(self, rule_id: str = "") -> int:
        kept = [armed for armed in self._armed if rule_id and armed.id != rule_id]
        removed = len(self._armed) - len(kept)
        self._armed = kept
        self._signal()
        return removed

    def describe(self) -> list[dict[str, object]]:
        return [
            {"id": armed.id, "seen": armed.seen, "struck": armed.struck, **_as_dict(armed.rule)}
            for armed in self._armed
        ]

    def plan(self, call: Call) -> Plan:
        plan = Plan()
        for armed in self._armed:
            if not _selects(armed.rule, call):
                continue
            armed.seen += 1
            if armed.seen <= armed.rule.skip or 0 <= armed.rule.count <= armed.struck:
                continue
            if armed.rule.probability < 1 and armed.dice.random() >= armed.rule.probability:
                continue
            armed.struck += 1
            plan.rules.append(armed.rule)
            plan.names.append(armed.id)
        return plan

    def lifted(self, plan: Plan) -> bool:
        """Whether every rule of `plan` has been cleared since."""
        return not any(armed.id in plan.names for armed in self._armed)

    def _signal(self) -> None:
        previous, self.changed = self.changed, asyncio.Event()
        previous.set()


def parse_rule(values: Mapping[str, object], operations: Collection[str]) -> Rule:
    """A rule from JSON; refuses unknown names, values of the wrong kind or out of range, and a rule that could never
    strike or would do nothing. `operations` are the names that requests have."""
    kinds = {item.name: type(getattr(Rule(), item.name)) for item in fields(Rule)}
    parsed: dict[str, object] = {}
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None:
            raise invalid_argument(f"Unknown fault setting {name!r}; known are {', '.join(kinds)}.", name)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < _HUGE else math.inf  # noqa: PLW2901 - JSON has one kind of number
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise invalid_argument(f"{name} must be a {kind.__name__}.", name, str(value))
        parsed[name] = value
    for name, (least, most) in _RANGES.items():
        value = parsed.get(name, least)
        if not isinstance(value, int | float) or not least <= value <= most:
            raise refuse(name, value, f"a number from {least:g}" + (f" to {most:g}" if most < _HUGE else ""))
    rule = Rule(**parsed)  # type: ignore[arg-type]  # each value was checked against its field above
    if rule.status and not _FIRST_ERROR <= rule.status <= _LAST_ERROR:
        raise refuse("status", rule.status, f"an HTTP error, {_FIRST_ERROR} to {_LAST_ERROR}")
    if rule.code and not rule.status:
        raise refuse("code", rule.code, "this only together with status")
    for name in _named_operations(rule):
        if not any(fnmatch.fnmatchcase(operation, name) for operation in operations):
            near = difflib.get_close_matches(name, operations, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(operations))}"
            raise invalid_argument(f"operation: there is no {name!r}; {hint}", "operation", rule.operation)
    if all(getattr(rule, effect) == getattr(Rule(), effect) for effect in _EFFECTS):
        raise invalid_argument(f"The rule has no effect; give one of {', '.join(_EFFECTS)}.")
    return rule


def _named_operations(rule: Rule) -> list[str]:
    return [name.strip() for name in rule.operation.split(",")]


def _selects(rule: Rule, call: Call) -> bool:
    return (
        any(fnmatch.fnmatchcase(call.operation, name) for name in _named_operations(rule))
        and fnmatch.fnmatchcase(call.bucket, rule.bucket)
        and fnmatch.fnmatchcase(call.key, rule.key)
    )


def _smallest(values: Iterable[int]) -> int:
    return min((value for value in values if value >= 0), default=-1)


def _as_dict(rule: Rule) -> dict[str, object]:
    default = Rule()
    return {
        item.name: getattr(rule, item.name)
        for item in fields(Rule)
        if getattr(rule, item.name) != getattr(default, item.name)
    }
