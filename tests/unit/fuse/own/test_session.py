"""The session from INIT to its end, with a fake kernel on the other side."""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from csi.fuse.native.answers import Answers
from csi.fuse.own.session import OwnSession
from csi.fuse.protocol.constants import InitFlag, Opcode
from csi.fuse.protocol.negotiation import InitResult, VersionNotSupported
from csi.fuse.requests import PassthroughStatistics
from csi.volume.spec import MountArguments
from csi.volume.units import InodeNumber, Seconds
from tests.support.kernel_end import KernelEnd, read_body
from tests.support.tree_filesystem import TreeFilesystem


class Serving:
    def __init__(
        self,
        started: Callable[[], None] = lambda: None,
        filesystem: TreeFilesystem | None = None,
        arguments: MountArguments | None = None,
        **options: Any,
    ) -> None:
        self.kernel = KernelEnd()
        self.filesystem = filesystem or TreeFilesystem()
        self.filesystem.add("file", b"0123456789")
        self.answers = Answers()
        self.announced = threading.Event()
        self.failure: BaseException | None = None

        def announce() -> None:
            started()
            self.announced.set()

        options = {"stop_grace": Seconds(20.0), **options}
        self.session = OwnSession(
            self.kernel.descriptor,
            self.filesystem,
            arguments or MountArguments(),
            answers=self.answers,
            workers=2,
            on_started=announce,
            **options,
        )
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.session.serve()
        except BaseException as error:
            self.failure = error

    def has_ended(self) -> bool:
        self.thread.join(20)
        return not self.thread.is_alive()

    def close(self) -> None:
        self.filesystem.unblock.set()
        self.session.stop()
        assert self.has_ended()
        self.kernel.unmount()


@pytest.fixture
def serving() -> Iterator[Serving]:
    made = Serving()
    yield made
    made.close()


def test_init_is_answered_and_then_requests(serving: Serving) -> None:
    answered = serving.kernel.init()

    major, minor = struct.unpack_from("<II", answered.body)
    assert (major, minor, len(answered.body)) == (7, 45, 64)
    assert serving.announced.wait(20)
    assert serving.kernel.ask(Opcode.LOOKUP, b"file\0").error == 0


def test_a_newer_major_is_answered_with_ours_and_asks_again(serving: Serving) -> None:
    newer = serving.kernel.ask(Opcode.INIT, struct.pack("<IIIIII", 8, 0, 0, 0, 0, 0), node=0)

    assert struct.unpack_from("<I", newer.body) == (7,)
    assert serving.kernel.init().error == 0


def test_a_kernel_that_is_too_old_is_refused() -> None:
    serving = Serving()

    answered = serving.kernel.ask(Opcode.INIT, struct.pack("<IIII", 7, 12, 0, 0), node=0)

    assert answered.error == errno.EPROTO
    assert serving.has_ended()
    assert isinstance(serving.failure, VersionNotSupported)


def test_what_was_agreed_can_be_handed_on(serving: Serving) -> None:
    serving.kernel.init()
    assert serving.announced.wait(20)
    agreed = serving.session.agreed
    assert agreed is not None

    assert InitResult.from_json(agreed.to_json()) == agreed
    assert agreed.has(InitFlag.HAS_RESEND)


def test_a_successor_asks_for_what_was_not_answered_and_serves_without_init(serving: Serving) -> None:
    serving.kernel.init()
    assert serving.announced.wait(20)
    successor = Serving(resume=serving.session.agreed)

    resend = successor.kernel.receive()
    again = successor.kernel.send(Opcode.LOOKUP, b"file\0", unique=(1 << 63) | 8)
    answered = successor.kernel.receive()

    assert (resend.unique, -resend.error, resend.body) == (0, 7, b"")
    assert (answered.unique, answered.error) == (again, 0)
    assert successor.announced.wait(20)
    successor.close()


def test_unmounting_ends_the_session(serving: Serving) -> None:
    serving.kernel.init()
    serving.kernel.unmount()

    assert serving.has_ended()
    assert serving.failure is None


def test_stopping_ends_it_before_init(serving: Serving) -> None:
    serving.session.stop()

    assert serving.has_ended()
    assert serving.failure is None


def test_stopping_before_serving_ends_it_at_once() -> None:
    kernel = KernelEnd()
    session = OwnSession(
        kernel.descriptor,
        TreeFilesystem(),
        MountArguments(),
        answers=Answers(),
        workers=1,
        on_started=lambda: None,
    )
    session.stop()

    session.serve()

    kernel.unmount()


def test_requests_under_way_are_finished_when_it_stops(serving: Serving) -> None:
    serving.kernel.init()
    unique = serving.kernel.send(Opcode.LOOKUP, b"slow\0")
    while not serving.session.statistics().in_flight:
        time.sleep(0.001)

    serving.session.stop()
    serving.filesystem.unblock.set()

    answered = serving.kernel.receive()
    assert (answered.unique, answered.error) == (unique, 0)
    assert serving.has_ended()


def test_requests_that_take_too_long_are_answered_when_it_stops() -> None:
    serving = Serving(stop_grace=Seconds(0.05))
    serving.kernel.init()
    uniques = {serving.kernel.send(Opcode.LOOKUP, b"slow\0") for _ in range(6)}  # more than the device has threads
    while serving.session.statistics().in_flight < 6:
        time.sleep(0.001)

    serving.session.stop()

    answered = [serving.kernel.receive() for _ in range(6)]
    assert {one.unique for one in answered} == uniques
    assert {one.error for one in answered} == {errno.EIO}
    assert serving.has_ended()
    serving.close()


def test_requests_go_on_being_answered_while_as_many_wait_as_there_are_threads(serving: Serving) -> None:
    serving.kernel.init()
    for _ in range(8):
        serving.kernel.send(Opcode.LOOKUP, b"slow\0")

    assert serving.kernel.ask(Opcode.LOOKUP, b"file\0").error == 0


def test_tables_answer_while_every_thread_of_python_is_held_up(serving: Serving) -> None:
    """A handler that does not return for as long as it likes: the watch gives the lead to another thread."""
    serving.kernel.init()
    held = threading.Event()
    serving.filesystem.statfs = lambda: held.wait(30) or TreeFilesystem.statfs(serving.filesystem)  # type: ignore[method-assign]
    serving.answers.publish_block(1, 0, b"published")
    serving.answers.publish_file(9, 1, 9)  # type: ignore[arg-type]
    stuck = serving.kernel.send(Opcode.STATFS)

    answered = serving.kernel.ask(Opcode.READ, read_body(9, 0, 100))

    held.set()
    assert answered.body == b"published"
    assert serving.kernel.receive().unique == stuck


def test_a_failing_announcement_ends_the_session() -> None:
    def fail() -> None:
        raise OSError("nobody to tell")

    serving = Serving(fail)
    serving.kernel.init()

    assert serving.has_ended()
    assert isinstance(serving.failure, OSError)


def test_answers_from_tables_are_in_the_statistics(serving: Serving) -> None:
    serving.kernel.init()
    serving.kernel.ask(Opcode.LOOKUP, b"file\0")
    serving.answers.publish_absence(InodeNumber(1), b"no", believed=Seconds(60.0), told=Seconds(0.0))
    serving.kernel.ask(Opcode.LOOKUP, b"no\0")

    assert serving.session.statistics().answered == {"lookup": 2}


def test_reads_beyond_a_mark_are_told_to_a_filesystem_that_listens() -> None:
    told = threading.Event()
    reached: list[tuple[int, int, int]] = []

    class Listening(TreeFilesystem):
        def read_reached(self, handle: int, offset: int, end: int) -> None:
            reached.append((handle, offset, end))
            told.set()

    kernel, answers = KernelEnd(), Answers()
    session = OwnSession(
        kernel.descriptor, Listening(), MountArguments(), answers=answers, workers=1, on_started=lambda: None
    )
    thread = threading.Thread(target=session.serve)
    thread.start()
    kernel.init()
    answers.publish_block(1, 0, b"published")
    answers.publish_file(9, 1, 9)  # type: ignore[arg-type]
    answers.tell_at(9, 4)  # type: ignore[arg-type]

    kernel.ask(Opcode.READ, read_body(9, 0, 9))

    assert told.wait(20)
    assert reached == [(9, 0, 9)]
    session.stop()
    thread.join(20)
    kernel.unmount()


# --- passthrough ---


class OnDisk(TreeFilesystem):
    def backing(self, handle: int) -> None:
        return None


@pytest.mark.parametrize(
    ("filesystem", "read_only", "may", "expected"),
    [
        pytest.param(OnDisk, True, True, True, id="all there is to it"),
        pytest.param(OnDisk, True, False, False, id="a right is missing"),
        pytest.param(OnDisk, False, True, False, id="it can be written"),
        pytest.param(TreeFilesystem, True, True, False, id="no disk cache"),
    ],
)
def test_passthrough_is_agreed_on_where_it_can_be(
    filesystem: type[TreeFilesystem], read_only: bool, may: bool, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        serving = Serving(
            filesystem=filesystem(), arguments=MountArguments(read_only=read_only), may_register=lambda: may
        )
        answered = serving.kernel.init()
    serving.close()

    flags, depth = struct.unpack_from("<II", answered.body, 32)
    assert bool(flags & InitFlag.PASSTHROUGH >> 32) is expected
    assert depth == expected
    assert ("CAP_SYS_ADMIN" in caplog.text) is (not may)


class Elsewhere:
    """Implements `Registrar`, and `BackingFiles`."""

    def __init__(self, *, there: bool) -> None:
        self.there = there
        self.device = -1
        self.closed = False

    def is_there(self) -> bool:
        return self.there

    def files(self, device: int) -> Elsewhere:
        os.fstat(device)
        self.device = device
        return self

    def register(self, descriptor: int) -> int:
        return 0

    def unregister(self, number: int) -> None: ...

    def close(self) -> None:
        os.fstat(self.device)  # not before
        self.closed = True


@pytest.mark.parametrize("there", [True, False])
def test_where_this_process_has_no_right_another_one_may_register_files(there: bool) -> None:
    elsewhere = Elsewhere(there=there)
    serving = Serving(
        filesystem=OnDisk(),
        arguments=MountArguments(read_only=True),
        may_register=lambda: False,
        registrar=elsewhere,
    )
    answered = serving.kernel.init()
    serving.kernel.ask(Opcode.LOOKUP, b"file\0")
    passed = serving.session.statistics().passthrough
    serving.close()

    (flags,) = struct.unpack_from("<I", answered.body, 32)
    assert bool(flags & InitFlag.PASSTHROUGH >> 32) is there
    assert passed == (PassthroughStatistics(0, 0, 0) if there else None)
    assert elsewhere.closed is there


def test_a_session_that_passes_files_through_is_not_taken_over() -> None:
    agreed = InitResult(7, 45, InitFlag.INIT_EXT | InitFlag.PASSTHROUGH, 0, 1 << 20, 256, 64, 48)

    with pytest.raises(ValueError, match="passes files through"):
        Serving(resume=agreed)
