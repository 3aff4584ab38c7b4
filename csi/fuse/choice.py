"""Which kernel session serves: our own, or the conservative one on pyfuse3, used too where ours was not built.

What a session needs is imported when it is chosen, before the process gives up its rights, and nothing of the other.
"""

from __future__ import annotations

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from csi.data.couriers import Couriers, Errands
from csi.data.streams import Tail
from csi.fs.published import NothingPublished, Published
from csi.fuse.own.passthrough import Registrar
from csi.fuse.protocol.negotiation import LARGEST_WRITE, InitResult
from csi.fuse.served import ServedFilesystem
from csi.fuse.session import KernelSession
from csi.volume.naming import SESSIONS
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds

if TYPE_CHECKING:
    from csi.fuse.native.answers import Answers

_log = logging.getLogger(__name__)

OWN, PYFUSE3 = SESSIONS
STOP_GRACE: Final = Seconds(5.0)


ForErrands = Callable[[Errands], Couriers]


class SessionChoice(ABC):
    """One kind of session. For each mount: `publish` first, then the filesystem that publishes there, then `open`."""

    name: str
    lasts: bool
    """Whether another process can go on with such a session (`Resumable`)."""

    @abstractmethod
    def publish(self, couriers: ForErrands | None = None) -> Published:
        """`couriers` makes who fetches small files that a session reads by itself."""

    def tails(self, published: Published) -> Callable[[], Tail] | None:
        """Makes a writer's tail, where the session puts writes by itself. None: every write comes to the filesystem."""
        return None

    def open(
        self,
        descriptor: int,
        filesystem: ServedFilesystem,
        arguments: MountArguments,
        published: Published,
        *,
        workers: int,
        on_started: Callable[[], None],
        stop_grace: Seconds = STOP_GRACE,
        registrar: Registrar | None = None,
        largest_write: int = LARGEST_WRITE,
        resume: InitResult | None = None,
    ) -> KernelSession:
        """The session of a mounted descriptor, not serving yet; `published` is of `publish`. `registrar` is for one
        that can have the kernel read files of a disk cache by itself, where this process may not see to that, and
        `largest_write` (bytes of a request) for one that can tell the kernel. `resume`: what INIT was answered with by
        the process before, for one that lasts."""
        make = self._session_on(published, registrar, largest_write, resume)
        return make(descriptor, filesystem, arguments, workers=workers, on_started=on_started, stop_grace=stop_grace)

    @abstractmethod
    def _session_on(
        self, published: Published, registrar: Registrar | None, largest_write: int, resume: InitResult | None
    ) -> Callable[..., KernelSession]:
        """What makes a session that answers from `published`. Raises TypeError if that is of another kind."""


def choose(name: str) -> SessionChoice:
    """`name` is one of SESSIONS. Says so in the log when our own was asked for and cannot be had."""
    if name == OWN:
        try:
            return _Own()
        except ImportError as error:
            _log.warning("our own kernel session is not built here (%s): serving with pyfuse3", error)
    return _Pyfuse3()


class _Own(SessionChoice):
    name = OWN
    lasts = True

    def __init__(self) -> None:
        from csi.fuse.native.answers import Answers  # noqa: PLC0415 - may not be built
        from csi.fuse.native.tails import WriterTail  # noqa: PLC0415
        from csi.fuse.own.session import OwnSession  # noqa: PLC0415

        self._answers = Answers
        self._tail = WriterTail
        self._session = OwnSession

    def publish(self, couriers: ForErrands | None = None) -> Published:
        answers = self._answers()
        answers.couriers = couriers(answers) if couriers is not None else None
        return answers

    def tails(self, published: Published) -> Callable[[], Tail] | None:
        return functools.partial(self._tail, self._of_ours(published))

    def _of_ours(self, published: Published) -> Answers:
        if not isinstance(published, self._answers):
            raise TypeError(f"{published!r} was not made by this kind of session")
        return published

    def _session_on(
        self, published: Published, registrar: Registrar | None, largest_write: int, resume: InitResult | None
    ) -> Callable[..., KernelSession]:
        ours = self._of_ours(published)
        return functools.partial(
            self._session, answers=ours, registrar=registrar, largest_write=largest_write, resume=resume
        )


class _Pyfuse3(SessionChoice):
    name = PYFUSE3
    lasts = False

    def __init__(self) -> None:
        from csi.fuse.pyfuse3_session import Pyfuse3Session  # noqa: PLC0415 - not needed beside our own

        self._session = Pyfuse3Session

    def publish(self, couriers: ForErrands | None = None) -> Published:
        return NothingPublished()

    def _session_on(
        self, published: Published, registrar: Registrar | None, largest_write: int, resume: InitResult | None
    ) -> Callable[..., KernelSession]:
        return self._session
