"""What a handler decides: an answer that is there, or a call that may wait and how its result is answered.

`dropped` gives back what the caller was told or given when it turns out that it never got it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from csi.fuse.lanes import KindsOfCalls, Lane
from csi.fuse.own.exchange import Answer

EMPTY: Answer = ()
_LARGER = ("names", "reads")


class Refused(Exception):
    """Answered with this errno; a decision of the session, not an error of the filesystem."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True, slots=True)
class Done:
    parts: Answer
    dropped: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """`call` on a thread of `lane`, then `finish` on its result. `long`: it mostly waits for the network."""

    lane: Lane
    call: Callable[[], Any]
    finish: Callable[[Any], Done]
    interruptible: bool = False
    long: bool = True


Outcome = Done | Later

NOTHING = Done(EMPTY)


def nothing(_result: object) -> Done:
    return NOTHING


class Lanes(KindsOfCalls[Lane]):
    """The threads of a session of our own. Names and reads have more: each waits for the network for itself, and where
    no answer comes, it is not to wait for those of others too."""

    def __init__(self, size: int, larger: int) -> None:
        super().__init__(lambda name: Lane(name, larger if name.endswith(_LARGER) else size))


def call(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return functools.partial(function, *arguments)
