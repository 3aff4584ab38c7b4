"""What `make cluster-up` adds to a cluster like this one, and the README's commands for it, by copy and paste."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.chart_values import helm_program, render
from tests.cluster.harness.developer import EMULATOR, furnish, how_to
from tests.cluster.harness.driver import Driver
from tests.cluster.harness.node import Node
from tests.cluster.harness.places import CHECKOUT, CONTAINERD_SOCKET, DEVELOPER, NEWEST, Places

_JOB = "deploy/examples/training-job.yaml"


@pytest.fixture(scope="module")
def furnished(driver: Driver) -> Iterator[Places]:
    node = driver.cluster.own_node()
    furnish(node)
    yield node.places
    node.stop(EMULATOR, signal.SIGKILL)  # it would first wait for connections of pods
    driver.cluster.delete("secret", "oss", namespace="default")


def commands(text: str) -> str:
    """What stands indented in a text, for a shell."""
    return "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))


def typed(script: str, **environment: str) -> str:
    """What the commands print that somebody types into a new shell in the checkout; one that fails ends them."""
    known = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=CHECKOUT,
        env={**known, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def of_the_readme(places: Places) -> str:
    """Its commands for the developer's cluster, with this one's name, address and version in place of that one's."""
    readme = (CHECKOUT / "README.md").read_text()
    section = readme.split("### Without a cluster", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    found = commands(section)
    for theirs, ours in (
        (f"/state/{DEVELOPER}/", f"/state/{places.name}/"),
        ("//10.99.0.1:", f"//{places.address}:"),
        (f"/cluster/{NEWEST}/", f"/cluster/{places.version}/"),
    ):
        assert theirs in found
        found = found.replace(theirs, ours)
    return found


def test_the_readmes_training_job_runs_by_copy_and_paste(furnished: Places, driver: Driver) -> None:
    try:
        assert "epoch 5: loss" in typed(of_the_readme(furnished))
    finally:
        driver.cluster.kubectl("delete", "--ignore-not-found", "-f", str(CHECKOUT / _JOB))


def test_what_cluster_up_prints_leads_to_the_cluster(furnished: Places) -> None:
    said = how_to(furnished, 12.3)
    assert "ossfuse-csi-node-" in typed(commands(said.split("\nor ", 1)[0]))
    assert f"http://{furnished.address}:18080\n" in said


def test_the_shell_of_the_cluster_has_its_programs_and_loads_images(furnished: Places) -> None:
    shell = "tools/cluster-shell.sh"
    assert typed(f"{shell} kubectl get secret oss --output=name", CLUSTER=furnished.name) == "secret/oss\n"
    typed(f"{shell} helm version; {shell} load '{furnished.images / 'busybox.tar'}'", CLUSTER=furnished.name)


def test_the_chart_finds_every_image_that_it_names_by_default(furnished: Places, node: Node) -> None:
    objects = [one for one in yaml.safe_load_all(render(helm_program(), {})) if one]
    templates = [one["spec"]["template"]["spec"] for one in objects if one["kind"] in ("DaemonSet", "Deployment")]
    wanted = {container["image"] for spec in templates for container in spec["containers"]}
    known = node.run("ctr", "-a", str(CONTAINERD_SOCKET), "-n", "k8s.io", "images", "ls", "-q").split()
    assert len(wanted) == 4
    assert wanted <= {image.removeprefix("docker.io/") for image in known}
