"""What the controller remembers about the volumes it created, kept as objects in their own bucket.

A record `.ossfuse/volumes/<digest>` says what a volume is: capacity, prefix, attributes, and whether the prefix was
empty when the volume was created. A claim `.ossfuse/claims/<prefix><digest>` is written first and says who uses a
prefix, so that two volumes at one place, or one inside the other, are found by listing. Data is deleted only below a
prefix that was empty, that no other volume claims, and that the storage class gave up with `onDelete: delete`: what
this driver did not bring into being it does not end. There is no other state: a restarted controller knows as much.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from csi.errors import CallTimedOut, ObjectExists, ObjectNotFound, StoreError, VolumeConflict
from csi.oss.store import ListedObject, ObjectStore
from csi.volume.units import ObjectKey

ROOT = ".ossfuse/"
_VOLUMES = f"{ROOT}volumes/"
_CLAIMS = f"{ROOT}claims/"
_LARGEST_RECORD = 64 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """`capacity` in bytes, 0 when none was asked for. `owns_data`: the prefix was empty and unclaimed at creation."""

    name: str
    volume_id: str
    prefix: str
    capacity: int
    attributes: Mapping[str, str]
    on_delete: str
    owns_data: bool


class VolumeRecords:
    """The records in one bucket. Blocking; safe for any number of callers, in any number of processes.

    Every method raises StoreError as the store does.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, digest: str) -> VolumeRecord | None:
        """The record of a volume, None when there is none."""
        key = ObjectKey(_VOLUMES + digest)
        buffer = bytearray(_LARGEST_RECORD)
        try:
            _, size = self._store.read_whole(key, memoryview(buffer))
        except ObjectNotFound:
            return None
        return _decode(key, bytes(buffer[:size]))

    def create(self, digest: str, record: VolumeRecord) -> VolumeRecord:
        """Write down a new volume; of several callers one writes and all return what that one wrote."""
        self._store.put(_claim(record.prefix, digest), [record.volume_id.encode()])
        # the claim comes first: of two volumes created at one place at one time, each sees the other's
        owns = self._is_empty(record.prefix) and not self._claimed_by_others(record.prefix, digest)
        written = replace(record, owns_data=owns)
        try:
            self._store.put(ObjectKey(_VOLUMES + digest), [_encode(written)], forbid_overwrite=True)
        except ObjectExists:
            found = self.find(digest)
            if found is None:  # created and deleted meanwhile
                raise
            return found
        return written

    def delete(self, digest: str, record: VolumeRecord, *, time_left: Callable[[], float]) -> bool:
        """Forget a volume; True when its data was deleted too. Raises CallTimedOut when `time_left` (seconds) ends.

        May be stopped anywhere and called again: the record goes last.
        """
        deletes = record.on_delete == "delete" and self._may_delete(digest, record)
        if deletes:
            self._delete_below(record.prefix, time_left)
        self._store.delete(_claim(record.prefix, digest))
        self._store.delete(ObjectKey(_VOLUMES + digest))
        return deletes

    def _may_delete(self, digest: str, record: VolumeRecord) -> bool:
        if not record.prefix or not record.owns_data:
            log.warning("volume %s: %r held data before the volume was created; kept", record.name, record.prefix)
            return False
        others = self._claimed_by_others(record.prefix, digest)
        if others:
            log.warning("volume %s: %r is used by another volume (%s); kept", record.name, record.prefix, others)
            return False
        return True

    def _delete_below(self, prefix: str, time_left: Callable[[], float]) -> None:
        for page in self._store.list_all(prefix):
            failures = self._store.delete_many([found.key for found in page.objects])
            if failures:
                first = failures[0]
                raise StoreError(
                    f"{len(failures)} objects below {prefix!r} could not be deleted, the first is {first.key!r}: "
                    f"{first.code} {first.message}",
                    code=first.code,
                    operation="DeleteMultipleObjects",
                    key=first.key,
                    hint="allow oss:DeleteObject to the provisioner's key, or delete the objects by hand",
                )
            if time_left() <= 0:
                raise CallTimedOut(
                    f"objects below {prefix!r} are still being deleted", hint="the next call goes on from here"
                )

    def _is_empty(self, prefix: str) -> bool:
        """Whether nothing lies below `prefix`; the marker object of the directory itself is no data."""
        if not prefix:
            return False  # the whole bucket is never ours
        return all(found.key == prefix for found in self._store.list_page(prefix, max_keys=2).objects)

    def _claimed_by_others(self, prefix: str, digest: str) -> str:
        """The claim of another volume on `prefix`, on something below it or on a directory above it; '' for none."""
        for found in self._claims(prefix):
            if not found.key.endswith(f"/{digest}"):
                return found.key
        return ""

    def _claims(self, prefix: str) -> Iterator[ListedObject]:
        for page in self._store.list_all(_CLAIMS + prefix):
            yield from page.objects
        parts = prefix.split("/")[:-1]
        for depth in range(len(parts)):
            above = "".join(f"{part}/" for part in parts[:depth])
            for page in self._store.list_all(_CLAIMS + above, delimiter="/"):
                yield from page.objects


def _claim(prefix: str, digest: str) -> ObjectKey:
    return ObjectKey(f"{_CLAIMS}{prefix}{digest}")


def _encode(record: VolumeRecord) -> bytes:
    return json.dumps({"version": 1, **asdict(record)}, sort_keys=True, ensure_ascii=False, indent=1).encode()


def _decode(key: str, text: bytes) -> VolumeRecord:
    try:
        found = json.loads(text)
        version = found.pop("version")
        record = VolumeRecord(**found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VolumeConflict(
            f"object {key!r} is not a record of a volume ({type(error).__name__})",
            hint="somebody changed it; restore it, or delete it together with the volume's PersistentVolume",
        ) from error
    if version != 1:
        raise VolumeConflict(
            f"object {key!r} was written in format {version!r}, this controller knows 1", hint="upgrade the controller"
        )
    return record
