"""`helm upgrade` and `helm rollback` under pods that work."""

from __future__ import annotations

from tests.cluster.harness.driver import Driver
from tests.cluster.tenant import Tenant
from tests.cluster.test_restarts import further_rounds, reader

__all__ = ["reader"]


def test_helm_upgrade_and_rollback_with_pods_running(reader: Tenant, driver: Driver) -> None:
    before = driver.node_pod()
    restarts = reader.sidecar_status("app")["restartCount"]
    driver.upgrade("--set", "logLevel=debug")
    assert driver.node_pod() != before
    further_rounds(reader)
    reader.start_pod("during")
    reader.sh("during", "cat /data/big > /dev/null && echo during > /data/said")
    driver.rollback()
    further_rounds(reader)
    reader.start_pod("after")
    assert reader.sh("after", "cat /data/big > /dev/null && cat /data/said") == "during\n"
    assert reader.sidecar_status("app")["restartCount"] == restarts
    for name in ("app", "during", "after"):
        reader.delete_pod(name)
