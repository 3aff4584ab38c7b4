"""The cluster from outside: started in namespaces of its own, asked for things, ended as a whole."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.harness import leftovers
from tests.cluster.harness.api import Api, proxy_command
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.identities import make_identities
from tests.cluster.harness.namespaces import command_inside, inside_network
from tests.cluster.harness.places import API_SOCKET, CHECKOUT, CONTAINERD_SOCKET, NODE, Places
from tests.cluster.harness.settings import COMPONENTS, command, write_settings

_STARTING = 90.0
_POLL = 0.05
_LINES = 40
_NEEDED = {
    "containerd": "containerd",
    "runc": "runc",
    "etcd": "etcd-server",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
}


@dataclasses.dataclass
class Node:
    """A running cluster's node. `unshare` holds the namespaces; None if another program started them."""

    places: Places
    pid: int
    unshare: subprocess.Popen[str] | None = None

    # --- components ---

    def start(self, component: str) -> None:
        self.start_program(component, command(component, self.places))

    def start_program(self, name: str, words: list[str]) -> None:
        """Something else that lives as long as the node, beside the components."""
        self._ask({"start": name, "command": words, "log": str(self.places.log(name))})

    def stop(self, component: str, number: int = signal.SIGTERM) -> None:
        """Send it a signal and wait until it has ended."""
        self._ask({"stop": component, "signal": number})

    def restart(self, component: str) -> None:
        self._ask({"restart": component})

    def running(self) -> dict[str, bool]:
        return {name: state["pid"] is not None for name, state in self._ask({"state": ""}).items()}

    # --- inside ---

    def run(self, *words: str, given: str | None = None) -> str:
        """The output of a command inside the cluster's namespaces."""
        done = subprocess.run(
            command_inside(self.pid, list(words)),
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterFailed(f"on the node, {' '.join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def load_image(self, tar: Path) -> None:
        self.run("ctr", "-a", str(CONTAINERD_SOCKET), "-n", "k8s.io", "images", "import", str(tar.resolve()))

    def tag_image(self, image: str, tag: str) -> None:
        """Let `tag` be another name of an image that is there."""
        self.run("ctr", "-a", str(CONTAINERD_SOCKET), "-n", "k8s.io", "images", "tag", "--force", image, tag)

    @property
    def api(self) -> Api:
        """Reached by its file, which is in the cluster's own file system."""
        return Api(Path(f"/proc/{self.pid}/root{API_SOCKET}"))

    def network(self) -> contextlib.AbstractContextManager[None]:
        return inside_network(self.pid)

    def open_to_machine(self) -> None:
        """Let this machine reach the node at its address, by moving the idle end of the node's link out here."""
        places = self.places
        move = ["ip", "link", "set", "node0-peer", "name", places.link, "netns", str(os.getpid())]
        subprocess.run(["nsenter", "-t", str(self.pid), "-n", "--", *move], check=True)
        subprocess.run(["ip", "address", "add", f"{places.machine_address}/24", "dev", places.link], check=True)
        subprocess.run(["ip", "link", "set", places.link, "up"], check=True)

    # --- logs ---

    def log_tails(self) -> str:
        """The end of each component's log."""
        parts = []
        for path in sorted(self.places.logs.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-_LINES:]
            parts.append(f"--- {path} ---\n" + "\n".join(lines))
        return "\n".join(parts)

    # --- end ---

    def end(self) -> None:
        """Kill everything inside and remove what is outside."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        if self.unshare is not None:
            self.unshare.wait()
            for stream in (self.unshare.stdin, self.unshare.stdout):
                if stream is not None:
                    stream.close()
        _wait(lambda: not leftovers.alive(self.places), "the end of the cluster's processes", 30.0)
        leftovers.remove_leftovers(self.places)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        directory = os.open(self.places.state, os.O_PATH | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"/proc/self/fd/{directory}/{self.places.control.name}")
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile() as answers:
                    answer = json.loads(answers.readline())
        finally:
            os.close(directory)
        if "error" in answer:
            raise ClusterFailed(answer["error"])
        components: dict[str, Any] = answer["components"]
        return components


def start_node(places: Places, images: tuple[Path, ...] = (), *, stays: bool = False) -> Node:
    """A node that is Ready, with `images` in it. It ends with this process unless it `stays`."""
    _check_programs(places)
    with leftovers.claimed(places) as (claimed, descriptors):
        shutil.rmtree(claimed.logs, ignore_errors=True)
        claimed.logs.mkdir(parents=True)
        make_identities(claimed.identities, claimed.address)
        write_settings(claimed)
        leftovers.make_cgroups(claimed.cgroup)
        node = _start_namespaces(claimed, stays, descriptors)
    try:
        node.open_to_machine()
        _bring_up(node, images)
    except BaseException:
        node.end()
        raise
    return node


def find_node(places: Places) -> Node | None:
    """The running cluster of that name that another program started."""
    if not leftovers.alive(places):
        return None
    pid, subnet = (places.state / "process").read_text().split()
    return Node(dataclasses.replace(places, subnet=int(subnet)), int(pid))


def _check_programs(places: Places) -> None:
    missing = [package for program, package in _NEEDED.items() if shutil.which(program) is None]
    if missing:
        raise ClusterFailed(f"not installed: {' '.join(missing)}; run `tools/setup.sh test`")
    if not (places.programs / ".stamp").exists():
        raise ClusterFailed(f"{places.programs} is not built; run `tools/cluster-binaries.sh {places.version}`")


def _start_namespaces(places: Places, stays: bool, descriptors: tuple[int, ...]) -> Node:
    words = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    ]
    words += [
        sys.executable,
        "-m",
        "tests.cluster.harness.supervisor",
        str(places.state),
        str(places.logs),
        places.address,
    ]
    with places.log("supervisor").open("wb") as log:
        unshare = subprocess.Popen(
            words if stays else [*words, "--until-stdin-closes"],
            stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=CHECKOUT,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for the tests, which end the cluster themselves
        )
    assert unshare.stdout is not None
    if unshare.stdout.readline().strip() != "ready":
        unshare.wait()
        leftovers.remove_leftovers(places)
        raise ClusterFailed(f"no namespaces for the cluster: {places.log('supervisor').read_text(errors='replace')}")
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    (places.state / "process").write_text(f"{children[0]} {places.subnet}")
    return Node(places, int(children[0]), unshare)


def _bring_up(node: Node, images: tuple[Path, ...]) -> None:
    for component in ("etcd", "containerd"):
        node.start(component)
    _until(node, lambda: _listens(node, 2379), "etcd")
    node.start("kube-apiserver")
    kubectl, api = str(node.places.program("kubectl")), node.api
    node.start_program("api-proxy", proxy_command(kubectl, node.places.kubeconfig, API_SOCKET))
    _until(node, lambda: _done(node, "ctr", "-a", str(CONTAINERD_SOCKET), "version"), "containerd")
    for image in images:
        node.load_image(image)
    _until(node, api.answers, "the API server")
    for component in COMPONENTS[3:]:
        node.start(component)
    # pods are forbidden until there is an account for them
    _until(node, lambda: api.get("serviceaccount", "default") is not None, "the default account")
    _until(node, lambda: _is_ready(api), "a node that is Ready")


def _is_ready(api: Api) -> bool:
    conditions = (api.get("node", NODE) or {}).get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _listens(node: Node, port: int) -> bool:
    with node.network(), socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _done(node: Node, *words: str) -> bool:
    try:
        node.run(*words)
    except ClusterFailed:
        return False
    return True


def _until(node: Node, condition: Callable[[], bool], what: str, but: frozenset[str] = frozenset()) -> None:
    """Wait; a component that ended meanwhile is told at once, `but` for some."""

    def look() -> bool:
        ended = [name for name, running in node.running().items() if not running and name not in but]
        if ended:
            raise ClusterFailed(f"{', '.join(ended)} ended while waiting for {what}\n{node.log_tails()}")
        return condition()

    try:
        _wait(look, what, _STARTING)
    except TimeoutError as late:
        raise ClusterFailed(f"{late}\n{node.log_tails()}") from None


def start_listening(node: Node, name: str, words: list[str], port: int) -> None:
    """A program beside the components, once it listens."""
    before = frozenset(known for known, running in node.running().items() if not running)
    node.start_program(name, words)
    _until(node, lambda: _listens(node, port), f"{name} listening on port {port}", before - {name})


def _wait(condition: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no sign of {what} within {seconds:.0f} s")
        time.sleep(_POLL)
