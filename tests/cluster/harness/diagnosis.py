"""What a person wants to see of a cluster when a test has failed: events, pods and logs of the namespaces concerned."""

from __future__ import annotations

import json

from tests.cluster.harness.api import Object, Objects
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.failures import ClusterFailed

_LINES = 60


def diagnosis(cluster: Cluster, namespaces: tuple[str, ...]) -> str:
    parts = [part for namespace in namespaces for part in _of_namespace(cluster, namespace)]
    if cluster.node is not None:
        parts.append(f"logs of the components: {cluster.node.places.logs}")
    return "\n".join(parts)


def _of_namespace(cluster: Cluster, namespace: str) -> list[str]:
    try:
        events, pods = cluster.events(namespace), cluster.list("pods", namespace)
    except ClusterFailed as failed:
        return [f"--- namespace {namespace}: {failed}"]
    parts = [f"--- events of {namespace}"]
    parts += [
        f"{event['involvedObject'].get('kind')}/{event['involvedObject'].get('name')} {event['reason']}: "
        f"{event.get('message', '')}"
        for event in events
    ]
    for pod in pods:
        parts.append(f"--- pod {namespace}/{pod['metadata']['name']} {pod['status'].get('phase')}")
        for status in _containers(pod):
            parts.append(f"{status['name']}: restarts {status['restartCount']}, {json.dumps(status['state'])}")
            parts.append(_log(cluster, namespace, pod["metadata"]["name"], status["name"]))
    return parts


def _containers(pod: Object) -> Objects:
    status = pod["status"]
    found: Objects = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    return found


def _log(cluster: Cluster, namespace: str, pod: str, container: str) -> str:
    try:
        text = cluster.kubectl("logs", pod, f"--namespace={namespace}", f"--container={container}", f"--tail={_LINES}")
    except ClusterFailed as failed:
        return f"  (no log: {str(failed).splitlines()[-1]})"
    return "".join(f"  | {line}\n" for line in text.splitlines())
