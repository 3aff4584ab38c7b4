"""The golden cases: `golden/NAME.given.yaml` holds a pod and the cluster's objects around it, `golden/NAME.then.yaml`
what the webhook makes of the pod. `python -m tests.unit.cluster.golden_cases` writes the latter anew: read the diff."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from csi.cluster.api import JsonObject
from csi.cluster.webhook.review import PodReviewer
from csi.cluster.webhook.sidecar import SidecarSettings
from csi.cluster.webhook.volumes import VolumeResolver
from csi.volume.units import Seconds
from tests.support.memory_cluster import MemoryCluster, patched

DIRECTORY = Path(__file__).parent / "golden"
SETTINGS = SidecarSettings(
    "registry.example/ossfuse-csi/ossfuse-csi:0.1.0", cache_host_paths=("/var/cache/ossfuse", "/mnt/nvme")
)
NAMES = sorted(path.name.removesuffix(".given.yaml") for path in DIRECTORY.glob("*.given.yaml"))


@dataclass(frozen=True)
class Given:
    pod: JsonObject
    objects: list[JsonObject]
    dry_run: bool = False


def read_given(name: str) -> Given:
    documents = list(yaml.safe_load_all((DIRECTORY / f"{name}.given.yaml").read_text()))
    pods = [item for item in documents if item["kind"] == "Pod"]
    assert len(pods) == 1, f"{name}: one pod a case"
    return Given(pods[0], [item for item in documents if item["kind"] != "Pod"], name == "dry-run")


def reviewer(objects: list[JsonObject]) -> PodReviewer:
    time = iter(range(1000))
    return PodReviewer(
        VolumeResolver(MemoryCluster(objects), clock=lambda: next(time) * 0.01, sleep=lambda _: None), SETTINGS
    )


def review_of(given: Given) -> JsonObject:
    request = {
        "uid": "a-review",
        "operation": "CREATE",
        "namespace": given.pod["metadata"].get("namespace", "train"),
        "object": given.pod,
        "dryRun": given.dry_run,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def outcome(given: Given) -> JsonObject:
    """What the API server has after the review: the refusal, or the pod."""
    response: dict[str, Any] = reviewer(given.objects).review(review_of(given), Seconds(8.0))["response"]
    if not response["allowed"]:
        return {"refused": response["status"]["message"]}
    warnings = {"warnings": response["warnings"]} if "warnings" in response else {}
    if "patch" not in response:
        return {**warnings, "pod": "unchanged"}
    return {**warnings, "pod": patched(given.pod, json.loads(base64.b64decode(response["patch"])))}


def expected_path(name: str) -> Path:
    return DIRECTORY / f"{name}.then.yaml"


class _Readable(yaml.SafeDumper):
    """Block style, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_expected(name: str) -> None:
    text = yaml.dump(outcome(read_given(name)), Dumper=_Readable, sort_keys=False, width=120, allow_unicode=True)
    expected_path(name).write_text(text)


if __name__ == "__main__":
    for case in NAMES:
        write_expected(case)
