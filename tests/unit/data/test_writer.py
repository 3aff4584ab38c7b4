"""Sequential writing: whole objects or nothing, whatever the sizes, the memory and the failures."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi.data.staging import Allotment
from csi.errors import (
    BadHandle,
    ChecksumMismatch,
    DeadlineExceeded,
    FileTooLarge,
    ObjectExists,
    ObjectNotFound,
    OutOfMemoryBudget,
    PreconditionFailed,
    RequestRejected,
    ServerFailure,
)
from csi.oss.checksum import crc64_of
from csi.oss.store import Buffer, ObjectVersion, PutResult
from csi.volume.spec import WriteOptions
from csi.volume.units import KIB, MIB, Bytes, ObjectKey
from tests.support.engines import Hold, Running, content, engine_over, seeded, until
from tests.support.memory_store import MemoryStore

KEY = ObjectKey("object")
SMALL_PARTS = WriteOptions(threads=2, part_size=Bytes(256 * KIB))


def in_chunks(data: bytes, size: int = 1 * MIB) -> list[bytes]:
    return [data[offset : offset + size] for offset in range(0, len(data), size)]


# --- what appears ---


@pytest.mark.parametrize("size", [0, 1, 100 * KIB, 256 * KIB])
def test_what_fits_one_part_is_one_put(size: int) -> None:
    store = MemoryStore()
    data = content(size)
    with engine_over(store, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY, user={"a": "b"}, content_type="text/plain")
        for piece in in_chunks(data, 30_000):
            writer.write(piece)
        assert writer.position == size
        assert KEY not in store.objects
        result = writer.finish()
    assert store.data(KEY) == data
    assert store.objects[KEY].user == {"a": "b"}
    assert store.objects[KEY].content_type == "text/plain"
    assert result.crc64 == crc64_of([data])
    assert dict(store.requests) == {"PutObject": 1}


def test_more_than_a_part_goes_up_while_it_is_written_and_appears_at_the_end() -> None:
    store = MemoryStore()
    data = content(2 * MIB + 5)
    with engine_over(store, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY, user={"a": "b"})
        for piece in in_chunks(data, 100_000):
            writer.write(piece)
        until(lambda: store.requests["UploadPart"] >= 7)
        assert KEY not in store.objects
        writer.finish()
        assert writer.visible_version.size == len(data)
        assert writer.visible_version.etag == store.objects[KEY].etag
    assert store.data(KEY) == data
    assert store.objects[KEY].user == {"a": "b"}
    assert store.uploads == {}


def test_what_is_written_may_change_after_write_returned() -> None:
    store = MemoryStore()
    with engine_over(store) as engine:
        writer = engine.open_writer(KEY)
        scratch = bytearray(b"first")
        writer.write(scratch)
        scratch[:] = b"other"
        writer.finish()
    assert store.data(KEY) == b"first"


def test_finish_again_returns_the_same_and_writing_on_is_refused() -> None:
    store = MemoryStore()
    with engine_over(store) as engine:
        writer = engine.open_writer(KEY)
        writer.write(b"x")
        assert writer.finish() is writer.finish()
        writer.abandon()
        with pytest.raises(BadHandle):
            writer.write(b"y")
    assert store.data(KEY) == b"x"
    assert store.requests["PutObject"] == 1


class ChecksumStore(MemoryStore):
    """Remembers the checksum the writer expects of the whole."""

    expected: object = None

    def complete_multipart(self, *arguments: object, **options: object) -> PutResult:
        self.expected = options["crc64"]
        return super().complete_multipart(*arguments, **options)


@pytest.mark.parametrize("compare", [True, False])
def test_the_checksum_of_the_whole_is_combined_from_the_parts(compare: bool) -> None:
    store = ChecksumStore()
    data = content(1 * MIB + 77)
    options = WriteOptions(threads=2, part_size=Bytes(256 * KIB), crc64=compare)
    with engine_over(store, write=options) as engine:
        writer = engine.open_writer(KEY)
        writer.write(data)
        writer.finish()
    assert store.expected == (crc64_of([data]) if compare else None)


def test_an_exclusive_writer_meets_what_others_made_meanwhile() -> None:
    store = MemoryStore()
    with engine_over(store, write=SMALL_PARTS) as engine:
        for size in (10, 1 * MIB):
            writer = engine.open_writer(KEY, forbid_overwrite=True)
            writer.write(content(size))
            store.seed(KEY, b"theirs")
            with pytest.raises(ObjectExists):
                writer.finish()
    assert store.data(KEY) == b"theirs"
    assert store.uploads == {}


# --- continuing ---


@pytest.mark.parametrize("size", [0, 1, 300 * KIB, 5 * MIB])
@pytest.mark.parametrize("added", [1, 3 * MIB])
def test_a_continued_object_holds_the_old_bytes_and_the_new(size: int, added: int) -> None:
    store = ChecksumStore()
    old, new = content(size, 1), content(added, 2)
    base = seeded(store, KEY, old)
    with engine_over(store, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY, base=base)
        assert writer.position == size
        writer.write(new)
        assert writer.position == size + added
        writer.finish()
    assert store.data(KEY) == old + new
    assert store.expected in (None, crc64_of([old + new]))
    assert store.uploads == {}


def test_a_large_base_is_copied_inside_oss_and_not_read() -> None:
    store = ChecksumStore()
    old = content(5 * MIB)
    base = seeded(store, KEY, old)
    with engine_over(store) as engine:
        writer = engine.open_writer(KEY, base=base)
        writer.write(b"tail")
        writer.finish()
    assert store.requests["GetObject"] == 0
    assert store.requests["UploadPartCopy"] == 1
    assert store.expected == crc64_of([old, b"tail"])


def test_what_was_continued_is_continued_again_and_read_from_memory() -> None:
    store = ChecksumStore()
    version, whole = seeded(store, KEY, b"0"), b"0"
    with engine_over(store) as engine:
        for line in (b"one\n", b"two\n", content(300 * KIB), b"three\n"):
            writer = engine.open_writer(KEY, base=version)
            writer.write(line)
            whole += line
            version = ObjectVersion(KEY, writer.finish().etag, Bytes(len(whole)))
            reader = engine.open_reader(version)
            assert bytes(reader.read(0, 1 * MIB)) == whole
            reader.close()
        assert engine.statistics().cache.blocks == 1
        assert engine.statistics().memory_in_use == 0
    assert store.data(KEY) == whole
    assert store.requests["GetObject"] == 1


def test_nothing_is_kept_of_what_was_continued_beyond_one_request_or_replaced_since() -> None:
    store = MemoryStore()
    base = seeded(store, KEY, content(1 * MIB))
    with engine_over(store) as engine:
        writer = engine.open_writer(KEY, base=base)
        writer.write(b"x")
        writer.finish()
        assert engine.statistics().cache.blocks == 0
        base = seeded(store, KEY, b"one")
        writer = engine.open_writer(KEY, base=base)
        writer.write(b"two")
        kept = ObjectVersion(KEY, writer.finish().etag, Bytes(6))
        store.seed(KEY, b"theirs")
        writer = engine.open_writer(KEY, base=kept)
        writer.write(b"three")
        with pytest.raises(PreconditionFailed):
            writer.finish()
    assert store.data(KEY) == b"theirs"


def test_nothing_added_leaves_the_object_as_it_is() -> None:
    store = MemoryStore()
    base = seeded(store, KEY, b"old")
    with engine_over(store) as engine:
        assert engine.open_writer(KEY, base=base).finish().etag == base.etag
    assert sum(store.requests.values()) == 0


@pytest.mark.parametrize("size", [10, 5 * MIB])
def test_a_base_that_was_replaced_is_not_continued(size: int) -> None:
    store = MemoryStore()
    base = seeded(store, KEY, content(size, 1))
    with engine_over(store) as engine:
        writer = engine.open_writer(KEY, base=base)
        store.seed(KEY, content(size, 2))
        with pytest.raises(PreconditionFailed):
            writer.write(b"tail")
        with pytest.raises(PreconditionFailed):
            writer.finish()
    assert store.data(KEY) == content(size, 2)
    assert store.uploads == {}


@pytest.mark.parametrize("size", [0, 10, 5 * MIB])
@pytest.mark.parametrize("added", [10, 3 * MIB])
@pytest.mark.parametrize("theirs", [b"theirs", None])
def test_what_another_client_did_to_the_object_meanwhile_is_not_undone(
    size: int, added: int, theirs: bytes | None
) -> None:
    store = MemoryStore()
    base = seeded(store, KEY, content(size, 1))
    with engine_over(store, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY, base=base)
        writer.write(content(added, 2))
        if theirs is None:
            store.delete(KEY)
        else:
            store.seed(KEY, theirs)
        for _ in range(2):
            with pytest.raises((PreconditionFailed, ObjectNotFound)):
                writer.finish()
    assert store.objects.get(KEY) is None if theirs is None else store.data(KEY) == theirs
    assert store.uploads == {}


def test_a_writer_that_is_done_is_freed_without_the_garbage_collector() -> None:
    store = MemoryStore()
    with engine_over(store) as engine:
        gc.disable()
        try:
            writer = engine.open_writer(KEY)
            alive = weakref.ref(writer)
            writer.write(b"x")
            writer.finish()
            del writer
            assert alive() is None
        finally:
            gc.enable()


# --- failures ---


@pytest.mark.parametrize("operation", ["InitiateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_a_failed_upload_is_told_and_leaves_nothing(operation: str) -> None:
    hold = Hold(operation)
    store = MemoryStore(hold)
    store.seed(KEY, b"old")
    with engine_over(store, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY)
        hold.fail_next(ServerFailure("broken", status=500))
        with pytest.raises(ServerFailure, match="broken"):
            for piece in in_chunks(content(4 * MIB), 100_000):
                writer.write(piece)
            writer.finish()
        for again in (writer.finish, writer.flush, lambda: writer.write(b"more")):
            with pytest.raises(ServerFailure, match="broken"):
                again()
        assert engine.statistics().staging.held == 0
    assert store.data(KEY) == b"old"
    assert store.uploads == {}


def test_a_failed_put_is_told_and_leaves_the_old_object() -> None:
    hold = Hold("PutObject")
    store = MemoryStore(hold)
    store.seed(KEY, b"old")
    with engine_over(store) as engine:
        writer = engine.open_writer(KEY)
        writer.write(b"new")
        hold.fail_next(ServerFailure("broken", status=500))
        with pytest.raises(ServerFailure):
            writer.finish()
        with pytest.raises(ServerFailure):
            writer.finish()
    assert store.data(KEY) == b"old"


def test_an_error_in_the_background_is_raised_by_flush() -> None:
    hold = Hold("UploadPart")
    store = MemoryStore(hold)
    with engine_over(store, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY)
        hold.fail_next(ServerFailure("broken", status=500))
        writer.write(content(300 * KIB))
        until(lambda: engine.statistics().uploads.failed == 1)
        with pytest.raises(ServerFailure):
            writer.flush()
    assert store.uploads == {}


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_an_abandoned_file_never_appears(size: int) -> None:
    store = MemoryStore()
    with engine_over(store, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY)
        writer.write(content(size))
        writer.abandon()
        writer.abandon()
        with pytest.raises(BadHandle):
            writer.finish()
        assert engine.statistics().staging.held == 0
        assert engine.statistics().writers == 0
    assert store.objects == {}
    assert store.uploads == {}


def test_closing_the_engine_abandons_what_is_being_written() -> None:
    store = MemoryStore()
    with engine_over(store, write=SMALL_PARTS) as engine:
        engine.open_writer(KEY).write(content(3 * MIB))
    assert store.objects == {}
    assert store.uploads == {}


class LyingStore(MemoryStore):
    """Makes the object, then finds its checksum wrong; `head` agrees."""

    def complete_multipart(self, *arguments: object, **options: object) -> PutResult:
        super().complete_multipart(*arguments, **options)
        damaged = bytearray(self.data(KEY))
        damaged[0] ^= 1
        self.seed(KEY, bytes(damaged))
        raise ChecksumMismatch(f"{KEY}: checksum", key=KEY)


def test_an_object_that_arrived_damaged_is_not_left_to_be_read() -> None:
    store = LyingStore()
    with engine_over(store, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY)
        writer.write(content(1 * MIB))
        with pytest.raises(ChecksumMismatch):
            writer.finish()
    assert store.objects == {}


def test_a_store_that_swallows_parts_ends_in_an_error() -> None:
    hold = Hold("UploadPart")
    store = MemoryStore(hold)
    with engine_over(store, write=SMALL_PARTS, budget=2 * MIB, patience=0.05) as engine:
        writer = engine.open_writer(KEY)
        hold.hold()
        with pytest.raises(DeadlineExceeded):
            for piece in in_chunks(content(8 * MIB)):
                writer.write(piece)
        hold.release()
        until(lambda: engine.statistics().uploads.running == 0)
    assert store.uploads == {}


# --- memory ---


def test_a_fast_writer_waits_for_the_network_and_stays_in_its_memory() -> None:
    hold = Hold("UploadPart")
    store = MemoryStore(hold)
    data = content(24 * MIB)
    with engine_over(store, write=SMALL_PARTS, budget=4 * MIB) as engine:
        writer = engine.open_writer(KEY)
        hold.hold()
        running = Running()
        running.start(lambda: [writer.write(piece) for piece in in_chunks(data)] and writer.finish())
        hold.wait_for(2)
        assert writer.position < 4 * MIB
        hold.release()
        running.join()
        assert engine.statistics().memory.peak <= 4 * MIB
    assert store.data(KEY) == data


@pytest.mark.parametrize("budget", [512 * KIB, 4 * MIB, 32 * MIB])
def test_many_writers_and_readers_with_little_memory_all_finish(budget: int) -> None:
    store = MemoryStore()
    data = content(3 * MIB + 12345)
    version = seeded(store, "read", data)
    with engine_over(store, budget=budget) as engine:

        def write(name: str) -> bool:
            writer = engine.open_writer(ObjectKey(name))
            for piece in in_chunks(data, 300_000):
                writer.write(piece)
            writer.finish()
            return store.data(name) == data

        def read() -> bool:
            reader = engine.open_reader(version)
            found = b"".join(bytes(reader.read(offset, 128 * KIB)) for offset in range(0, len(data), 128 * KIB))
            reader.close()
            return found == data

        running = Running()
        for index in range(16):
            running.start(lambda index=index: write(f"written-{index}"))
            running.start(read)
        assert running.join() == [True] * 32
        until(lambda: engine.statistics().cache.in_flight == 0)
        figures = engine.statistics()
        assert figures.memory.peak <= budget
        assert (figures.staging.held, figures.memory_in_use, figures.writers) == (0, 0, 0)


def test_a_part_that_arrives_while_memory_is_asked_for_is_waited_for_and_no_empty_one_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    data = content(1 * MIB)
    take = Allotment.take
    with engine_over(store, budget=512 * KIB) as engine:
        writer = engine.open_writer(KEY)

        def refused_and_then_overtaken(allotment: Allotment) -> memoryview | None:
            buffer = take(allotment)
            if buffer is None:  # it was refused because parts were under way; before anybody looks, they have arrived
                until(lambda: writer.statistics().under_way == 0)
            return buffer

        monkeypatch.setattr(Allotment, "take", refused_and_then_overtaken)
        for piece in in_chunks(data, 100_000):
            writer.write(piece)
        writer.finish()
    assert store.data(KEY) == data


def test_more_writers_than_the_memory_can_serve_are_refused_at_open() -> None:
    store = MemoryStore()
    with engine_over(store, budget=1 * MIB, admission=0.01) as engine:
        writers = [engine.open_writer(ObjectKey(f"{index}")) for index in range(4)]
        with pytest.raises(OutOfMemoryBudget):
            engine.open_writer(KEY)
        for writer in writers:
            writer.write(content(1 * MIB))
            writer.finish()
        engine.open_writer(KEY).finish()
    assert {len(found.data) for found in store.objects.values()} == {1 * MIB, 0}


@pytest.mark.parametrize("written", [1, 150 * KIB, 200 * KIB, 300 * KIB])
def test_an_idle_writer_makes_room_when_another_wants_to_open(written: int) -> None:
    store = MemoryStore()
    data = content(400 * KIB)
    options = WriteOptions(threads=2, part_size=Bytes(8 * MIB))
    with engine_over(store, budget=1 * MIB, write=options) as engine:
        idle = engine.open_writer(ObjectKey("idle"))
        idle.write(content(written))
        others = [engine.open_writer(ObjectKey(f"{index}")) for index in range(3)]
        for writer in others:
            writer.write(data)
            writer.finish()
        idle.write(data)
        idle.finish()
    assert store.data("idle") == content(written) + data


def test_a_file_of_too_many_parts_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csi.data.plan._STAGES", ((2, 1), (3, 4)))
    store = MemoryStore()
    with engine_over(store, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY)
        with pytest.raises(FileTooLarge, match="10,000 parts"):
            writer.write(content(8 * MIB))
        with pytest.raises(FileTooLarge):
            writer.finish()
    assert store.objects == {}
    assert store.uploads == {}


# --- reading back ---


def test_what_was_sent_is_kept_where_it_is_asked_for() -> None:
    data = content(5 * MIB)
    with engine_over(MemoryStore(), write=SMALL_PARTS) as engine:
        kept, other = engine.open_writer(KEY), engine.open_writer(ObjectKey("other"))
        kept.keep()
        for writer in (kept, other):
            writer.write(data)
        assert kept.readable_from == 0
        assert other.readable_from > 0
        for offset, size in ((0, len(data)), (1, 3 * MIB), (4 * MIB + 1, 100), (len(data) - 1, 10), (len(data), 1)):
            assert kept.reread(offset, size) == data[offset : offset + size]
        assert other.reread(0, 1) is None
        for writer in (kept, other):
            writer.finish()
        assert kept.reread(0, 1) is None
        assert engine.statistics().memory_in_use == 0


def test_what_is_kept_gives_way_to_what_is_written() -> None:
    data = content(40 * MIB)
    store = MemoryStore()
    with engine_over(store, budget=16 * MIB, write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY)
        writer.keep()
        for piece in in_chunks(data):
            writer.write(piece)
            begin = writer.readable_from
            assert begin == 0 or writer.position > 6 * MIB
            assert writer.reread(begin, 64 * MIB) == data[begin : writer.position]
        assert begin > 38 * MIB  # as if nothing had been kept
        assert engine.statistics().memory_in_use < 4 * MIB
        writer.finish()
    assert store.data(KEY) == data


def test_what_is_kept_gives_way_to_who_wants_to_open() -> None:
    data, store = content(7 * MIB), MemoryStore()
    with engine_over(store, budget=16 * MIB, write=SMALL_PARTS) as engine:
        kept = engine.open_writer(KEY)
        kept.keep()
        kept.write(data)
        assert kept.readable_from == 0
        others = [engine.open_writer(ObjectKey(f"other{number}")) for number in range(60)]
        assert kept.readable_from > 0
        for writer in others:
            writer.abandon()
        kept.finish()
    assert store.data(KEY) == data


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_what_is_kept_of_an_upload_that_fails_is_given_back(operation: str, keeps: bool) -> None:
    def before(called: str, _key: str) -> None:
        if called == operation:
            raise RequestRejected("no", status=400)

    with engine_over(MemoryStore(before), write=SMALL_PARTS) as engine:
        writer = engine.open_writer(KEY)
        if keeps:
            writer.keep()
        with pytest.raises(RequestRejected):
            writer.write(content(3 * MIB))
            writer.finish()
    assert engine.statistics().memory_in_use == 0  # also of parts that ended after the failure


# --- any sequence ---


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.lists(st.one_of(st.integers(0, 1 * MIB), st.sampled_from([1, 128 * KIB, 256 * KIB, MIB])), max_size=12),
    base_size=st.one_of(st.none(), st.integers(0, 1 * MIB)),
    budget=st.sampled_from([512 * KIB, 2 * MIB, 16 * MIB]),
    part_size=st.sampled_from([100 * KIB, 256 * KIB, 300_000, 8 * MIB]),
    keeps=st.booleans(),
)
def test_any_sequence_of_writes_makes_exactly_those_bytes(
    pieces: list[int], base_size: int | None, budget: int, part_size: int, keeps: bool
) -> None:
    store = ChecksumStore()
    old = content(base_size or 0, 1)
    base = None if base_size is None else seeded(store, KEY, old)
    data = content(sum(pieces), 2)
    options = WriteOptions(threads=2, part_size=Bytes(part_size))
    with engine_over(store, budget=budget, write=options) as engine:
        writer = engine.open_writer(KEY, base=base)
        if keeps:
            writer.keep()
        offset = 0
        for size in pieces:
            piece: Buffer = memoryview(data)[offset : offset + size]
            writer.write(piece)
            offset += size
            assert writer.position == len(old) + offset
            here = writer.readable_from
            assert writer.reread(here, 64 * MIB) == (old + data[:offset])[here:]
            assert here == 0 or writer.reread(here - 1, 1) is None
        writer.finish()
    assert store.data(KEY) == old + data
    assert store.uploads == {}
    assert store.expected in (None, crc64_of([old + data]))
