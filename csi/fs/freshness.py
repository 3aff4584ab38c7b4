"""How old an answer of OSS may be, in seconds, before it has to be asked for again.

Attributes: `attr_timeout`. A name: the larger of `attr_timeout` and `entry_timeout`. The absence of a name:
`negative_timeout`. The names of a directory: `entry_timeout`. The age of an answer is taken off the timeout the kernel
is given with it (`csi/fs/appearance.py`), so user space and kernel together never exceed what was asked for. Zero asks
OSS each time; but as the kernel sends LOOKUP, GETATTR and OPEN for one open(2), what a LOOKUP has just found is good
for the rest of that call (`GRACE`).
"""

from __future__ import annotations

from collections.abc import Callable

from csi.volume.spec import MountArguments
from csi.volume.units import Seconds

GRACE = Seconds(1.0)
"""How long the answer to a LOOKUP serves the other requests of the same system call, where timeouts are 0."""


class Freshness:
    """Judges times that `clock` told; a clock that was set back makes everything old."""

    def __init__(self, arguments: MountArguments, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._arguments = arguments
        self._name = max(arguments.attr_timeout, arguments.entry_timeout)
        # with names asked for each time, every path access has just done a LOOKUP
        self._grace = GRACE if arguments.entry_timeout <= 0 else Seconds(0.0)

    @property
    def keeps_names(self) -> bool:
        """Whether anything that is learned of a name serves more than the request it was asked for."""
        return self._name > 0

    def of_name(self, at: float) -> bool:
        """Whether a LOOKUP may be told that a name is there."""
        return self._is_within(at, self._name)

    def of_absence(self, at: float) -> bool:
        """Whether a LOOKUP may be told that a name is not there."""
        return self._is_within(at, self._arguments.negative_timeout)

    def of_attributes(self, at: float) -> bool:
        """Whether GETATTR may be answered."""
        return self._is_within(at, max(self._arguments.attr_timeout, self._grace))

    def of_version(self, at: float, *, looked_up: bool) -> bool:
        """Whether OPEN may use the version known; `looked_up`: by the LOOKUP of this open."""
        return self._is_within(at, max(self._arguments.attr_timeout, self._grace if looked_up else 0.0))

    def of_listing(self, at: float) -> bool:
        """Whether readdir may show a listing again."""
        return self._is_within(at, self._arguments.entry_timeout)

    def for_change(self, at: float) -> bool:
        """Whether a name that is about to be changed is known well enough by the LOOKUP that came before."""
        return self._is_within(at, max(self._name, GRACE))

    def for_making(self, at: float) -> bool:
        """Whether a name that is about to be made is known well enough not to be there."""
        return self._is_within(at, GRACE)

    def name_left(self, at: float) -> Seconds:
        """For how long from now `of_name` will say yes."""
        return self._left(at, self._name)

    def absence_left(self, at: float) -> Seconds:
        """For how long from now `of_absence` will say yes."""
        return self._left(at, self._arguments.negative_timeout)

    def attributes_left(self, at: float) -> Seconds:
        """For how long from now `of_attributes` will say yes."""
        return self._left(at, max(self._arguments.attr_timeout, self._grace))

    def opens_left(self, at: float) -> Seconds:
        """For how long from now `of_version` will say yes, whatever was looked up; never where a LOOKUP is good for
        longer than what is known otherwise, because then it is good for one open only."""
        return self._left(at, self._arguments.attr_timeout) if self._arguments.attr_timeout >= GRACE else Seconds(0.0)

    def _left(self, at: float, limit: float) -> Seconds:
        age = self._clock() - at
        return Seconds(limit - age if 0 <= age < limit else 0.0)

    def _is_within(self, at: float, limit: float) -> bool:
        return 0 <= self._clock() - at < limit
