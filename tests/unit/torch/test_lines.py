"""The couriers of a data set, and what a forked process has of them."""

from __future__ import annotations

import os

import pytest

from csi.oss.store import ObjectVersion
from csi.torch.catalogue import Entry
from csi.torch.connection import Connection
from csi.torch.lines import post_to
from csi.torch.logs import Audit
from csi.torch.slots import Slot
from csi.torch.uri import Place
from csi.volume.units import Bytes, ETag, ObjectKey

KEYS = {"OSS_ACCESS_KEY_ID": "key", "OSS_ACCESS_KEY_SECRET": "secret"}
PLACE = Place("bucket")
KEY, TAG, SIZE = ObjectKey("a"), ETag('"1234"'), Bytes(4)


def test_a_forked_process_leaves_to_its_parent_what_is_on_its_way_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csi.torch.connection.start_logs", lambda options: Audit(None))
    store = Connection.of("http://oss.local:9000", environ=KEYS).store(PLACE)
    post = post_to(store, Audit(None), Bytes(1 << 20), most=0, processors=1)
    assert post is not None
    slot = Slot(Entry(PLACE, KEY, SIZE, TAG), SIZE)
    slot.post, slot.parcel = post, post.send(ObjectVersion(KEY, TAG, SIZE), slot, lambda _: None)

    child = os.fork()
    if not child:
        slot.give_up()
        os._exit(post.parcels.waiting)
    waiting = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    slot.give_up()

    assert (waiting, post.parcels.waiting) == (1, 0)
