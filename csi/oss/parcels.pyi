from csi.oss.getting import Stamp

class Parcel: ...

class Parcels:
    """At most `most` couriers are at work at a time, however many there are. Any thread may call."""

    gets: int
    """Objects fetched so far."""
    hired: int
    """Couriers that there are, or that are about to come; set by who hires them."""

    def __init__(self, most: int) -> None: ...
    def put(self, key: bytes, etag: bytes, size: int, slot: object) -> tuple[Parcel, int]:
        """Have an object fetched of which key, ETag and size are known: (what to wait for, how many couriers there is
        work for)."""
    def wait(self, parcel: Parcel) -> bytes | None:
        """The bytes; None when they have to be got in the ordinary way, for which a courier has the slot. Once."""
    def forget(self, parcel: Parcel) -> None:
        """Nobody will wait for it."""
    def close(self) -> None:
        """Couriers come back when what was put is done."""
    def serve(self, descriptor: int, stamp: Stamp, slow: float) -> tuple[int, bool, object]:
        """Fetch on a connected socket, as a courier: (why it ended, whether the connection can be used again, what of).

        0: closed, and nothing is left; 1: the connection has ended; 2: `stamp` is old; 3: an object was not answered as
        expected, the slot of which is given (None: nobody wants it any more); 4: one took `slow` seconds or longer:
        (key, size, seconds); 5: answers take so long that more couriers should be hired.
        """
    def take(self) -> object | None:
        """The slot of the first parcel that waits, for who has no connection, or None."""
    @property
    def waiting(self) -> int:
        """Parcels that no courier has begun."""
    @property
    def needed(self) -> int:
        """How many couriers there is work for."""
