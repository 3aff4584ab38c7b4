from collections.abc import Sequence

from csi.fuse.pages import Dot, Found
from csi.volume.units import InodeNumber

def fill(found: Sequence[Dot | Found], first: int, room: int, plus: bool, told: list[InodeNumber]) -> tuple[bytes, int]:
    """(page, how many): the records of `found` from `first` on that fit into `room` bytes. `told` gets the inodes of
    the DirectoryEntries among them."""
