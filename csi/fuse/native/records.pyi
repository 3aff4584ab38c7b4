from collections.abc import Sequence

from csi.fuse.pages import Dot, Found

def fill(found: Sequence[Dot | Found], first: int, room: int, plus: bool) -> tuple[bytes, int]:
    """(page, how many): the records of `found` from `first` on that fit into `room` bytes."""
