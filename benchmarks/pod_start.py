"""From `kubectl apply` of a pod to the first byte its program has read: with a volume of ours, beside an emptyDir.

A real kubelet on this machine (tests/cluster/harness), images present, one pod at a time, the two kinds in turn. Both
pods run the same image and tell the machine's clock once they have read; the difference is what a volume costs: the
webhook, NodePublishVolume, the sidecar's start to READY, which it tells itself, the first GET. Writes a section of
benchmarks/RESULTS.md, unless --quick.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.one_node import kubelet_version, tenant_of_a_cluster
from tests.cluster import workloads
from tests.cluster.harness.client import Namespace
from tests.cluster.tenant import Tenant
from tests.cluster.workloads import Folder

RESULTS = Path(__file__).with_name("RESULTS.md")
OURS, EMPTY, READY = "ossfuse-csi", "emptyDir", "its sidecar, start to READY"
FOLDERS: Mapping[str, Folder] = {OURS: Folder("data"), EMPTY: Folder(source={"emptyDir": {}})}
READ: Mapping[str, str] = {
    OURS: "head -c 1 /data/first > /dev/null && cat /proc/uptime",
    EMPTY: "echo x > /data/first; head -c 1 /data/first > /dev/null && cat /proc/uptime",
}


def since_boot() -> float:
    """The clock of /proc/uptime, which containers share, seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def one_pod(space: Namespace, kind: str, name: str) -> dict[str, float]:
    """Seconds from apply to the first byte of a new pod, which is gone afterwards, and of its sidecar to READY."""
    spec = workloads.pod_spec(READ[kind], {"data": FOLDERS[kind]}, restart_policy="Never")
    manifest = json.dumps(workloads.pod(name, spec))
    begin = since_boot()
    space.cluster.kubectl("apply", f"--namespace={space.name}", "-f", "-", input=manifest)
    space.wait_pod(name, "Succeeded", 120)
    seconds = {kind: float(space.logs(name, "app").split()[0]) - begin}
    if kind == OURS:
        (ready,) = re.findall(r"ready ([\d.]+) s after this process began", space.logs(name, "ossfuse-data"))
        seconds[READY] = float(ready)
    space.delete("pod", name)
    return seconds


def measure(tenant: Tenant, rounds: int) -> dict[str, list[float]]:
    tenant.give_secret()
    tenant.put("first", b"x" * 1000)
    tenant.give_volume()
    samples: dict[str, list[float]] = {OURS: [], EMPTY: [], READY: []}
    for kind in FOLDERS:
        one_pod(tenant.space, kind, "warm-up")
    for turn in range(rounds):
        for kind in (OURS, EMPTY) if turn % 2 else (EMPTY, OURS):
            for what, seconds in one_pod(tenant.space, kind, f"pod-{turn}").items():
                samples[what].append(seconds)
                print(f"round {turn + 1}/{rounds} {what}: {seconds:.2f} s", flush=True)
    return samples


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def section(samples: Mapping[str, Sequence[float]], version: str) -> list[str]:
    rounds = len(samples[OURS])
    rows = [
        f"| {kind} | {statistics.median(runs):.2f} | {percentile(runs, 0.95):.2f} | {min(runs):.2f}–{max(runs):.2f} |"
        for kind, runs in samples.items()
        if kind != READY
    ]
    ready = samples[READY]
    median = statistics.median(samples[OURS]) - statistics.median(samples[EMPTY])
    p95 = percentile(samples[OURS], 0.95) - percentile(samples[EMPTY], 0.95)
    ratio = statistics.median(samples[OURS]) / statistics.median(samples[EMPTY])
    return [
        "## From `kubectl apply` to a pod's first byte",
        "",
        "Written by `make bench-pods` (`benchmarks/pod_start.py`).",
        "",
        f"- Machine: {report.machine()}",
        f"- Date: {datetime.datetime.now(datetime.UTC).date().isoformat()}",
        f"- Kubernetes {version}, one node, images present, nothing else running; {rounds} pods of each kind, in turn",
        "",
        "| volume | median s | p95 s | min–max s |",
        "|---|---|---|---|",
        *rows,
        "",
        f"A volume of ours costs {median:.2f} s more than an emptyDir in the median ({ratio:.2f} times the whole), "
        f"{p95:.2f} s at the 95th percentile.",
        "",
        f"Its sidecar was READY {statistics.median(ready):.2f} s after the start of its process in the median, "
        f"{percentile(ready, 0.95):.2f} s at the 95th percentile, {max(ready):.2f} s at most.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    with tenant_of_a_cluster() as tenant:
        samples = measure(tenant, arguments.rounds)
        version = kubelet_version(tenant.cluster)
    lines = section(samples, version)
    if not arguments.quick:
        report.write_section(RESULTS, "pod start", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
