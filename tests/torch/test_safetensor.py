"""Safetensors in a bucket: what the library writes is read, what is written the library reads, and by few bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from csi.errors import BadHandle, CheckpointMalformed, InvalidOperation, ObjectNotFound, PreconditionFailed
from csi.torch import OssCheckpoint, OssSafetensor
from csi.volume.units import KIB, MIB
from tests.torch.conftest import Ground

KEY = "model.safetensors"


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "large": torch.randn(1500, 1000, generator=generator),
        "half": torch.randn(300, 70, generator=generator).to(torch.bfloat16),
        "flags": torch.tensor([True, False, True]),
        "whole": torch.arange(24).reshape(2, 3, 4),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "eight": torch.randn(16, generator=generator).to(torch.float8_e4m3fn),
    }


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and torch.equal(one[name].view(torch.uint8), other[name].view(torch.uint8))
        if one[name].dim()
        else one[name] == other[name]
        for name in one
    )


def put(ground: Ground, data: bytes) -> None:
    with OssCheckpoint(**ground.arguments).writer(ground.uri(KEY)) as writer:
        writer.write(data)


@pytest.fixture
def files(ground: Ground) -> OssSafetensor:
    return OssSafetensor(**ground.arguments)


@pytest.fixture
def stored(ground: Ground) -> dict[str, torch.Tensor]:
    """In the bucket, as the library writes them."""
    made = tensors()
    put(ground, safetensors.torch.save(made, {"format": "pt"}))
    ground.emulator.reset_counters()
    return made


def test_what_the_library_wrote_is_loaded(
    ground: Ground, files: OssSafetensor, stored: dict[str, torch.Tensor]
) -> None:
    assert are_equal(files.load_file(ground.uri(KEY)), stored)


def test_the_library_reads_what_was_saved(ground: Ground, files: OssSafetensor) -> None:
    made = tensors()
    files.save_file(made, ground.uri(KEY), {"step": "3"})
    with OssCheckpoint(**ground.arguments).reader(ground.uri(KEY)) as reader:
        assert are_equal(safetensors.torch.load(reader.read()), made)
    with files.safe_open(ground.uri(KEY)) as opened:
        assert opened.metadata() == {"step": "3"}


def test_what_is_conjugated_or_negated_lazily_is_saved_as_it_looks(ground: Ground, files: OssSafetensor) -> None:
    made = torch.arange(6, dtype=torch.float32).reshape(2, 3) * (1 + 2j)
    files.save_file({"conjugated": made.conj(), "negated": torch._neg_view(torch.ones(3))}, ground.uri(KEY))
    found = files.load_file(ground.uri(KEY))
    assert are_equal(found, {"conjugated": made.conj().resolve_conj(), "negated": -torch.ones(3)})


def test_only_the_bytes_of_a_tensor_are_fetched(
    ground: Ground, files: OssSafetensor, stored: dict[str, torch.Tensor]
) -> None:
    with files.safe_open(ground.uri(KEY)) as opened:
        assert sorted(opened.keys()) == sorted(stored)
        assert ground.emulator.counters()["operations"]["GetObject"]["bytes_out"] == 128 * KIB
        ground.emulator.reset_counters()
        large = opened.get_tensor("large")
    assert torch.equal(large, stored["large"])
    assert ground.emulator.counters()["operations"]["GetObject"]["bytes_out"] <= large.nbytes


@pytest.mark.parametrize(
    "index",
    [slice(100, 130), (slice(None), slice(10, 20)), (3, slice(None)), (slice(0, 90, 7), -1), ..., (slice(5, 5),)],
    ids=str,
)
def test_a_slice_is_what_torch_would_select(
    ground: Ground, files: OssSafetensor, stored: dict[str, torch.Tensor], index: object
) -> None:
    with files.safe_open(ground.uri(KEY)) as opened:
        part = opened.get_slice("large")
        assert part.get_shape() == [1500, 1000]
        assert part.get_dtype() == "F32"
        found = part[index]
    expected = stored["large"][index]  # type: ignore[index]
    assert found.shape == expected.shape
    assert torch.equal(found, expected)


def test_rows_of_a_tensor_are_one_request_of_their_bytes(
    ground: Ground, files: OssSafetensor, stored: dict[str, torch.Tensor]
) -> None:
    with files.safe_open(ground.uri(KEY)) as opened:
        part = opened.get_slice("large")
        ground.emulator.reset_counters()
        part[1000:1100]
    counted = ground.emulator.counters()["operations"]["GetObject"]
    assert (counted["requests"], counted["bytes_out"]) == (1, 100 * 1000 * 4)


def test_large_tensors_are_fetched_by_several_requests(ground: Ground, files: OssSafetensor) -> None:
    made = {"a": torch.arange(8 * MIB, dtype=torch.int32)}
    files.save_file(made, ground.uri(KEY))
    ground.emulator.reset_counters()
    assert torch.equal(files.load_file(ground.uri(KEY))["a"], made["a"])
    assert ground.emulator.count("GetObject") > 3


def test_a_device_is_where_tensors_go(ground: Ground, files: OssSafetensor, stored: dict[str, torch.Tensor]) -> None:
    with files.safe_open(ground.uri(KEY), device="meta") as opened:
        assert opened.get_tensor("whole").is_meta
        assert opened.get_slice("whole")[0].is_meta


def test_what_cannot_be_saved_is_refused_and_nothing_appears(ground: Ground, files: OssSafetensor) -> None:
    for bad, words in ((torch.ones(4, 4).t()[:2], "contiguous"), (torch.eye(3).to_sparse(), "sparse")):
        with pytest.raises(InvalidOperation, match=words):
            files.save_file({"good": torch.ones(2), "bad": bad}, ground.uri(KEY))
    with pytest.raises(InvalidOperation, match="complex128"):
        files.save_file({"bad": torch.ones(2, dtype=torch.complex128)}, ground.uri(KEY))
    with pytest.raises(ObjectNotFound):
        files.safe_open(ground.uri(KEY))


def test_a_name_that_is_not_there_is_a_key_error(
    ground: Ground, files: OssSafetensor, stored: dict[str, torch.Tensor]
) -> None:
    with files.safe_open(ground.uri(KEY)) as opened:
        for get in (opened.get_tensor, opened.get_slice):
            with pytest.raises(KeyError):
                get("missing")


def test_what_is_no_safetensors_file_is_told(ground: Ground, files: OssSafetensor) -> None:
    ground.emulator.seed(KEY, b"PK\x03\x04 a zip")
    with pytest.raises(CheckpointMalformed, match=r"model\.safetensors is no safetensors file"):
        files.safe_open(ground.uri(KEY))


def test_a_shape_that_does_not_fit_its_bytes_is_told(ground: Ground, files: OssSafetensor) -> None:
    data = safetensors.torch.save({"a": torch.zeros(4)}).replace(b'"shape":[4]', b'"shape":[5]')
    ground.emulator.seed(KEY, data)
    with files.safe_open(ground.uri(KEY)) as opened, pytest.raises(CheckpointMalformed, match="'a' of shape"):
        opened.get_tensor("a")


def test_a_file_replaced_while_it_is_open_is_told(
    ground: Ground, files: OssSafetensor, stored: dict[str, torch.Tensor]
) -> None:
    with files.safe_open(ground.uri(KEY)) as opened:
        put(ground, safetensors.torch.save({"a": torch.ones(1000)}))
        with pytest.raises(PreconditionFailed):
            opened.get_tensor("large")


def test_a_closed_file_is_told(ground: Ground, files: OssSafetensor, stored: dict[str, torch.Tensor]) -> None:
    with files.safe_open(ground.uri(KEY)) as opened:
        pass
    with pytest.raises(BadHandle, match="closed"):
        opened.get_tensor("large")


def test_it_reads_a_file_of_the_disk_of_the_library(ground: Ground, files: OssSafetensor, tmp_path: Path) -> None:
    made = {f"layer.{i}": torch.full((300,), float(i)) for i in range(300)}
    safetensors.torch.save_file(made, tmp_path / "m")
    put(ground, (tmp_path / "m").read_bytes())
    ground.emulator.reset_counters()
    assert are_equal(files.load_file(ground.uri(KEY)), made)
    assert ground.emulator.count("GetObject") <= 3
