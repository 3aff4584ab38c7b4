"""Programs that feed PyTorch: how they are started, and how a client is given the names it insists on.

osstorchconnector addresses a bucket only as BUCKET.DOMAIN. It gets these names in a mount namespace of its own, whose
/etc/hosts has them; the machine's stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.clients import CONNECTOR
from benchmarks.model import Ground, Program
from benchmarks.nginx import DOMAIN

VENV = Path(__file__).resolve().parents[2] / ".cache" / "torch" / "venv"
PYTHON = VENV / "bin" / "python"
"""What tools/torch.sh makes."""
_WITH_HOSTS = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


def program(ground: Ground, client: str, module: str, *arguments: str | int) -> Program:
    """`python -m benchmarks.programs.MODULE CLIENT ENDPOINT BUCKET ...` with PyTorch, the same for every client."""
    port = urlsplit(ground.endpoint).port
    endpoint = f"http://{DOMAIN}:{port}" if client == CONNECTOR else ground.endpoint
    command = (str(PYTHON), "-m", f"benchmarks.programs.{module}", client, endpoint, ground.bucket)
    whole = (*command, *map(str, arguments))
    if client == CONNECTOR:
        whole = ("unshare", "--mount", "sh", "-c", _WITH_HOSTS, "sh", str(_hosts(ground)), *whole)
    return Program(whole)


def _hosts(ground: Ground) -> Path:
    path = ground.scratch / "hosts"
    path.write_text(f"127.0.0.1 localhost {DOMAIN} {ground.bucket}.{DOMAIN}\n")
    return path
