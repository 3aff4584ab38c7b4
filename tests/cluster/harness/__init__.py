"""A real Kubernetes node for tests, started and torn down in seconds: etcd, API server, controller manager, scheduler,
kubelet and containerd as processes in mount, network and pid namespaces of their own.

`node.py` starts and stops it from outside; `supervisor.py` is process 1 inside; `places.py` says where everything is;
`settings.py` and `identities.py` make what the programs read; `images.py` makes images without a registry;
`leftovers.py` removes what a killed one left. `client.py` is what tests speak to a cluster with, this one or any other
with a kubeconfig, and `api.py` asks its API server; `driver.py` installs ossfuse-csi in it and `emulators.py` an OSS.
`python -m tests.cluster.harness up` keeps one for a developer.
"""
