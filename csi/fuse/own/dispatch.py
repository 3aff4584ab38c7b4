"""From a message to its handler and back: every request is decoded, counted and answered, whatever happens.

Called by the threads of the device with requests that were not answered from tables. What may wait is done right there
while there are enough of them (nothing has to be woken for it), else on a thread of a lane, which answers. No exception
leaves; one that nobody foresaw is an errno and a line in the log.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from csi.fuse.errno_map import ErrorReporter
from csi.fuse.own.directories import DirectoryHandlers
from csi.fuse.own.exchange import Exchange, Exchanges, Replies
from csi.fuse.own.files import FileHandlers
from csi.fuse.own.interrupts import Interrupts
from csi.fuse.own.names import NameHandlers
from csi.fuse.own.work import NOTHING, Done, Later, Outcome, Refused
from csi.fuse.protocol.bodies import Forget, Header, Interrupt
from csi.fuse.protocol.constants import INTERRUPT_BIT, Opcode
from csi.fuse.protocol.messages import Malformed, decode
from csi.fuse.served import ServedFilesystem
from csi.volume.units import InodeNumber

_log = logging.getLogger(__name__)


class DeviceThreads(Replies, Protocol):
    """What is needed of `csi.fuse.native.device.Device`."""

    def stay(self, long: bool) -> bool: ...

    def leave(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Handler:
    """`operation` is its name in logs and statistics."""

    operation: str
    handle: Callable[[Header, Any], Outcome]


class Dispatch:
    """`setxattr_ext`: that flag of INIT was agreed on."""

    def __init__(
        self,
        filesystem: ServedFilesystem,
        device: DeviceThreads,
        exchanges: Exchanges,
        interrupts: Interrupts,
        reporter: ErrorReporter,
        handlers: Mapping[int, Handler],
        *,
        setxattr_ext: bool,
    ) -> None:
        self._filesystem = filesystem
        self._device = device
        self._exchanges = exchanges
        self._interrupts = interrupts
        self._reporter = reporter
        self._handlers = handlers
        self._setxattr_ext = setxattr_ext

    def handle(self, message: memoryview) -> None:
        """Answer one message, or see to it that it will be."""
        try:
            header, body = decode(message, setxattr_ext=self._setxattr_ext)
        except Malformed as malformed:
            _log.error("a request of the kernel cannot be read: %s", malformed)
            if malformed.header is not None and malformed.header.opcode not in _UNANSWERED:
                self._device.reply(malformed.header.unique, errno.EIO)
            return
        del message  # who keeps an error keeps the frames it came through, and is not to keep the buffer
        if isinstance(body, Forget):
            self._forget(body)
        elif isinstance(body, Interrupt):
            self._interrupt(header, body)
        else:
            handler = self._handlers.get(header.opcode)
            if handler is not None:
                self._answer(header, body, handler)
            elif header.opcode not in _UNANSWERED:
                self._device.reply(header.unique, errno.ENOSYS)  # the kernel does without, and mostly never asks again

    def _answer(self, header: Header, body: Any, handler: Handler) -> None:
        exchange = self._exchanges.begin(header.unique, handler.operation)
        try:
            outcome = handler.handle(header, body)
            if isinstance(outcome, Later):
                exchange.interruptible = outcome.interruptible
                if self._device.stay(outcome.long):
                    try:
                        self._work(exchange, outcome)
                    finally:
                        self._device.leave()
                else:
                    outcome.lane.submit(functools.partial(self._work, exchange, outcome))
            else:
                self._give(exchange, outcome)
        except BaseException as error:
            self._fail(exchange, error)

    def _work(self, exchange: Exchange, later: Later) -> None:
        """May wait; never raises."""
        try:
            self._give(exchange, later.finish(later.call()))
        except BaseException as error:
            self._fail(exchange, error)

    def _give(self, exchange: Exchange, done: Done) -> None:
        if done.dropped is None:
            self._exchanges.answer(exchange, done.parts, certain=False)
        elif not self._exchanges.answer(exchange, done.parts):
            done.dropped()

    def _fail(self, exchange: Exchange, error: BaseException) -> None:
        if isinstance(error, Refused):
            number = error.number
        else:
            try:
                number = self._reporter.report(exchange.operation, error)
            except BaseException:  # the log has failed: the caller needs its answer all the same
                number = errno.EIO
        self._exchanges.refuse(exchange, number)

    def _forget(self, body: Forget) -> None:
        for inode, count in body.forgotten:
            try:
                self._filesystem.forget(InodeNumber(inode), count)
            except Exception as error:
                self._reporter.report("forget", error)  # nobody waits for an answer to a forget

    def _interrupt(self, header: Header, body: Interrupt) -> None:
        if not self._interrupts.interrupt(body.unique & ~INTERRUPT_BIT):
            # another thread may not have come to it yet: the kernel says it again, unless it was answered
            self._device.reply(header.unique, errno.EAGAIN)


_UNANSWERED = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY})


def _nothing(_header: Header, _body: object) -> Outcome:
    return NOTHING


def handlers_of(names: NameHandlers, files: FileHandlers, directories: DirectoryHandlers) -> Mapping[int, Handler]:
    """Which request goes where. What is missing is answered ENOSYS."""
    return {
        Opcode.LOOKUP: Handler("lookup", names.lookup),
        Opcode.GETATTR: Handler("getattr", names.getattr),
        Opcode.STATX: Handler("statx", names.statx),
        Opcode.SETATTR: Handler("setattr", names.setattr),
        Opcode.ACCESS: Handler("access", names.access),
        Opcode.STATFS: Handler("statfs", names.statfs),
        Opcode.READLINK: Handler("readlink", names.readlink),
        Opcode.SYMLINK: Handler("symlink", names.symlink),
        Opcode.MKDIR: Handler("mkdir", names.mkdir),
        Opcode.RMDIR: Handler("rmdir", names.rmdir),
        Opcode.UNLINK: Handler("unlink", names.unlink),
        Opcode.RENAME: Handler("rename", names.rename),
        Opcode.RENAME2: Handler("rename", names.rename),
        Opcode.LINK: Handler("link", names.link),
        Opcode.GETXATTR: Handler("getxattr", names.getxattr),
        Opcode.LISTXATTR: Handler("listxattr", names.listxattr),
        Opcode.SETXATTR: Handler("setxattr", names.setxattr),
        Opcode.REMOVEXATTR: Handler("removexattr", names.removexattr),
        Opcode.OPEN: Handler("open", files.open),
        Opcode.CREATE: Handler("create", files.create),
        Opcode.MKNOD: Handler("mknod", files.mknod),
        Opcode.TMPFILE: Handler("tmpfile", files.tmpfile),
        Opcode.READ: Handler("read", files.read),
        Opcode.WRITE: Handler("write", files.write),
        Opcode.FLUSH: Handler("flush", files.flush),
        Opcode.FSYNC: Handler("fsync", files.fsync),
        Opcode.RELEASE: Handler("release", files.release),
        Opcode.FALLOCATE: Handler("fallocate", files.allocate),
        Opcode.LSEEK: Handler("lseek", files.seek),
        Opcode.COPY_FILE_RANGE: Handler("copy_file_range", files.copy_range),
        Opcode.COPY_FILE_RANGE_64: Handler("copy_file_range", files.copy_range_64),
        Opcode.OPENDIR: Handler("opendir", directories.opendir),
        Opcode.READDIR: Handler("readdir", directories.readdir),
        Opcode.READDIRPLUS: Handler("readdir", directories.readdirplus),
        Opcode.RELEASEDIR: Handler("releasedir", directories.releasedir),
        Opcode.FSYNCDIR: Handler("fsyncdir", directories.fsyncdir),
        Opcode.DESTROY: Handler("destroy", _nothing),
    }
