"""What a node plugin must remember about a volume of a pod to serve it again after its own restart.

One note for each published volume, in the state directory. The mount table stays the truth about what is mounted, and
no note holds a secret: credentials lie in the pod's own tmpfs only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from csi.handover.mounting import MountOrder
from csi.handover.state import RuntimeDirectory
from csi.handover.types import PodReference, SidecarPlace
from csi.handover.wire import Mount
from csi.volume.units import Bytes, Seconds

_VERSION: Final = 1
_NOTE: Final = "publication"
_SERVED: Final = "served"


@dataclass(frozen=True, slots=True)
class Note:
    """`given` tells one request from another (`PublishRequest.given`); `frame` is what a sidecar is told, `order` what
    mount(2) is told."""

    pod: PodReference
    place: SidecarPlace
    given: str
    frame: Mount
    order: MountOrder


class Notes:
    """The notes of one volume, in its runtime directory."""

    def __init__(self, runtime: RuntimeDirectory) -> None:
        self._runtime = runtime

    def write(self, note: Note) -> None:
        """Whole or not at all. Raises OSError."""
        content = {"version": _VERSION, **asdict(note)}
        content["place"]["directory"] = str(note.place.directory)
        self._runtime.note(_NOTE, json.dumps(content))

    def read(self) -> Note | None:
        """None when there is none, or one that this version does not understand."""
        try:
            return _note(json.loads(self._runtime.noted(_NOTE)))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def mark_served(self) -> None:
        """A sidecar has served the volume. Raises OSError."""
        self._runtime.note(_SERVED, "yes")

    @property
    def served(self) -> bool:
        return bool(self._runtime.noted(_SERVED))


def _note(content: dict[str, Any]) -> Note | None:
    if content["version"] != _VERSION:
        return None
    place = content["place"]
    return Note(
        pod=PodReference(**content["pod"]),
        place=SidecarPlace(
            str(place["container"]), Path(place["directory"]), Bytes(place["memory_limit"]), Seconds(place["grace"])
        ),
        given=str(content["given"]),
        frame=Mount(**content["frame"]),
        order=MountOrder(**content["order"]),
    )
