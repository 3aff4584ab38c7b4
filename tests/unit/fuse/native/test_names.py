"""LOOKUP, GETATTR and FORGET answered from tables: what is told, what is taken back, and what is counted."""

from __future__ import annotations

import errno
import struct
import threading

import pytest

from csi.fuse.protocol.bodies import Forget
from csi.fuse.protocol.constants import Opcode
from csi.volume.units import InodeNumber, Seconds
from tests.support.kernel_end import batch_forget_body, forget_body, getattr_body
from tests.unit.fuse.native.conftest import LONG, PYTHON, Tables, attributes

ROOT = InodeNumber(1)
FILE = InodeNumber(7)


def test_a_published_name_is_answered_with_inode_attributes_and_timeouts(tables: Tables) -> None:
    tables.answers.publish_inode(attributes(FILE, 123), believed=LONG, told=Seconds(5.0), generation=3)
    tables.answers.publish_name(ROOT, b"a", FILE, believed=LONG, told=Seconds(9.0))

    answered = tables.kernel.ask(Opcode.LOOKUP, b"a\0")

    node, generation, name_for, attributes_for = struct.unpack_from("<QQQQ", answered.body)
    assert (node, generation, name_for, attributes_for) == (FILE, 3, 8, 4)  # whole seconds: they have begun
    assert struct.unpack_from("<QQ", answered.body, 40) == (FILE, 123)
    assert tables.brought == []


def test_a_name_of_another_directory_is_another_name(tables: Tables) -> None:
    tables.add_file(b"a", FILE)

    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0", node=2).error == PYTHON


def test_a_name_that_begins_the_same_is_another_name(tables: Tables) -> None:
    tables.add_file(b"ab", FILE)

    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0").error == PYTHON


def test_attributes_are_answered(tables: Tables) -> None:
    tables.answers.publish_inode(attributes(FILE, 123), believed=LONG, told=Seconds(0.0))

    answered = tables.kernel.ask(Opcode.GETATTR, getattr_body(), node=FILE)

    assert struct.unpack_from("<QIxxxxQQ", answered.body) == (0, 0, FILE, 123)


def test_that_files_have_no_capabilities_is_answered_once_that_is_known(tables: Tables) -> None:
    def ask(name: bytes) -> int:
        return tables.kernel.ask(Opcode.GETXATTR, struct.pack("<II", 20, 0) + name, node=FILE).error

    assert ask(b"security.capability\0") == PYTHON
    tables.answers.deny_capabilities()
    assert ask(b"security.capability\0") == errno.ENODATA
    for other in (b"security.capabilitx\0", b"security.selinux\0", b"user.a\0", b"security.capability.\0"):
        assert ask(other) == PYTHON
    assert tables.answers.statistics().answered == {"getxattr": 1}


def test_an_absence_that_the_kernel_may_keep_is_a_negative_entry(tables: Tables) -> None:
    tables.answers.publish_absence(ROOT, b"no", believed=LONG, told=Seconds(5.0))

    answered = tables.kernel.ask(Opcode.LOOKUP, b"no\0")

    assert struct.unpack_from("<QQQ", answered.body) == (0, 0, 4)


def test_an_absence_that_the_kernel_may_not_keep_is_enoent(tables: Tables) -> None:
    tables.answers.publish_absence(ROOT, b"no", believed=LONG, told=Seconds(0.0))

    assert tables.kernel.ask(Opcode.LOOKUP, b"no\0").error == errno.ENOENT


@pytest.mark.parametrize("believed", [0.0, -1.0, 1e-9])
def test_nothing_is_answered_after_its_time(tables: Tables, believed: float) -> None:
    tables.answers.publish_inode(attributes(FILE), believed=Seconds(believed), told=LONG)
    tables.answers.publish_name(ROOT, b"a", FILE, believed=LONG, told=LONG)

    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0").error == PYTHON
    assert tables.kernel.ask(Opcode.GETATTR, getattr_body(), node=FILE).error == PYTHON


def test_a_name_without_an_inode_is_not_published(tables: Tables) -> None:
    assert not tables.answers.publish_name(ROOT, b"a", FILE, believed=LONG, told=LONG)


def test_a_retracted_name_comes_to_python(tables: Tables) -> None:
    tables.add_file(b"a", FILE)

    tables.answers.retract_name(ROOT, b"a")

    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0").error == PYTHON
    assert tables.kernel.ask(Opcode.GETATTR, getattr_body(), node=FILE).error == 0


def test_a_retracted_inode_comes_to_python_by_every_name(tables: Tables) -> None:
    tables.add_file(b"a", FILE)

    tables.answers.retract_inode(FILE)

    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0").error == PYTHON


def test_names_of_one_directory_are_retracted_alone(tables: Tables) -> None:
    tables.add_file(b"a", FILE)
    tables.answers.publish_absence(ROOT, b"no", believed=LONG, told=LONG)
    tables.answers.publish_name(InodeNumber(2), b"a", FILE, believed=LONG, told=LONG)

    tables.answers.retract_names(ROOT)

    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0").error == PYTHON
    assert tables.kernel.ask(Opcode.LOOKUP, b"no\0").error == PYTHON
    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0", node=2).error == 0


def test_everything_can_be_retracted(tables: Tables) -> None:
    tables.add_file(b"a", FILE)

    tables.answers.retract_all()

    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0").error == PYTHON
    assert tables.kernel.ask(Opcode.GETATTR, getattr_body(), node=FILE).error == PYTHON


def test_a_name_that_leads_elsewhere_now_does(tables: Tables) -> None:
    tables.add_file(b"a", FILE)
    tables.add_file(b"a", 8)

    assert struct.unpack_from("<Q", tables.kernel.ask(Opcode.LOOKUP, b"a\0").body) == (8,)
    tables.answers.withdraw_inode(FILE)
    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0").error == 0


def test_lookups_are_counted_and_moved_when_the_inode_is_withdrawn(tables: Tables) -> None:
    tables.add_file(b"a", FILE)
    for _ in range(3):
        tables.kernel.ask(Opcode.LOOKUP, b"a\0")

    assert tables.answers.withdraw_inode(FILE) == 3
    assert tables.answers.withdraw_inode(FILE) == 0
    assert tables.kernel.ask(Opcode.LOOKUP, b"a\0").error == PYTHON


def test_forgets_of_what_was_counted_here_do_not_come_to_python(tables: Tables) -> None:
    tables.add_file(b"a", FILE)
    tables.kernel.ask(Opcode.LOOKUP, b"a\0")

    tables.kernel.send(Opcode.FORGET, forget_body(1), node=FILE)
    tables.kernel.ask(Opcode.GETATTR, getattr_body(), node=FILE)

    assert tables.brought == []
    assert tables.answers.withdraw_inode(FILE) == 0


def test_the_rest_of_a_forget_comes_to_python(tables: Tables) -> None:
    tables.add_file(b"a", FILE)
    tables.kernel.ask(Opcode.LOOKUP, b"a\0")

    tables.kernel.send(Opcode.FORGET, forget_body(5), node=FILE)

    assert tables.came.acquire(timeout=20)
    assert tables.brought[0].body == Forget(((FILE, 4),))


def test_of_a_batch_only_what_is_left_comes_to_python(tables: Tables) -> None:
    tables.add_file(b"a", FILE)
    tables.add_file(b"b", 8)
    tables.kernel.ask(Opcode.LOOKUP, b"a\0")
    tables.kernel.ask(Opcode.LOOKUP, b"b\0")

    tables.kernel.send(Opcode.BATCH_FORGET, batch_forget_body((FILE, 1), (9, 2), (8, 3)), node=0)

    assert tables.came.acquire(timeout=20)
    assert tables.brought[0].body == Forget(((9, 2), (8, 2)))


def test_names_beyond_the_capacity_are_refused() -> None:
    tables = Tables(capacity=4)
    try:
        kept = [tables.answers.publish_absence(ROOT, b"%d" % one, believed=LONG, told=LONG) for one in range(6)]
        assert kept == [True] * 4 + [False] * 2
        assert tables.answers.statistics().refused == 2
    finally:
        tables.close()


def test_names_whose_time_is_over_make_room() -> None:
    tables = Tables(capacity=4)
    try:
        for one in range(4):
            tables.answers.publish_absence(ROOT, b"%d" % one, believed=Seconds(1e-9), told=LONG)
        assert tables.answers.publish_absence(ROOT, b"new", believed=LONG, told=LONG)
        assert tables.answers.statistics().names == 1
    finally:
        tables.close()


def test_a_hundred_thousand_lookups_and_forgets_leave_nothing(tables: Tables) -> None:
    for inode in range(10, 1010):
        tables.add_file(b"f%d" % inode, inode)
    for _ in range(100):
        for inode in range(10, 1010):
            tables.kernel.ask(Opcode.LOOKUP, b"f%d\0" % inode)
    for start in range(10, 1010, 100):
        tables.kernel.send(Opcode.BATCH_FORGET, batch_forget_body(*((one, 100) for one in range(start, start + 100))))
    tables.kernel.ask(Opcode.GETATTR, getattr_body(), node=10)

    assert (tables.answers.statistics().lookups, tables.brought) == (0, [])
    assert sum(tables.answers.withdraw_inode(InodeNumber(inode)) for inode in range(10, 1010)) == 0
    left = tables.answers.statistics()
    assert (left.inodes, left.names, left.lookups) == (0, 0, 0)


def test_no_answer_from_before_is_sent_after_a_retraction() -> None:
    """Versions of one inode are published and taken back while four threads answer: the answers, in the order in which
    they were written, never go back."""
    tables = Tables(threads=4)
    over = threading.Event()

    def publish() -> None:
        version = 0
        while not over.is_set():
            tables.answers.publish_inode(attributes(FILE, version), believed=LONG, told=LONG)
            tables.answers.retract_inode(FILE)
            version += 1

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        seen = []
        under_way = 0
        for _ in range(20_000):
            tables.kernel.send(Opcode.GETATTR, getattr_body(), node=FILE)
            under_way += 1
            if under_way == 8:
                answered = tables.kernel.receive()
                under_way -= 1
                if answered.error == 0:
                    seen.append(struct.unpack_from("<Q", answered.body, 24)[0])
    finally:
        over.set()
        publisher.join()
        tables.close()

    assert len(seen) > 10
    assert seen == sorted(seen)


def test_every_lookup_is_counted_once_while_inodes_are_withdrawn() -> None:
    tables = Tables(threads=4)
    moved = []
    over = threading.Event()

    def withdraw() -> None:
        while not over.is_set():
            tables.add_file(b"a", FILE)
            moved.append(tables.answers.withdraw_inode(FILE))

    withdrawing = threading.Thread(target=withdraw)
    withdrawing.start()
    try:
        told = sum(tables.kernel.ask(Opcode.LOOKUP, b"a\0").error == 0 for _ in range(5000))
    finally:
        over.set()
        withdrawing.join()
        moved.append(tables.answers.withdraw_inode(FILE))
        tables.close()

    assert told > 0
    assert sum(moved) == told
