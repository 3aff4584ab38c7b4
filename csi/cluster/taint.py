"""Takes the start-up taint off this node once pods that land here will find their volumes served.

An administrator gives new nodes the taint `ossfuse.csi.dev/agent-not-ready` so that no pod of ours comes before the
plugin does. It is removed when CSINode says that kubelet has registered the driver, never added, and never touched
otherwise: a patch that meets another version of the node's taints fails and is made again from what is there then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from csi.cluster.api import JsonObject, KubernetesApi, resource_path
from csi.errors import ApiRefused, OssFuseError
from csi.volume.naming import DRIVER_NAME

log = logging.getLogger(__name__)

TAINT: Final = f"{DRIVER_NAME}/agent-not-ready"

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_FORBIDDEN: Final = 403
_TRIES_WHEN_FORBIDDEN: Final = 8
"""A ClusterRole may come after the pod that has it; an administrator may also have left the taint to somebody else."""


class StartupTaint:
    """`start` returns at once; the thread ends when the taint is off, or at `close`. `wait` pauses it, and says
    whether `close` was called meanwhile."""

    def __init__(self, api: KubernetesApi, node: str, *, wait: Callable[[float], bool] | None = None) -> None:
        self._api = api
        self._node = node
        self._closing = threading.Event()
        self._wait = wait or self._closing.wait
        self._thread = threading.Thread(target=self._run, name="startup-taint", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Whether the thread has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        self._closing.set()

    def _run(self) -> None:
        pause, complaint, forbidden = _FIRST_PAUSE, "", 0
        while not self._closing.is_set():
            try:
                if self._registered() and self._remove():
                    return
            except OssFuseError as error:
                if str(error) != complaint:
                    complaint = str(error)
                    log.warning("node %s is not looked at for taint %s: %s", self._node, TAINT, error)
                forbidden += isinstance(error, ApiRefused) and error.status == _FORBIDDEN
            if forbidden >= _TRIES_WHEN_FORBIDDEN or self._wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _registered(self) -> bool:
        """Whether kubelet has told the API server that this driver runs on the node."""
        found = self._api.get(resource_path("storage.k8s.io/v1", "csinodes", name=self._node))
        drivers = ((found or {}).get("spec") or {}).get("drivers") or []
        return any(driver.get("name") == DRIVER_NAME for driver in drivers)

    def _remove(self) -> bool:
        """False when the node's taints were changed meanwhile: look again."""
        path = resource_path("v1", "nodes", name=self._node)
        taints: list[JsonObject] = ((self._api.get(path) or {}).get("spec") or {}).get("taints") or []
        kept = [taint for taint in taints if taint.get("key") != TAINT]
        if len(kept) == len(taints):
            return True
        change: list[JsonObject] = [{"op": "test", "path": "/spec/taints", "value": taints}]
        change.append(
            {"op": "replace", "path": "/spec/taints", "value": kept}
            if kept
            else {"op": "remove", "path": "/spec/taints"}
        )
        try:
            self._api.patch(path, change, kind="json")
        except ApiRefused as error:
            if error.status == 422:  # the test of the patch failed
                return False
            raise
        log.info("node %s: the volumes of pods are served from now on; taint %s removed", self._node, TAINT)
        return True
