"""OssIterableDataset against the emulator."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from csi.errors import BucketNotFound, ManifestMalformed, ObjectNotFound, StateMismatch, WorkerKilled
from csi.torch import OssIterableDataset, imagenet_manifest_parser, watched
from csi.torch.samples import OssObject
from tests.torch.conftest import Ground

COUNT = 50
ALL = list(range(COUNT))


def number_of(sample: OssObject) -> int:
    return int(sample.read())


def as_it_is(batch: list[Any]) -> list[Any]:
    return batch


@pytest.fixture
def samples(ground: Ground) -> Ground:
    for number in ALL:
        ground.emulator.seed(f"data/{number:04}", str(number))
    return ground


def dataset(ground: Ground, **options: Any) -> OssIterableDataset:
    options = {"transform": number_of} | options
    return OssIterableDataset.from_prefix(ground.uri("data/"), **ground.arguments, **options)


def loaded(made: OssIterableDataset, workers: int, **options: Any) -> list[int]:
    return [
        number for batch in DataLoader(made, 4, num_workers=workers, collate_fn=as_it_is, **options) for number in batch
    ]


def test_samples_come_in_the_order_of_their_keys_twice(samples: Ground) -> None:
    made = dataset(samples)
    assert [list(made), list(made)] == [ALL, ALL]


@pytest.mark.parametrize(("start", "workers"), [("fork", 4), ("forkserver", 2), ("spawn", 1)])
def test_workers_give_every_sample_once_and_list_nothing(samples: Ground, start: str, workers: int) -> None:
    made = dataset(samples, shuffle=True, shuffle_chunk_size=5)
    samples.emulator.reset_counters()
    found = loaded(made, workers, multiprocessing_context=start)
    assert sorted(found) == ALL
    assert samples.emulator.count("ListObjectsV2") == 0
    assert samples.emulator.count("GetObject") == COUNT
    assert made.statistics().samples == COUNT


def test_the_first_sample_costs_its_own_request(samples: Ground) -> None:
    """Nothing comes before it, and it waits for nothing behind it."""
    samples.configure(datasetConfig={"prefetchConcurrency": 1, "prefetchWorker": 1})
    made = dataset(samples)
    samples.emulator.reset_counters()
    samples.emulator.fault(operation="GetObject", key="data/0002", blackhole=True)
    assert next(iter(made)) == 0
    first = samples.emulator.requests("GetObject")[0]
    assert first["key"] == "data/0000"
    assert len(samples.emulator.requests("GetObject", "data/0000")) == 1
    assert set(samples.emulator.counters()["operations"]) == {"GetObject"}


@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_with_workers_share_every_sample_exactly_once(samples: Ground, shuffle: bool) -> None:
    shares = [loaded(dataset(samples, rank=rank, world_size=3, shuffle=shuffle), 2) for rank in range(3)]
    assert sorted(number for share in shares for number in share) == ALL
    assert max(map(len, shares)) - min(map(len, shares)) <= 2


def test_shuffling_follows_from_seed_and_epoch(samples: Ground) -> None:
    made = dataset(samples, shuffle=True, shuffle_chunk_size=8, seed=3)
    first, again = list(made), list(dataset(samples, shuffle=True, shuffle_chunk_size=8, seed=3))
    made.set_epoch(1)
    second = list(made)
    other = list(dataset(samples, shuffle=True, shuffle_chunk_size=8, seed=4))
    assert first == again
    assert sorted(first) == sorted(second) == sorted(other) == ALL
    assert len({tuple(order) for order in (ALL, first, second, other)}) == 4


def test_workers_that_stay_notice_the_epoch(samples: Ground) -> None:
    made = dataset(samples, shuffle=True, shuffle_chunk_size=8)
    loader = DataLoader(made, 4, num_workers=2, collate_fn=as_it_is, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        made.set_epoch(epoch)
        orders.append([number for batch in loader for number in batch])
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    assert sorted(orders[1]) == ALL


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [3, 11])
def test_a_loader_goes_on_with_the_very_next_sample(samples: Ground, workers: int, taken: int) -> None:
    def loader() -> Any:
        made = dataset(samples, shuffle=True, shuffle_chunk_size=10, seed=1)
        return StatefulDataLoader(made, 4, num_workers=workers, collate_fn=as_it_is)

    whole = list(loader())
    begun = loader()
    batches = iter(begun)
    before = [next(batches) for _ in range(taken)]
    state = begun.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    assert before + list(resumed) == whole
    assert list(resumed) == whole


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [4, 10])
@pytest.mark.parametrize("ended", [False, True])
def test_a_state_of_the_end_of_an_epoch_costs_no_later_epoch(
    samples: Ground, workers: int, size: int, ended: bool
) -> None:
    """Whether it is taken with the last batch, whole or not, or after it: nothing is left of the epoch, and then whole
    ones follow, each in the order that was set for it."""

    def loader() -> Any:
        made = dataset(samples, shuffle=True, shuffle_chunk_size=10, seed=1)
        return StatefulDataLoader(made, size, num_workers=workers, collate_fn=as_it_is)

    def epoch(of: Any, number: int) -> list[Any]:
        of.dataset.set_epoch(number)
        return list(of)

    whole = loader()
    orders = [epoch(whole, number) for number in range(4)]
    begun = loader()
    batches = iter(begun)
    assert [next(batches) for _ in orders[0]] == orders[0]
    assert not ended or list(batches) == []
    resumed = loader()
    resumed.load_state_dict(begun.state_dict())
    if not ended:
        assert epoch(resumed, 0) == []
    assert [epoch(resumed, number) for number in (1, 2, 3)] == orders[1:]


def test_a_state_between_iterator_and_first_sample_is_that_of_the_iterator(samples: Ground) -> None:
    made = dataset(samples)
    assert list(made) == ALL
    over = made.state_dict()
    again = iter(made)
    assert made.state_dict()["position"] == 0
    assert next(again) == 0
    made.load_state_dict(over | {"position": 7})
    going_on = iter(made)
    assert made.state_dict()["position"] == 7
    assert next(going_on) == 7


def test_a_state_of_another_share_is_refused(samples: Ground) -> None:
    state = dataset(samples, rank=0, world_size=2).state_dict()
    with pytest.raises(StateMismatch, match="consumers 2, this data set has 4"):
        dataset(samples, rank=0, world_size=4).load_state_dict(state)
    with pytest.raises(StateMismatch, match="samples"):
        dataset(samples).load_state_dict({})


def test_a_manifest_is_shared_out_as_a_stream(samples: Ground, tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    path.write_text("".join(f"{number:04}\tlabel-{number}\n" for number in ALL))
    made = OssIterableDataset.from_manifest_file(
        str(path), imagenet_manifest_parser, samples.uri("data/"), **samples.arguments, transform=labelled, shuffle=True
    )
    found = [pair for batch in DataLoader(made, 4, num_workers=3, collate_fn=as_it_is) for pair in batch]
    assert sorted(found) == [(number, f"label-{number}") for number in ALL]


def labelled(sample: OssObject) -> tuple[int, Any]:
    return int(sample.read()), sample.label


def test_the_guides_manifest_with_addresses_that_name_an_endpoint(samples: Ground, tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    host = samples.emulator.endpoint.removeprefix("http://")
    lines = [f"oss://{samples.emulator.bucket}.{host}/data/{number:04}" for number in (3, 1)]
    path.write_text("".join(json.dumps({"data": {"source": line}}) + "\n" for line in lines))

    def parser(reader: Any) -> Any:
        for line in reader.read().decode("utf-8").strip().split("\n"):
            yield json.loads(line)["data"]["source"], ""

    made = OssIterableDataset.from_manifest_file(str(path), parser, "", **samples.arguments, transform=number_of)
    assert list(made) == [3, 1]


def test_a_parser_that_fails_is_told_with_the_line_it_had_come_to(samples: Ground, tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    path.write_text('{"source": "0001"}\n{"sour')

    def parser(reader: Any) -> Any:
        for line in reader:
            yield json.loads(line)["source"], ""

    made = OssIterableDataset.from_manifest_file(str(path), parser, samples.uri("data/"), **samples.arguments)
    with pytest.raises(ManifestMalformed, match=r"manifest, line 2: the parser raised JSONDecodeError"):
        list(made)


def test_a_missing_object_is_not_skipped_unless_that_is_asked_for(samples: Ground) -> None:
    uris = [samples.uri(f"data/{name}") for name in ("0001", "none", "0002")]
    with pytest.raises(ObjectNotFound, match="data/none"):
        list(OssIterableDataset.from_objects(uris, **samples.arguments, transform=number_of))
    made = OssIterableDataset.from_objects(uris, **samples.arguments, transform=number_of, on_error="skip")
    assert list(made) == [1, 2]
    assert (made.statistics().samples, made.statistics().skipped) == (2, 1)


def test_a_bucket_that_does_not_exist_ends_the_iteration(samples: Ground) -> None:
    made = OssIterableDataset.from_objects("oss://no-such-bucket/key", **samples.arguments, on_error="skip")
    with pytest.raises(BucketNotFound, match="no-such-bucket"):
        list(made)


def dying(sample: OssObject) -> int:
    number = number_of(sample)
    if number == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_worker_that_is_killed_is_told_and_leaves_nothing_in_the_way(samples: Ground) -> None:
    made = dataset(samples, transform=dying)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        loaded(made, 2)
    assert sorted(loaded(dataset(samples), 2)) == ALL


@pytest.mark.parametrize("of", [DataLoader, StatefulDataLoader])
def test_a_watched_loader_says_which_sample_a_killed_worker_had_and_what_to_do(samples: Ground, of: Any) -> None:
    loader = of(dataset(samples, transform=dying), 4, num_workers=2, collate_fn=as_it_is)
    with pytest.raises(WorkerKilled) as raised:
        list(watched(loader))
    assert raised.value.sample == f"{samples.uri('data/')}0017"
    assert raised.value.process > 0
    assert f"worker {raised.value.process}" in str(raised.value)
    assert "data/0017" in str(raised.value)
    assert "OOMKilled" in raised.value.hint


def failing(sample: OssObject) -> int:
    raise RuntimeError(f"nothing can be made of {sample.name}")


def test_a_watched_loader_gives_what_the_loader_gives_and_raises_what_a_transform_raises(samples: Ground) -> None:
    loader = DataLoader(dataset(samples), 4, num_workers=2, collate_fn=as_it_is)
    assert sorted(number for batch in watched(loader) for number in batch) == ALL
    broken = DataLoader(dataset(samples, transform=failing), 4, num_workers=2)
    with pytest.raises(RuntimeError, match="nothing can be made of") as raised:
        list(watched(broken))
    assert not isinstance(raised.value, WorkerKilled)


def test_samples_are_fetched_ahead_within_the_memory_that_is_allowed(ground: Ground) -> None:
    ground.configure(datasetConfig={"prefetchMB": 2, "prefetchUnitMB": 1, "prefetchConcurrency": 8})
    for number in range(12):
        ground.emulator.seed(f"data/{number:04}", str(number).encode().rjust(400_000))
    iterator = iter(dataset(ground))
    ground.emulator.reset_counters()
    assert next(iterator) == 0
    assert ground.emulator.count("GetObject") <= 3
    assert list(iterator) == list(range(1, 12))
