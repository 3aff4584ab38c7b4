"""`ossfuse node` with the API server of a kubeconfig in place of its own pod's: KUBECONFIG FILE, then its arguments."""

from __future__ import annotations

import sys
from unittest.mock import patch

from csi.cli.node import command
from csi.cluster.api import KubernetesApi

if __name__ == "__main__":
    kubeconfig, *arguments = sys.argv[1:]
    with patch.object(KubernetesApi, "in_cluster", lambda: KubernetesApi.from_kubeconfig(kubeconfig)):
        command(arguments, prog_name="ossfuse node")
