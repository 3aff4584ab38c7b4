"""The names Kubernetes objects know this driver by, the same for controller, node plugin and webhook.

Plain data and pure functions: what the webhook puts into a pod under a name, the node plugin looks for under that name.
"""

from __future__ import annotations

import hashlib
from typing import Final

DRIVER_NAME: Final = "ossfuse.csi.dev"
"""`spec.csi.driver`, `provisioner`, and the prefix of our annotations, labels and taints."""

INJECT_ANNOTATION: Final = f"{DRIVER_NAME}/inject"
"""On a pod: "false" keeps its sidecars away."""

SIDECAR_DIRECTORY: Final = "/run/ossfuse"
"""Where a sidecar container has the tmpfs that it shares with the node plugin, and with nobody else."""
READY_FILE: Final = "READY"
"""In that directory, there while the sidecar serves its volume."""
READY_PIPE: Final = "READY.pipe"
"""In that directory, made by the gate in front of the pod's containers: what is written to it wakes the gate."""
CACHE_DIRECTORY: Final = "/var/cache/ossfuse"
"""Where a sidecar container has the volume for its disk cache, if it is to have one."""
CACHE_FOLDER: Final = "ossfuse-cache-1"
"""What a disk cache makes in the directory it is given: its owner's alone. The number is that of the layout."""
SESSIONS: Final = ("own", "pyfuse3")
"""Which code of a sidecar talks to the kernel (`csi/fuse/choice.py`); the first unless another is chosen."""

_PREFIX: Final = "ossfuse-"
_CACHE_PREFIX: Final = "ossdisk-"
"""As long as the other, so that a name fits if the other does."""
_LONGEST_LABEL: Final = 63
_DIGITS: Final = 8


def sidecar_name(volume: str) -> str:
    """Name of the sidecar container and of its tmpfs volume for the pod's volume `volume` (`spec.volumes[].name`).

    A DNS label of at most 63 characters (RFC 1123); names too long keep their beginning and end in a hash.
    """
    name = _PREFIX + volume
    if len(name) <= _LONGEST_LABEL:
        return name
    digest = hashlib.sha256(volume.encode()).hexdigest()[:_DIGITS]
    return f"{name[: _LONGEST_LABEL - _DIGITS - 1].rstrip('-')}-{digest}"


def cache_volume_name(sidecar: str) -> str:
    """Name of the pod's volume for the disk cache of the container `sidecar` (a `sidecar_name`)."""
    return _CACHE_PREFIX + sidecar.removeprefix(_PREFIX)
