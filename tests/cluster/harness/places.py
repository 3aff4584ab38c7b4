"""Where a cluster of the tests keeps everything, and the addresses and names in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
CACHE = CHECKOUT / ".cache" / "cluster"

NEWEST = "1.36"

NODE = "node1"
SERVICE_ADDRESS = "10.96.0.1"
"""Of the Service `kubernetes`: the API server listens on port 443 of every address, so no kube-proxy is needed."""
SERVICE_RANGE = "10.96.0.0/24"
POD_RANGE = "10.244.0.0/24"

PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
BUSYBOX_IMAGE = "docker.io/library/busybox:test"
PROVISIONER_IMAGE = "registry.k8s.io/sig-storage/csi-provisioner:v6.3.0"
REGISTRAR_IMAGE = "ossfuse-csi.test/registrar:stand-in"
LIVENESS_IMAGE = "ossfuse-csi.test/livenessprobe:stand-in"
DRIVER_IMAGE = "docker.io/ossfuse-csi/ossfuse-csi:0.1.0"
DRIVER_TAR = CHECKOUT / ".cache" / "image" / "ossfuse-csi.tar"

CGROUPS = Path("/sys/fs/cgroup")
RUN = Path("/run/cluster")
"""A tmpfs in the cluster's own mount namespace; gone with it."""
CONTAINERD_SOCKET = RUN / "containerd.sock"
API_SOCKET = RUN / "api.sock"
"""Where the API server is asked without signing in, by root of this machine only."""
DEVELOPER = "developer"
"""The name of the cluster of `make cluster-up`."""


@dataclass(frozen=True)
class Places:
    """Of one cluster. `name` tells apart those that run at the same time on a machine."""

    name: str
    version: str = NEWEST
    subnet: int = 0
    """Of 10.99.x.0/24: clusters that run at the same time have different ones, so that the machine reaches each."""
    cache: Path = CACHE

    @property
    def address(self) -> str:
        """Of the node, for pods, for itself and for the machine."""
        return f"10.99.{self.subnet}.1"

    @property
    def machine_address(self) -> str:
        """Of the machine, as the node sees it."""
        return f"10.99.{self.subnet}.254"

    @property
    def link(self) -> str:
        """The machine's network device that leads to the node."""
        return f"cluster{self.subnet}"

    @property
    def programs(self) -> Path:
        return self.cache / self.version / "bin"

    @property
    def images(self) -> Path:
        """Images of the programs, made once for each build of them."""
        return self.cache / self.version / "images"

    @property
    def definitions(self) -> Path:
        """CustomResourceDefinitions of cert-manager, as it publishes them."""
        return self.cache / self.version / "cert-manager"

    @property
    def state(self) -> Path:
        """Everything of a run but its logs; removed at its end."""
        return self.cache / "state" / self.name

    @property
    def logs(self) -> Path:
        """/var/log of the node and the log of each component; kept until the next run of this name."""
        return self.cache / "logs" / self.name

    @property
    def lock(self) -> Path:
        """Held by process 1 of the cluster as long as it lives."""
        return self.state / "lock"

    @property
    def control(self) -> Path:
        """Socket of the supervisor."""
        return self.state / "control"

    @property
    def identities(self) -> Path:
        return self.state / "identities"

    @property
    def settings(self) -> Path:
        return self.state / "settings"

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator."""
        return self.identities / "admin.kubeconfig"

    @property
    def cgroup(self) -> str:
        """Below which kubelet keeps all pods, in every hierarchy."""
        return f"ossfuse-cluster-{self.name}"

    def program(self, name: str) -> Path:
        return self.programs / name

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"
