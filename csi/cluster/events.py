"""Tells pods what happened to their volumes, as events that `kubectl describe pod` shows.

Reporting returns at once; one thread does the rest, in order of when each is due: it looks up why a sidecar ended
(kubelet says so a moment later), adds to an event that is there already, and tries again while the API server is away.
Everything is bounded: what waits, how often one pod is told, how long is tried. What cannot be told is in the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

from csi.cluster.api import JsonObject, KubernetesApi, resource_path
from csi.cluster.incident_words import Termination, Told, termination_of, told
from csi.errors import ApiConflict, ApiUnreachable, ObjectMissing, OssFuseError
from csi.handover.types import Incident, IncidentKind, PodReference
from csi.volume.naming import DRIVER_NAME
from csi.volume.units import Seconds

log = logging.getLogger(__name__)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_REMEMBERED: Final = 2048
_LONGEST_NAME: Final = 230
_LOOKED_UP: Final = (IncidentKind.SIDECAR_ENDED, IncidentKind.SIDECAR_RESTARTED)


@dataclass(frozen=True, slots=True)
class Pace:
    """`waiting`: incidents at a time. An end is looked up for `look_for`, every `look_every`. A pod is told `burst`
    things at once, then one each `refill`. An API server that does not answer is asked `tries` times, first after
    `pause`. `farewell`: for what is still waiting at the end."""

    waiting: int = 256
    look_for: Seconds = Seconds(15.0)
    look_every: Seconds = Seconds(0.5)
    burst: int = 12
    refill: Seconds = Seconds(60.0)
    tries: int = 8
    pause: Seconds = Seconds(1.0)
    farewell: Seconds = Seconds(2.0)


@dataclass(slots=True)
class _Report:
    """`looked_until` and due times by the monotonic clock, `moment` by the wall's."""

    pod: PodReference
    incident: Incident
    moment: float
    looked_until: float
    failures: int = 0


@dataclass(slots=True)
class _Event:
    name: str
    count: int = 0
    sent: bool = False


@dataclass(slots=True)
class _Allowance:
    left: float
    updated: float


@dataclass(frozen=True, slots=True)
class EventStatistics:
    """`told` events written, `dropped` incidents that were not (full, too many for a pod, refused, given up)."""

    told: int = 0
    dropped: int = 0


@dataclass
class PodEvents:
    """Implements `IncidentReporter`. `start` first, `close` at the end.

    `_waiting` guards `_due`, `_closing` and the counters; the rest belongs to the thread. No lock is held in a call.
    """

    api: KubernetesApi
    node: str
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._waiting = threading.Condition()
        self._due: list[tuple[float, int, _Report]] = []
        self._serial = itertools.count()
        self._closing = False
        self._told = self._dropped = 0
        self._events: OrderedDict[tuple[str, ...], _Event] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="pod-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def report(self, pod: PodReference, incident: Incident) -> None:
        log.warning("pod %s/%s: %s: %s", pod.namespace, pod.name, incident.kind.value, incident.message)
        now = self.monotonic()
        with self._waiting:
            if self._closing or len(self._due) >= self.pace.waiting:
                self._dropped += 1
                return
            self._push(now, _Report(pod, incident, self.clock(), now + self.pace.look_for))

    def statistics(self) -> EventStatistics:
        with self._waiting:
            return EventStatistics(self._told, self._dropped)

    def close(self) -> None:
        """Tell what is due, for a moment, then end the thread."""
        with self._waiting:
            self._closing = True
            self._waiting.notify_all()
        if self._thread.ident is not None:
            self._thread.join(self.pace.farewell)

    def _push(self, due: float, report: _Report) -> None:
        heapq.heappush(self._due, (due, next(self._serial), report))
        self._waiting.notify_all()

    def _again(self, report: _Report, pause: float) -> None:
        with self._waiting:
            self._push(self.monotonic() + pause, report)

    def _drop(self, report: _Report, why: object) -> None:
        with self._waiting:
            self._dropped += 1
        pod = report.pod
        log.info("no event for pod %s/%s (%s): %s", pod.namespace, pod.name, report.incident.kind.value, why)

    def _run(self) -> None:
        while (report := self._next()) is not None:
            try:
                self._tell(report)
            except ApiUnreachable as error:
                report.failures += 1
                if report.failures >= self.pace.tries or self._closing:
                    self._drop(report, error)
                else:
                    self._again(report, self.pace.pause * 2 ** (report.failures - 1))
            except OssFuseError as error:
                self._drop(report, error)
            except Exception:  # the thread must outlive whatever one object of the cluster looks like
                log.exception("an event could not be made")

    def _next(self) -> _Report | None:
        with self._waiting:
            while True:
                if self._due:
                    pause = self._due[0][0] - self.monotonic()
                    if pause <= 0 or self._closing:
                        return heapq.heappop(self._due)[2]
                    self._waiting.wait(pause)
                elif self._closing:
                    return None
                else:
                    self._waiting.wait()

    def _tell(self, report: _Report) -> None:
        incident, found, ended = report.incident, None, None
        if incident.kind in _LOOKED_UP:
            path = resource_path("v1", "pods", namespace=report.pod.namespace, name=report.pod.name)
            found = self.api.get(path)
            if found is None or found["metadata"].get("uid") != report.pod.uid:
                return self._drop(report, "the pod is gone")
        if incident.kind is IncidentKind.SIDECAR_ENDED and found is not None:
            ended = self._new_end(report, found)
            if ended is None and self.monotonic() < report.looked_until and not self._closing:
                return self._again(report, self.pace.look_every)
            if "deletionTimestamp" in found["metadata"] and not (ended and ended.out_of_memory):
                return self._drop(report, "the pod is being deleted")
        self._write(report, told(incident, found, ended))
        if ended is not None:
            _remember(self._seen, (report.pod.uid, incident.container, ended.identity), None)
        return None

    def _new_end(self, report: _Report, found: JsonObject) -> Termination | None:
        """How the sidecar ended this time: not an end that was told before, nor one long before the incident."""
        ended = termination_of(found, report.incident.container)
        if ended is None or (report.pod.uid, report.incident.container, ended.identity) in self._seen:
            return None
        with contextlib.suppress(ValueError):
            if datetime.fromisoformat(ended.finished).timestamp() < report.moment - self.pace.look_for:
                return None
        return ended

    def _write(self, report: _Report, words: Told) -> None:
        pod, where = report.pod, _field_path(report.incident.container)
        key = (pod.uid, where, words.reason, words.message)
        event = self._events.get(key) or _Event(_event_name(pod.name, key))
        _remember(self._events, key, event)
        if not self._allowed(pod.uid):
            event.count += 1  # the next one will say so
            return self._drop(report, "the pod has been told enough for now")
        collection = resource_path("v1", "events", namespace=pod.namespace)
        count = event.count + 1
        if event.sent:
            try:
                self.api.patch(f"{collection}/{event.name}", _repetition(count, report.moment), kind="merge")
            except ObjectMissing:  # events live for an hour
                event.sent, count = False, 1
        if not event.sent:
            count = self._create(collection, event, report, words, count)
        event.count, event.sent = count, True
        with self._waiting:
            self._told += 1
        return None

    def _create(self, collection: str, event: _Event, report: _Report, words: Told, count: int) -> int:
        try:
            self.api.create(collection, _event(event.name, report, words, self.node, count))
        except ApiConflict:  # told by the process before this one
            before = self.api.get(f"{collection}/{event.name}") or {}
            count += int(before.get("count") or 0)
            self.api.patch(f"{collection}/{event.name}", _repetition(count, report.moment), kind="merge")
        return count

    def _allowed(self, uid: str) -> bool:
        now = self.monotonic()
        allowance = self._allowances.get(uid) or _Allowance(float(self.pace.burst), now)
        _remember(self._allowances, uid, allowance)
        gained = (now - allowance.updated) / self.pace.refill
        allowance.left, allowance.updated = min(self.pace.burst, allowance.left + gained), now
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True


def _remember(memory: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def _field_path(container: str) -> str:
    return f"spec.initContainers{{{container}}}" if container else ""


def _event_name(pod: str, key: tuple[str, ...]) -> str:
    """The same for every telling of the same thing, whichever process tells it."""
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
    return f"{pod[:_LONGEST_NAME].rstrip('.-')}.{digest}"


def _event(name: str, report: _Report, words: Told, node: str, count: int) -> JsonObject:
    pod, moment = report.pod, _iso(report.moment)
    subject = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
    if where := _field_path(report.incident.container):
        subject["fieldPath"] = where
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": pod.namespace},
        "involvedObject": subject,
        "reason": words.reason,
        "message": words.message,
        "type": "Warning",
        "source": {"component": DRIVER_NAME, "host": node},
        "reportingComponent": DRIVER_NAME,
        "reportingInstance": node,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": count,
    }


def _repetition(count: int, moment: float) -> JsonObject:
    return {"count": count, "lastTimestamp": _iso(moment)}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
