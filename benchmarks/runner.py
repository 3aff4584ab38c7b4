"""Rounds: every client in turn on the same server, fresh mounts, caches dropped, the order rotating with the rounds.

What a client cost is counted around the work alone; mounting and listing before it are not in its time. A client whose
result is not right, or that does not come up, is named with the reason and takes no further part in the case.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from benchmarks.clients import Client, Mounting, Place
from benchmarks.loads import outcome
from benchmarks.model import Case, Cost, Files, Ground, Outcome, Sample, Work
from benchmarks.mounting import MountFailed, mounted
from benchmarks.nginx import Line
from benchmarks.processes import cpu_seconds, descendants, drop_caches, peak_memory, run
from benchmarks.server import Server

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Setting:
    """How a run is made: rounds, session and mode of ours, bytes a second a connection may have (0: any), where
    programs are, what to tell the terminal."""

    rounds: int
    session: str
    mode: str
    rate: int
    place: Place
    ground: Ground
    tell: Callable[[str], None]


@dataclass(slots=True)
class CaseResult:
    """Samples of the clients that were right in every round, and why the others were not."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


class Wrong(Exception):
    """A client delivered something else than it should, or nothing."""


def run_case(work: Work, case: Case, clients: Sequence[Client], server: Server, setting: Setting) -> CaseResult:
    result = CaseResult(case)
    for turn in range(setting.rounds):
        for client in rotated(clients, turn):
            if client.name in result.dropped:
                continue
            try:
                sample = _run(work, case, client, server, setting)
            except (Wrong, MountFailed) as error:
                result.dropped[client.name] = str(error)
                result.samples.pop(client.name, None)
                setting.tell(f"{work.name} | {case.name} | {client.name}: dropped, {error}")
                continue
            if sample is None:
                result.dropped[client.name] = ""
                continue
            result.samples.setdefault(client.name, []).append(sample)
            figures = ", ".join(f"{name} {value:.4g}" for name, value in work.figures(case, sample).items())
            told = " ".join(f"{kind}={number}" for kind, number in sorted(sample.cost.requests.items()))
            at = f"round {turn + 1}/{setting.rounds}"
            setting.tell(f"{work.name} | {case.name} | {at} | {client.name}: {figures} | {told}")
    return result


def rotated(things: Sequence[Thing], turn: int) -> Sequence[Thing]:
    start = turn % len(things)
    return [*things[start:], *things[:start]]


def _run(work: Work, case: Case, client: Client, server: Server, setting: Setting) -> Sample | None:
    """One sample; None where this client has no part in the work. Raises Wrong and MountFailed."""
    ground = replace(setting.ground, endpoint=server.endpoints[Line(case.latency_ms, setting.rate)])
    if client.command is None or client.name in work.programs:
        sample = _run_program(work, case, client, server, ground)
    else:
        sample = _run_mount(work, case, client, server, setting, ground)
    if sample is None:
        return None
    wrong = sample.outcome.wrong or work.check(case, sample, ground)
    if wrong:
        raise Wrong(wrong)
    return sample


def _run_program(work: Work, case: Case, client: Client, server: Server, ground: Ground) -> Sample | None:
    program = work.program(case, client.name, ground)
    if program is None:
        return None
    if work.writes:
        server.remove(work.prefix(case))
    drop_caches()
    server.log.mark()
    finished = run(program.command, {}, given=server.credential_file)
    requests, sent = server.log.since()
    found = outcome(finished.output, finished.status)
    memory = {client.name: found.memory or finished.peak}
    return Sample(found, Cost(found.cpu or finished.cpu, memory, requests, sent))


def _run_mount(
    work: Work, case: Case, client: Client, server: Server, setting: Setting, ground: Ground
) -> Sample | None:
    wanted = Mounting(
        endpoint=ground.endpoint,
        bucket=server.bucket,
        prefix=work.prefix(case),
        source=server.www / server.bucket / work.prefix(case),
        target=ground.scratch / f"mnt-{client.name.replace(' ', '-')}",
        scratch=ground.scratch,
        credential_file=server.credential_file,
        writable=work.writes,
        session=setting.session,
        memory=case.memory,
        mode=case.mode or setting.mode,
    )
    if client.kind == "limit" and not any(file.prefix == work.prefix(case) for file in _readable(work, ground)):
        return None
    if work.writes:
        server.remove(work.prefix(case))
    with _cache(case) as cache:
        wanted = replace(wanted, cache=cache)
        if cache is not None:
            with mounted(client, wanted, setting.place) as mount:
                first = work.run(case, mount.root, ground)
            if first.wrong:
                raise Wrong(f"the first time, {first.wrong}")
        return _run_mounted(work, case, client, server, setting, ground, wanted)


@contextmanager
def _cache(case: Case) -> Iterator[Path | None]:
    """A directory on the machine's disk that any user may enter; None where the case needs none."""
    if not case.remounted:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ossfuse-bench-cache-", dir="/var/tmp") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


def _run_mounted(
    work: Work, case: Case, client: Client, server: Server, setting: Setting, ground: Ground, wanted: Mounting
) -> Sample:
    with mounted(client, wanted, setting.place) as mount:
        drop_caches()
        server.log.mark()
        before = cpu_seconds(mount.processes)
        found: Outcome = work.run(case, mount.root, ground)
        cost = cpu_seconds(mount.processes) - before
        memory = peak_memory(descendants(mount.pid))
        requests, sent = server.log.since()
    return Sample(found, Cost(cost, memory, requests, sent))


def _readable(work: Work, ground: Ground) -> list[Files]:
    return [files for files in work.files(ground.sizes) if not files.listed_only]
