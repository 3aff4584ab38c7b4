"""What the programs of the node are told: configuration files and command lines, functions of where things are."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.harness.places import (
    CONTAINERD_SOCKET,
    NODE,
    PAUSE_IMAGE,
    POD_RANGE,
    RUN,
    SERVICE_RANGE,
    Places,
)

COMPONENTS = ("etcd", "containerd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
_ETCD = "http://127.0.0.1:2379"


def write_settings(places: Places) -> None:
    places.settings.mkdir(parents=True)
    network = places.settings / "cni"
    network.mkdir()
    (network / "10-pods.conflist").write_text(json.dumps(_network()))
    (places.settings / "containerd.toml").write_text(_containerd(places, network))
    (places.settings / "kubelet.yaml").write_text(json.dumps(_kubelet(places)))


def command(component: str, places: Places) -> list[str]:
    """The command line of a component."""
    return [*_COMMANDS[component](places)]


def _network() -> dict[str, object]:
    """Pods on one bridge, routed by the node; nothing is masqueraded since nothing leads outside."""
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isDefaultGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {"type": "host-local", "dataDir": str(RUN / "addresses"), "ranges": [[{"subnet": POD_RANGE}]]},
            }
        ],
    }


def _containerd(places: Places, network: Path) -> str:
    """Version 2 is read by containerd 1.6 and later. restrict_oom_score_adj: a machine may not let us lower it."""
    return f"""version = 2
root = "{places.state}/containerd"
state = "{RUN}/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def _kubelet(places: Places) -> dict[str, object]:
    """Anybody may ask this kubelet anything: only the cluster's own network reaches it."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{places.cgroup}",
        "failCgroupV1": False,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "volumePluginDir": str(RUN / "volume-plugins"),
        "oomScoreAdj": 0,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "1%", "nodefs.available": "1%", "imagefs.available": "1%"},
        "resolvConf": "",
        "maxPods": 200,
        "serializeImagePulls": False,
        "registerWithTaints": [],
    }


def _etcd(places: Places) -> list[str]:
    return [
        "etcd",
        f"--data-dir={RUN}/etcd",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _runtime(places: Places) -> list[str]:
    return ["containerd", f"--config={places.settings}/containerd.toml"]


def _api_server(places: Places) -> list[str]:
    """--enable-aggregator-routing: webhooks are reached at their pods' addresses, without kube-proxy."""
    identities = places.identities
    return [
        str(places.program("kube-apiserver")),
        f"--etcd-servers={_ETCD}",
        "--bind-address=0.0.0.0",
        "--secure-port=443",
        f"--advertise-address={places.address}",
        f"--tls-cert-file={identities}/server.crt",
        f"--tls-private-key-file={identities}/server.key",
        f"--client-ca-file={identities}/ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={identities}/accounts.pub",
        f"--service-account-signing-key-file={identities}/accounts.key",
        f"--token-auth-file={identities}/tokens.csv",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        "--enable-aggregator-routing=true",
    ]


def _controllers(places: Places) -> list[str]:
    identities = places.identities
    return [
        str(places.program("kube-controller-manager")),
        f"--kubeconfig={identities}/controllers.kubeconfig",
        f"--service-account-private-key-file={identities}/accounts.key",
        f"--root-ca-file={identities}/ca.crt",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def _scheduler(places: Places) -> list[str]:
    return [
        str(places.program("kube-scheduler")),
        f"--kubeconfig={places.identities}/scheduler.kubeconfig",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def _node_agent(places: Places) -> list[str]:
    return [
        str(places.program("kubelet")),
        f"--config={places.settings}/kubelet.yaml",
        f"--kubeconfig={places.identities}/kubelet.kubeconfig",
        f"--hostname-override={NODE}",
        f"--node-ip={places.address}",
    ]


_COMMANDS = {
    "etcd": _etcd,
    "containerd": _runtime,
    "kube-apiserver": _api_server,
    "kube-controller-manager": _controllers,
    "kube-scheduler": _scheduler,
    "kubelet": _node_agent,
}
