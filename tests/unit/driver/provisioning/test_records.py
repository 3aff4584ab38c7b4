"""What the controller remembers, and what must never happen: deleting data that it did not bring into being."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from csi.driver.provisioning.records import VolumeRecord, VolumeRecords
from csi.errors import CallTimedOut, ServerFailure, StoreError, VolumeConflict
from csi.oss.store import DeleteFailure
from csi.volume.units import ObjectKey
from tests.support.memory_store import MemoryStore

RECORD = VolumeRecord(
    name="pvc-1",
    volume_id="oss-cn-hangzhou/data/aaaa",
    prefix="team/pvc-1/",
    capacity=1024,
    attributes={"bucket": "data"},
    on_delete="delete",
    owns_data=False,
)


def delete(store: MemoryStore, digest: str, record: VolumeRecord) -> bool:
    return VolumeRecords(store).delete(digest, record, time_left=lambda: 10.0)


def data_keys(store: MemoryStore) -> list[str]:
    return sorted(key for key in store.objects if not key.startswith(".ossfuse/"))


def test_a_record_is_found_again_by_another_controller():
    store = MemoryStore()

    written = VolumeRecords(store).create("d1", RECORD)

    assert VolumeRecords(store).find("d1") == written == replace(RECORD, owns_data=True)


def test_an_unknown_volume_has_no_record():
    assert VolumeRecords(MemoryStore()).find("d1") is None


def test_of_two_creators_both_get_what_one_wrote():
    store = MemoryStore()
    first = VolumeRecords(store).create("d1", RECORD)

    second = VolumeRecords(store).create("d1", replace(RECORD, capacity=9))

    assert second == first


def test_creators_at_the_same_moment_agree():
    store = MemoryStore()
    both = threading.Barrier(2, timeout=10)
    found: list[VolumeRecord] = []

    def create(capacity: int) -> None:
        both.wait()
        found.append(VolumeRecords(store).create("d1", replace(RECORD, capacity=capacity)))

    threads = [threading.Thread(target=create, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert found[0] == found[1]


def test_deleting_takes_the_data_that_came_after_the_volume():
    store = MemoryStore()
    record = VolumeRecords(store).create("d1", RECORD)
    store.seed("team/pvc-1/a", b"1")
    store.seed("team/pvc-1/b/c", b"2")
    store.seed("team/pvc-10/kept", b"3")

    assert delete(store, "d1", record)

    assert sorted(store.objects) == ["team/pvc-10/kept"]


def test_data_is_kept_unless_the_class_gave_it_up():
    store = MemoryStore()
    record = VolumeRecords(store).create("d1", replace(RECORD, on_delete="retain"))
    store.seed("team/pvc-1/a", b"1")

    assert not delete(store, "d1", record)

    assert sorted(store.objects) == ["team/pvc-1/a"]


def test_data_older_than_the_volume_is_kept():
    store = MemoryStore()
    store.seed("team/pvc-1/old", b"precious")
    record = VolumeRecords(store).create("d1", RECORD)
    store.seed("team/pvc-1/new", b"1")

    assert not delete(store, "d1", record)

    assert data_keys(store) == ["team/pvc-1/new", "team/pvc-1/old"]


def test_the_marker_of_an_empty_directory_is_not_data():
    store = MemoryStore()
    store.seed("team/pvc-1/", b"")

    assert VolumeRecords(store).create("d1", RECORD).owns_data


@pytest.mark.parametrize(
    "neighbour", ["team/pvc-1/", "team/pvc-1/inside/", "team/", ""], ids=["same", "below", "above", "whole bucket"]
)
@pytest.mark.parametrize("order", ["before", "after"])
def test_data_that_another_volume_uses_is_kept(neighbour, order):
    store = MemoryStore()
    other = replace(RECORD, name="pvc-2", prefix=neighbour)
    if order == "before":
        VolumeRecords(store).create("d2", other)
        record = VolumeRecords(store).create("d1", RECORD)
    else:
        record = VolumeRecords(store).create("d1", RECORD)
        VolumeRecords(store).create("d2", other)
    store.seed("team/pvc-1/a", b"1")

    assert not delete(store, "d1", record)

    assert data_keys(store) == ["team/pvc-1/a"]


def test_a_neighbour_with_a_longer_name_is_no_neighbour_inside():
    store = MemoryStore()
    VolumeRecords(store).create("d2", replace(RECORD, prefix="team/pvc-10/"))

    assert VolumeRecords(store).create("d1", RECORD).owns_data


def test_a_volume_of_the_whole_bucket_never_owns_it():
    store = MemoryStore()
    record = VolumeRecords(store).create("d1", replace(RECORD, prefix=""))
    store.seed("a", b"1")

    assert not record.owns_data
    assert not delete(store, "d1", replace(record, owns_data=True))
    assert data_keys(store) == ["a"]


def test_an_interrupted_deletion_is_finished_by_the_next_call():
    store = MemoryStore()
    record = VolumeRecords(store).create("d1", RECORD)
    for number in range(1500):
        store.seed(f"team/pvc-1/{number:04}", b"")

    with pytest.raises(CallTimedOut, match="still being deleted; the next call goes on"):
        VolumeRecords(store).delete("d1", record, time_left=lambda: 0.0)
    left = len(data_keys(store))
    found = VolumeRecords(store).find("d1")
    deleted = delete(store, "d1", record)

    assert 0 < left < 1500
    assert found == record
    assert deleted
    assert store.objects == {}


class RefusingStore(MemoryStore):
    def delete_many(self, keys: object) -> list[DeleteFailure]:
        return [DeleteFailure(ObjectKey("team/pvc-1/a"), "AccessDenied", "no")]


def test_objects_that_cannot_be_deleted_are_named_and_the_record_stays():
    store = RefusingStore()
    record = VolumeRecords(store).create("d1", RECORD)
    store.seed("team/pvc-1/a", b"1")

    with pytest.raises(StoreError, match=r"'team/pvc-1/a': AccessDenied no; allow oss:DeleteObject"):
        delete(store, "d1", record)

    assert VolumeRecords(store).find("d1") == record


def test_a_failure_between_claim_and_record_is_healed_by_the_next_call():
    failing = {"PutObject": 1}

    def fail_once(operation: str, key: str) -> None:
        if operation == "PutObject" and key == ".ossfuse/volumes/d1" and failing["PutObject"]:
            failing["PutObject"] -= 1
            raise ServerFailure("broken", status=500)

    store = MemoryStore(before=fail_once)
    with pytest.raises(ServerFailure):
        VolumeRecords(store).create("d1", RECORD)

    assert VolumeRecords(store).create("d1", RECORD).owns_data


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"not json", b'{"version": 1, "name": "x"}', json.dumps({"version": 1}).encode()]
)
def test_a_record_that_was_tampered_with_is_named(text):
    store = MemoryStore()
    store.seed(".ossfuse/volumes/d1", text)

    with pytest.raises(VolumeConflict, match=r"'\.ossfuse/volumes/d1' is not a record"):
        VolumeRecords(store).find("d1")


def test_a_record_of_a_later_format_asks_for_an_upgrade():
    store = MemoryStore()
    VolumeRecords(store).create("d1", RECORD)
    text = store.data(".ossfuse/volumes/d1").replace(b'"version": 1', b'"version": 2')
    store.seed(".ossfuse/volumes/d1", text)

    with pytest.raises(VolumeConflict, match="upgrade the controller"):
        VolumeRecords(store).find("d1")
