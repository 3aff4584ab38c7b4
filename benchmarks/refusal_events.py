"""From `kubectl apply` of a pod whose volume cannot be mounted to the event on the pod that says why, and from the mend
to the start of its program.

A real kubelet on this machine, one pod at a time, the causes in turn. Writes a section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import report
from benchmarks.one_node import kubelet_version, tenant_of_a_cluster
from tests.cluster import workloads
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.tenant import Tenant
from tests.cluster.workloads import Folder

RESULTS = Path(__file__).with_name("RESULTS.md")
_LOOKED_EVERY = 0.05


@dataclass(frozen=True)
class Refusal:
    """A claim whose volume cannot be mounted. `word`: what the event must contain; `mend` makes the mount possible, and
    is None where only another volume would."""

    claim: str
    word: str
    mend: Callable[[], object] | None


@dataclass(frozen=True)
class Sample:
    """Seconds."""

    told: float
    started: float | None


def wrong_key(tenant: Tenant, turn: int) -> Refusal:
    claim = f"key-{turn}"
    tenant.give_secret(secret="w" + uuid.uuid4().hex)
    tenant.give_volume(claim)
    return Refusal(claim, "SignatureDoesNotMatch", tenant.give_secret)


def missing_bucket(tenant: Tenant, turn: int) -> Refusal:
    claim, bucket = f"bucket-{turn}", f"late-{uuid.uuid4().hex[:12]}"
    tenant.give_secret()
    tenant.give_volume(claim, attributes=replace(tenant, oss=replace(tenant.oss, bucket=bucket)).attributes())
    return Refusal(claim, "NoSuchBucket", lambda: tenant.oss.create_bucket(bucket))


def typo(tenant: Tenant, turn: int) -> Refusal:
    claim, word = f"option-{turn}", "fs.oss.download.thread.concurrency"
    tenant.give_secret()
    tenant.give_volume(claim, attributes={**tenant.attributes(), word.replace("rr", "r"): "8"})
    return Refusal(claim, word, None)


CAUSES = {"wrong key": wrong_key, "missing bucket": missing_bucket, "typo in an option": typo}


def one(tenant: Tenant, refusal: Refusal, pod: str) -> Sample:
    spec = workloads.pod_spec("trap exit TERM; sleep 1d & wait $!", {"data": Folder(refusal.claim)})
    began = time.monotonic()
    tenant.apply(workloads.pod(pod, spec))
    while not any(refusal.word in event["message"] for event in tenant.space.events(pod)):
        if time.monotonic() - began > 120:
            raise ClusterFailed(f"no event of {pod} has {refusal.word!r}")
        time.sleep(_LOOKED_EVERY)
    told = time.monotonic() - began
    started = None
    if refusal.mend is not None:
        refusal.mend()
        began = time.monotonic()
        tenant.wait_ready(pod)
        started = time.monotonic() - began
    tenant.delete_pod(pod)
    return Sample(told, started)


def section(samples: Mapping[str, list[Sample]], version: str) -> list[str]:
    rows = []
    for name, runs in samples.items():
        told = [run.told for run in runs]
        started = [run.started for run in runs if run.started is not None]
        mended = f"{statistics.median(started):.1f} | {max(started):.1f}" if started else "– | –"
        rows.append(f"| {name} | {statistics.median(told):.2f} | {max(told):.2f} | {mended} |")
    return [
        "## How soon a pod says why it does not start",
        "",
        "Written by `make bench-pods` (`benchmarks/refusal_events.py`).",
        "",
        f"- Machine: {report.machine()}",
        f"- Date: {datetime.datetime.now(datetime.UTC).date().isoformat()}",
        f"- Kubernetes {version}, one node, nothing else running; {len(next(iter(samples.values())))} pods a cause",
        "",
        "Seconds from `kubectl apply` to the event, and from the mend to the pod being Ready (kubelet tries",
        "again after 0.5, 1, 2, 4 … s).",
        "",
        "| cause | event, median s | slowest s | Ready after the mend, median s | slowest s |",
        "|---|---|---|---|---|",
        *rows,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    samples: dict[str, list[Sample]] = {name: [] for name in CAUSES}
    with tenant_of_a_cluster() as tenant:
        for turn in range(rounds):
            for name, cause in CAUSES.items():
                refusal = cause(tenant, turn)
                samples[name].append(one(tenant, refusal, f"pod-of-{refusal.claim}"))
                print(f"round {turn + 1}/{rounds} {name}: {samples[name][-1]}", flush=True)
        version = kubelet_version(tenant.cluster)
    lines = section(samples, version)
    report.write_section(RESULTS, "refusal events", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
