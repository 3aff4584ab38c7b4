"""Requests that a predecessor read and did not answer: it may have done them.

The kernel marks them when a successor asks for them again. What makes a name then finds it made, what removes one finds
it gone: that is success, and only for those, since to anybody else it is an error. A write is repeated at its offset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from csi.errors import DirectoryNotEmpty, EntryExists, FilesystemError, NoAttribute, NoSuchEntry
from csi.fuse.protocol.bodies import Header
from csi.fuse.protocol.constants import UNIQUE_RESEND

T = TypeVar("T")


def is_resent(header: Header) -> bool:
    return bool(header.unique & UNIQUE_RESEND)


def made(header: Header, make: Callable[[], T], find: Callable[[], T]) -> Callable[[], T]:
    """`make`, or what `find` finds when it was made before."""
    if not is_resent(header):
        return make

    def make_or_find() -> T:
        try:
            return make()
        except EntryExists:
            return find()

    return make_or_find


def removed(header: Header, remove: Callable[[], None]) -> Callable[[], None]:
    """`remove`, or nothing when it was removed before."""
    if not is_resent(header):
        return remove

    def remove_or_not() -> None:
        try:
            remove()
        except (NoSuchEntry, NoAttribute):
            return

    return remove_or_not


def moved(header: Header, move: Callable[[], None], find: Callable[[], object]) -> Callable[[], None]:
    """`move`, or nothing when the source is gone and `find` finds the target. Raises what `move` does otherwise, but
    for a target that is not empty: what is in it may have been moved there before."""
    if not is_resent(header):
        return move

    def move_or_not() -> None:
        try:
            move()
        except NoSuchEntry as error:
            try:
                find()
            except NoSuchEntry:
                raise error from None
        except DirectoryNotEmpty as error:
            raise FilesystemError(
                f"{error.message}; the process that served the mount ended while it renamed, so a part of the "
                "directory may be there under either name",
                hint="look at both, and move what is left",
            ) from None

    return move_or_not
