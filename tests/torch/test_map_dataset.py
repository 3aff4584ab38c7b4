"""OssMapDataset against the emulator."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    RandomSampler,
    StackDataset,
    Subset,
    get_worker_info,
    random_split,
)
from torchdata.stateful_dataloader import StatefulDataLoader

from csi.errors import (
    BucketNotFound,
    ExtraMissing,
    InvalidOption,
    ManifestMalformed,
    ObjectNotFound,
    OssFuseError,
    PermissionDenied,
    PreconditionFailed,
    SamplesUnavailable,
)
from csi.torch import LookAhead, OssDCPFileSystem, OssMapDataset, imagenet_manifest_parser
from csi.torch.samples import OssObject
from tests.torch.conftest import Ground

COUNT = 40


def content(number: int) -> bytes:
    return f"sample {number:04}\n".encode() * (number + 1)


def described(sample: OssObject) -> tuple[str, int, bytes, Any]:
    return sample.key.rpartition("/")[2], sample.size, sample.read(), sample.label


def expected(number: int) -> tuple[str, int, bytes, Any]:
    return f"{number:04}.bin", len(content(number)), content(number), ""


def as_it_is(batch: list[Any]) -> list[Any]:
    return batch


@pytest.fixture
def samples(ground: Ground) -> Ground:
    for number in range(COUNT):
        ground.emulator.seed(f"data/{number:04}.bin", content(number))
    return ground


def dataset(ground: Ground, **options: Any) -> OssMapDataset:
    options = {"transform": described} | options
    return OssMapDataset.from_prefix(ground.uri("data/"), **ground.arguments, **options)


def test_samples_are_in_the_order_of_their_keys(samples: Ground) -> None:
    made = dataset(samples)
    assert len(made) == COUNT
    assert [made[number] for number in range(COUNT)] == [expected(number) for number in range(COUNT)]
    assert made[-1] == expected(COUNT - 1)


def test_a_directory_marker_is_no_sample(samples: Ground) -> None:
    samples.emulator.seed("data/", b"")
    assert len(dataset(samples)) == COUNT


def test_a_number_beyond_the_end_is_an_index_error(samples: Ground) -> None:
    made = dataset(samples)
    with pytest.raises(IndexError, match="sample 40 of a data set of 40"):
        made[COUNT]


@pytest.mark.parametrize(("start", "workers"), [("fork", 3), ("spawn", 1), ("forkserver", 2)])
def test_workers_give_every_sample_in_order_and_list_nothing(samples: Ground, start: str, workers: int) -> None:
    made = dataset(samples)
    samples.emulator.reset_counters()
    loader = DataLoader(
        made, batch_size=4, num_workers=workers, multiprocessing_context=start, collate_fn=as_it_is, pin_memory=False
    )
    assert [sample for batch in loader for sample in batch] == [expected(number) for number in range(COUNT)]
    assert samples.emulator.count("ListObjectsV2") == 0
    assert samples.emulator.count("GetObject") == COUNT
    assert made.statistics().samples == COUNT


def test_a_batch_keeps_the_order_asked_for_also_with_repetitions(samples: Ground) -> None:
    wanted = [7, 3, 39, 3, 0, -1]
    assert dataset(samples).__getitems__(wanted) == [expected(number % COUNT) for number in wanted]


def test_the_first_sample_costs_one_request_after_the_listing(samples: Ground) -> None:
    made = dataset(samples)
    samples.emulator.reset_counters()
    assert made[5] == expected(5)
    assert samples.emulator.counters()["requests"] == 1


def test_a_shuffled_order_that_is_told_ahead_is_fetched_ahead(samples: Ground) -> None:
    made = dataset(samples)
    batches = LookAhead(BatchSampler(RandomSampler(made), 4, drop_last=False), num_workers=0, batches=2)
    samples.emulator.reset_counters()
    first = next(iter(DataLoader(made, batch_sampler=batches, collate_fn=as_it_is)))
    assert len(first) == 4
    seen = {sample[0] for batch in DataLoader(made, batch_sampler=batches, collate_fn=as_it_is) for sample in batch}
    assert len(seen) == COUNT
    assert COUNT + 4 <= samples.emulator.count("GetObject") <= COUNT + 12


@pytest.mark.parametrize("loader", [DataLoader, StatefulDataLoader])
def test_workers_fetch_the_shuffled_batches_ahead_that_wait_for_them(samples: Ground, loader: Any) -> None:
    made = dataset(samples)
    samples.emulator.reset_counters()
    loaded = loader(made, 4, shuffle=True, num_workers=1, prefetch_factor=6, collate_fn=watched)
    batches = list(loaded)
    assert sorted(sample[0] for batch, _ in batches for sample in batch) == [expected(n)[0] for n in range(COUNT)]
    assert samples.emulator.count("GetObject") == COUNT
    assert any(begun > 0 for _, begun in batches)


def watched(batch: list[Any]) -> tuple[list[Any], int]:
    """A batch, and how many samples of later ones were begun by then."""
    here = get_worker_info().dataset._here
    return batch, len(here.lookahead._slots)


def test_a_data_set_pickles_by_value(samples: Ground) -> None:
    made = dataset(samples)
    made.__getitems__([0, 1])
    again = pickle.loads(pickle.dumps(made))
    assert again[3] == expected(3)


def test_samples_without_a_transform_reach_the_training_process(samples: Ground) -> None:
    made = OssMapDataset.from_prefix(samples.uri("data/"), **samples.arguments)
    loader = DataLoader(made, batch_size=8, num_workers=2, collate_fn=as_it_is)
    assert [described(sample) for batch in loader for sample in batch] == [expected(n) for n in range(COUNT)]


def test_named_objects_are_discovered_by_one_request_each(samples: Ground) -> None:
    uris = [samples.uri(f"data/{number:04}.bin") for number in (4, 2)]
    made = OssMapDataset.from_objects(uris, **samples.arguments, transform=described)
    samples.emulator.reset_counters()
    assert [made[0], made[1]] == [expected(4), expected(2)]
    assert samples.emulator.counters()["requests"] == 2


def test_an_empty_object_is_a_sample(samples: Ground) -> None:
    samples.emulator.seed("empty", b"")
    made = OssMapDataset.from_objects(samples.uri("empty"), **samples.arguments, transform=described)
    assert made[0] == ("empty", 0, b"", "")


@pytest.mark.parametrize("named", [False, True])
def test_an_object_larger_than_the_unit_is_read_by_ranges(ground: Ground, named: bool) -> None:
    ground.configure(datasetConfig={"prefetchUnitMB": 1, "prefetchMB": 16})
    body = bytes(range(256)) * (8 * 1024)  # 2 MiB
    ground.emulator.seed("large/one", body)
    if named:
        made = OssMapDataset.from_objects([ground.uri("large/one")], **ground.arguments)
    else:
        made = OssMapDataset.from_prefix(ground.uri("large/"), **ground.arguments)
    with made[0] as sample:
        assert sample.size == len(body)
        sample.seek(1_000_003)
        assert sample.read(10) == body[1_000_003:1_000_013]
        sample.seek(0)
        assert sample.read() == body
    again = pickle.loads(pickle.dumps(made[0]))
    assert again.read() == body


def test_a_manifest_gives_keys_and_labels(samples: Ground, tmp_path: Any) -> None:
    path = tmp_path / "manifest"
    path.write_text("0002.bin\tcat\n\n0001.bin\n0003.bin\tdog\textra\n")
    made = OssMapDataset.from_manifest_file(
        str(path), imagenet_manifest_parser, samples.uri("data/"), **samples.arguments, transform=described
    )
    assert [(sample[0], sample[3]) for sample in made.__getitems__([0, 1, 2])] == [
        ("0002.bin", "cat"),
        ("0001.bin", ""),
        ("0003.bin", "dog"),
    ]


def test_a_manifest_may_lie_in_the_bucket(samples: Ground) -> None:
    samples.emulator.seed("manifest", b"0002.bin\tcat\n" * 3)
    made = OssMapDataset.from_manifest_file(
        samples.uri("manifest"), imagenet_manifest_parser, samples.uri("data/"), **samples.arguments
    )
    assert [made[number].label for number in range(3)] == ["cat"] * 3


def test_a_malformed_line_is_named(samples: Ground, tmp_path: Any) -> None:
    path = tmp_path / "manifest"
    path.write_text("0002.bin\tcat\n\tdog\n")
    with pytest.raises(ManifestMalformed, match=r"manifest, line 2: the line has a label, but no key") as told:
        OssMapDataset.from_manifest_file(str(path), imagenet_manifest_parser, samples.uri("data/"), **samples.arguments)
    assert told.value.line == 2


# --- what fails ---


def test_a_missing_object_is_an_error_where_its_bytes_are_wanted(samples: Ground) -> None:
    made = OssMapDataset.from_objects(samples.uri("data/none"), **samples.arguments, transform=lambda sample: sample)
    with pytest.raises(ObjectNotFound) as told:
        made[0].read()
    assert told.value.bucket == samples.emulator.bucket
    assert told.value.key == "data/none"
    assert told.value.request_id


def test_a_transform_may_deal_with_a_missing_object(samples: Ground) -> None:
    def forgiving(sample: OssObject) -> bytes | None:
        try:
            return sample.read()
        except OssFuseError:
            return None

    uris = [samples.uri("data/none"), samples.uri("data/0001.bin")]
    made = OssMapDataset.from_objects(uris, **samples.arguments, transform=forgiving)
    assert made.__getitems__([0, 1]) == [None, content(1)]


def test_without_a_transform_a_missing_object_is_an_error_of_the_data_set(samples: Ground) -> None:
    made = OssMapDataset.from_objects(samples.uri("data/none"), **samples.arguments)
    with pytest.raises(ObjectNotFound):
        made[0]


def test_the_error_of_a_worker_keeps_its_type_and_names_the_object(samples: Ground) -> None:
    made = OssMapDataset.from_objects(samples.uri("data/none"), **samples.arguments)
    with pytest.raises(ObjectNotFound, match=r"oss://.*/data/none"):
        list(DataLoader(made, batch_size=1, num_workers=1, collate_fn=as_it_is))


@pytest.mark.parametrize(
    "error", [InvalidOption("crop", 0, "1 or more"), ManifestMalformed("line 3", path="labels", line=3)]
)
def test_whatever_error_a_worker_meets_keeps_its_type(samples: Ground, error: OssFuseError) -> None:
    made = OssMapDataset.from_objects(samples.uri("data/0001.bin"), **samples.arguments, transform=partial(fail, error))
    with pytest.raises(type(error), match=re.escape(error.message)):
        list(DataLoader(made, batch_size=1, num_workers=1))


def fail(error: OssFuseError, sample: OssObject) -> None:
    raise error


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"reset_after": 100}, {"truncate_after": 100}, {"corrupt_body": True}, {"drop_answer": True}],
    ids=lambda fault: next(iter(fault)),
)
@pytest.mark.parametrize("named", [False, True])
def test_a_passing_fault_is_not_noticed(samples: Ground, fault: dict[str, Any], named: bool) -> None:
    if named:
        uris = [samples.uri(f"data/{number:04}.bin") for number in range(COUNT)]
        made = OssMapDataset.from_objects(uris, **samples.arguments, transform=described)
    else:
        made = dataset(samples)
    made.__getitems__(range(8))
    samples.emulator.fault(operation="GetObject", count=6, **fault)
    assert made.__getitems__(range(COUNT)) == [expected(number) for number in range(COUNT)]


def test_a_replaced_object_is_told_apart(samples: Ground) -> None:
    made = dataset(samples)
    samples.emulator.seed("data/0003.bin", b"x" * len(content(3)))
    with pytest.raises(PreconditionFailed, match="no longer the version that was listed") as told:
        made[3]
    assert "make it again" in told.value.hint


def test_skipping_leaves_out_what_cannot_be_read_and_counts_it(samples: Ground) -> None:
    uris = [samples.uri(f"data/{name}.bin") for name in ("0001", "none", "0002", "gone")]
    made = OssMapDataset.from_objects(uris, **samples.arguments, transform=described, on_error="skip")
    loader = DataLoader(made, batch_size=2, num_workers=2, collate_fn=as_it_is)
    assert [sample for batch in loader for sample in batch] == [expected(1), expected(2)]
    assert (made.statistics().samples, made.statistics().skipped) == (2, 2)


def test_a_batch_of_which_nothing_is_left_is_an_error(samples: Ground) -> None:
    made = OssMapDataset.from_objects(samples.uri("none"), **samples.arguments, on_error="skip")
    with pytest.raises(SamplesUnavailable, match="none of the 2 samples"):
        made.__getitems__([0, 0])
    skipped = made.statistics().skipped
    with pytest.raises(ObjectNotFound):
        made[0]
    assert made.statistics().skipped == skipped == 2


def test_a_failure_in_the_middle_of_a_large_object_is_skipped_too(ground: Ground) -> None:
    ground.configure(datasetConfig={"prefetchUnitMB": 1})
    ground.emulator.seed("data/large", bytes(2_000_000))
    ground.emulator.seed("data/small", b"small")
    made = dataset(ground, transform=len_of, on_error="skip")
    ground.emulator.seed("data/large", bytes(2_000_001))
    assert made.__getitems__([0, 1]) == [5]
    assert (made.statistics().samples, made.statistics().skipped) == (1, 1)
    with pytest.raises(PreconditionFailed, match="no longer the version that was listed") as told:
        made[0]
    assert "make it again" in told.value.hint


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_without_a_transform_a_large_object_that_is_not_there_any_more_is_noticed(ground: Ground, change: str) -> None:
    ground.configure(datasetConfig={"prefetchUnitMB": 1})
    ground.emulator.seed("data/large", bytes(2_000_000))
    ground.emulator.seed("data/small", b"small")
    strict, skipping = dataset(ground, transform=None), dataset(ground, transform=None, on_error="skip")
    if change == "replaced":
        ground.emulator.seed("data/large", bytes(2_000_001))
    else:
        OssDCPFileSystem(**ground.arguments).rm_file(ground.uri("data/large"))
    with pytest.raises(PreconditionFailed if change == "replaced" else ObjectNotFound):
        strict.__getitems__([0, 1])
    assert [sample.name for sample in skipping.__getitems__([0, 1])] == ["data/small"]
    assert (skipping.statistics().samples, skipping.statistics().skipped) == (1, 1)


def test_large_samples_of_a_batch_from_a_worker_share_one_way_to_their_bytes(ground: Ground) -> None:
    """Memory and threads are bounded by it."""
    ground.configure(datasetConfig={"prefetchUnitMB": 1})
    ground.emulator.seed("data/{n}", count=4, size=2_000_000)
    (batch,) = DataLoader(dataset(ground, transform=None), batch_size=4, num_workers=1, collate_fn=as_it_is)
    assert [len(sample.read(1000)) for sample in batch] == [1000] * 4
    assert len({id(sample._fetcher()) for sample in batch}) == 1


def len_of(sample: OssObject) -> int:
    return len(sample.read())


def test_a_bucket_that_does_not_exist_is_not_skipped(samples: Ground) -> None:
    with pytest.raises(BucketNotFound, match="no-such-bucket"):
        OssMapDataset.from_prefix("oss://no-such-bucket/", **samples.arguments)
    made = OssMapDataset.from_objects("oss://no-such-bucket/key", **samples.arguments, on_error="skip")
    with pytest.raises(BucketNotFound):
        made.__getitems__([0])


def test_a_listing_that_is_denied_says_what_to_grant(samples: Ground) -> None:
    samples.emulator.fault(operation="ListObjectsV2", status=403, code="AccessDenied")
    with pytest.raises(PermissionDenied, match="grant oss:ListObjects"):
        dataset(samples)


def test_an_argument_that_is_none_is_refused(samples: Ground) -> None:
    with pytest.raises(InvalidOption, match="on_error"):
        dataset(samples, on_error="ignore")
    with pytest.raises(InvalidOption, match="names no object"):
        OssMapDataset.from_objects([], **samples.arguments)


def test_the_extra_is_named_where_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csi.torch.find_spec", lambda name: None)
    import csi.torch  # noqa: PLC0415

    with pytest.raises(ExtraMissing, match=r"pip install '\.\[torch\]' in a checkout"):
        _ = csi.torch.OssMapDataset


# --- wrapped in other data sets ---


class Wrapped(Dataset):  # type: ignore[misc]
    """A data set of the user's, which says nothing of what it does with numbers."""

    def __init__(self, inner: OssMapDataset, twice: bool = False) -> None:
        self.inner = inner
        self.twice = twice

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        if self.twice and index % 2 == 0:
            self.inner[len(self) - 1 - index]
        return self.inner[index]


WRAPPERS: dict[str, Callable[[OssMapDataset, OssMapDataset], Any]] = {
    "plain": lambda one, _: one,
    "user": lambda one, _: Wrapped(one),
    "subset": lambda one, _: Subset(one, range(5, 33)),
    "split": lambda one, _: random_split(one, [30, 10], torch.Generator().manual_seed(0))[0],
    "subset of user": lambda one, _: Subset(Wrapped(one), list(range(39, 3, -1))),
    "concat": lambda one, other: ConcatDataset([one, other]),
    "concat of users": lambda one, other: ConcatDataset([Wrapped(one), Wrapped(other)]),
    "subset of concat": lambda one, other: Subset(ConcatDataset([one, other]), range(20, 70)),
    "concat of subsets": lambda one, other: ConcatDataset([Subset(one, range(0, 40, 2)), Subset(other, range(30))]),
    "stack": StackDataset,
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_each_sample_is_fetched_once_whatever_the_data_set_is_wrapped_in(
    samples: Ground, wrapper: str, shuffle: bool, workers: int
) -> None:
    wrapped = WRAPPERS[wrapper](dataset(samples), dataset(samples))
    each = 2 if wrapper == "stack" else 1
    alone = [wrapped[number] for number in range(len(wrapped))]
    again = WRAPPERS[wrapper](dataset(samples), dataset(samples))
    samples.emulator.reset_counters()
    loader = DataLoader(again, 4, shuffle=shuffle, num_workers=workers, collate_fn=as_it_is)
    given = [sample for batch in loader for sample in batch]
    assert sorted(given) == sorted(alone)
    assert shuffle or given == alone
    assert samples.emulator.count("GetObject") == each * len(alone)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_wrapper_that_asks_for_other_numbers_is_not_followed(samples: Ground, workers: int) -> None:
    wrapped = Wrapped(dataset(samples), twice=True)
    samples.emulator.reset_counters()
    loader = DataLoader(wrapped, 4, shuffle=True, num_workers=workers, collate_fn=as_it_is)
    assert sorted(sample for batch in loader for sample in batch) == [expected(number) for number in range(COUNT)]
    assert samples.emulator.count("GetObject") == COUNT + COUNT // 2


@pytest.mark.parametrize("wrapper", ["user", "split", "concat"])
def test_a_shuffled_order_is_fetched_ahead_through_a_wrapper(samples: Ground, wrapper: str) -> None:
    inner = dataset(samples)
    wrapped = WRAPPERS[wrapper](inner, dataset(samples))
    loader = DataLoader(wrapped, 4, shuffle=True, num_workers=1, prefetch_factor=6, collate_fn=watched_inside)
    assert any(begun > 4 for _, begun in loader)


def watched_inside(batch: list[Any]) -> tuple[list[Any], int]:
    found = get_worker_info().dataset
    while not isinstance(found, OssMapDataset):
        found = getattr(found, "dataset", None) or getattr(found, "inner", None) or found.datasets[0]
    here = found._here
    return batch, len(here.lookahead._slots) if here is not None else 0


def test_a_batch_of_nothing_is_nothing(samples: Ground) -> None:
    assert dataset(samples).__getitems__([]) == []
