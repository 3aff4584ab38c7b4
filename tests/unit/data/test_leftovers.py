"""Uploads that could not be aborted when they failed: they are, as soon as the store answers."""

from __future__ import annotations

import pytest

from csi.data.leftovers import Leftovers
from csi.errors import DeadlineExceeded, ObjectNotFound
from csi.volume.spec import WriteOptions
from csi.volume.units import KIB, Bytes, ObjectKey, Seconds
from tests.support.engines import Hold, content, engine_over, until
from tests.support.memory_store import MemoryStore

KEY = ObjectKey("data/file")
SOON, NEVER = Seconds(0.005), Seconds(3600)


@pytest.fixture
def hold():
    return Hold("AbortMultipartUpload")


@pytest.fixture
def store(hold):
    return MemoryStore(hold)


def left_behind(store, *, interval, count=1):
    leftovers = Leftovers(store, interval=interval)
    for _ in range(count):
        leftovers.add(KEY, store.initiate_multipart(KEY))
    return leftovers


def test_they_are_tried_again_until_they_are_gone(store, hold):
    for _ in range(3):
        hold.fail_next(DeadlineExceeded("the store does not answer"))
    leftovers = left_behind(store, interval=SOON, count=2)
    until(lambda: store.uploads == {})
    assert leftovers.statistics().uploads == 0
    leftovers.close()


def test_one_that_fails_again_is_kept_and_the_others_are_not_waited_for(store, hold):
    leftovers = left_behind(store, interval=NEVER, count=3)
    hold.fail_next(DeadlineExceeded("the store does not answer"))
    leftovers.retry()
    assert leftovers.statistics().uploads == len(store.uploads) == 3
    leftovers.retry()
    assert leftovers.statistics().uploads == len(store.uploads) == 0
    leftovers.close()


def test_an_upload_whose_abort_failed_is_gone_when_the_engine_is_closed(store, hold):
    with engine_over(store, write=WriteOptions(threads=4, part_size=Bytes(100 * KIB))) as engine:
        writer = engine.open_writer(KEY)
        writer.write(content(300 * KIB))
        until(lambda: len(store.uploads) == 1)
        hold.fail_next(DeadlineExceeded("the store does not answer"))
        writer.abandon()
        assert len(store.uploads) == 1
    assert store.uploads == {}


def test_one_that_can_never_be_aborted_is_given_up_with_a_line_in_the_log(store, hold, caplog):
    leftovers = left_behind(store, interval=NEVER)
    for _ in range(360):
        hold.fail_next(ObjectNotFound("refused"))
        leftovers.retry()
    assert leftovers.statistics().uploads == 0
    assert "let a lifecycle rule of the bucket abort old uploads" in caplog.text
    leftovers.close()
