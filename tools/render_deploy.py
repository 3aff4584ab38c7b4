"""Write deploy/kubernetes.yaml: the chart as it installs by default, for people who use kubectl and no Helm.

`python tools/render_deploy.py --helm HELM` prints it. Its first lines hold a digest of the chart's files, so that a
test without Helm notices a chart that was changed and not rendered again.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "charts" / "ossfuse-csi"
TARGET: Final = ROOT / "deploy" / "kubernetes.yaml"
NAMESPACE: Final = "ossfuse-csi"
_OLDEST_KUBERNETES: Final = "1.33.0"
_ONLY_HELM: Final = ("  app.kubernetes.io/managed-by: ", "  helm.sh/chart: ")
_HEAD: Final = """\
# ossfuse-csi with the chart's default values, for kubectl:
#
#     kubectl apply --server-side -f deploy/kubernetes.yaml
#
# Written by tools/render_deploy.py from charts/ossfuse-csi; do not edit.
# chart: sha256:{digest}
---
apiVersion: v1
kind: Namespace
metadata:
  name: {namespace}
  labels:
    app.kubernetes.io/name: ossfuse-csi
    pod-security.kubernetes.io/enforce: privileged # the node plugin mounts; users' namespaces may enforce restricted
"""


def chart_digest(chart: Path = CHART) -> str:
    """Of everything a rendered chart is made of: names and contents of its files, but for the README."""
    digest = hashlib.sha256()
    for path in sorted(path for path in chart.rglob("*") if path.is_file() and path.name != "README.md"):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(chart).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def rendered(helm: str, chart: Path = CHART) -> str:
    """The text of deploy/kubernetes.yaml. Raises CalledProcessError with Helm's words."""
    command = [helm, "template", "ossfuse-csi", str(chart), "--namespace", NAMESPACE, "--skip-tests"]
    command += ["--kube-version", _OLDEST_KUBERNETES]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line for line in text.splitlines() if not line.lstrip(" ").startswith(tuple(map(str.lstrip, _ONLY_HELM)))]
    return _HEAD.format(digest=chart_digest(chart), namespace=NAMESPACE) + "\n".join(lines) + "\n"


@click.command()
@click.option("--helm", default="helm", show_default=True, help="The helm program.")
def main(helm: str) -> None:
    """Print deploy/kubernetes.yaml."""
    try:
        sys.stdout.write(rendered(helm))
    except (OSError, subprocess.CalledProcessError) as error:
        raise click.ClickException(f"{helm}: {getattr(error, 'stderr', None) or error}") from None


if __name__ == "__main__":
    main()
