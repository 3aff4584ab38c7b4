"""torch.distributed.checkpoint in a bucket: several ranks save, others load, and what goes wrong is told."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter, _StoragePrefix

from csi.errors import CheckpointIncomplete, CrossVolume, InvalidOption, ServerFailure
from csi.torch import OssDCPFileSystem
from tests.torch.conftest import Ground

ROWS, COLUMNS = 24, 50_000


@pytest.fixture(autouse=True)
def _quietly() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says much: no process group, an existing checkpoint
        yield


@pytest.fixture
def files(ground: Ground) -> OssDCPFileSystem:
    return OssDCPFileSystem(**ground.arguments)


def names(ground: Ground, files: OssDCPFileSystem, directory: str = "step-1") -> list[str]:
    return sorted(path.rpartition("/")[2] for path in files.ls(ground.uri(directory)))


def save(ground: Ground, files: OssDCPFileSystem, value: float, **options: Any) -> None:
    state = {"weight": torch.full((1000,), value), "step": int(value)}
    dcp.save(state, storage_writer=files.writer(ground.uri("step-1"), **options))


def load(ground: Ground, files: OssDCPFileSystem) -> dict[str, Any]:
    state: dict[str, Any] = {"weight": torch.zeros(1000), "step": 0}
    dcp.load(state, storage_reader=files.reader(ground.uri("step-1")))
    return state


def test_what_was_saved_is_loaded(ground: Ground, files: OssDCPFileSystem) -> None:
    save(ground, files, 3.0)
    assert names(ground, files) == [".metadata", "__0_0.distcp"]
    found = load(ground, files)
    assert found["step"] == 3
    assert torch.equal(found["weight"], torch.full((1000,), 3.0))


@pytest.mark.parametrize(
    "options", [{"thread_count": 3}, {"single_file_per_rank": False}], ids=["threads", "many files"]
)
def test_the_options_of_torch_are_taken(ground: Ground, files: OssDCPFileSystem, options: dict[str, Any]) -> None:
    save(ground, files, 3.0, **options)
    assert load(ground, files)["step"] == 3


def test_a_checkpoint_is_replaced_and_its_files_go(ground: Ground, files: OssDCPFileSystem) -> None:
    save(ground, files, 1.0)
    save(ground, files, 2.0)
    assert load(ground, files)["step"] == 2
    left = names(ground, files)
    assert len(left) == 2
    assert "__0_0.distcp" not in left
    save(ground, files, 3.0)
    assert load(ground, files)["step"] == 3
    assert len(names(ground, files)) == 2


def test_the_metadata_is_written_in_one_step(ground: Ground, files: OssDCPFileSystem) -> None:
    save(ground, files, 1.0)
    ground.emulator.reset_counters()
    save(ground, files, 2.0)
    key = "step-1/.metadata"
    assert [each["operation"] for each in ground.emulator.requests(key=key)].count("PutObject") == 1
    assert ground.emulator.requests("DeleteObject", key) == []
    assert ground.emulator.requests(key=f"{key}.tmp") == []


def named_whatever_their_names(_: FileSystemWriter, plans: list[Any]) -> list[Any]:
    """As torch did it before 2.9."""
    return [replace(plan, storage_data=_StoragePrefix(f"__{rank}_")) for rank, plan in enumerate(plans)]


@pytest.mark.parametrize("naming", [FileSystemWriter.prepare_global_plan, named_whatever_their_names])
def test_a_save_that_fails_over_an_old_checkpoint_leaves_it_loadable(
    ground: Ground, files: OssDCPFileSystem, naming: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileSystemWriter, "prepare_global_plan", naming)
    save(ground, files, 1.0)
    ground.emulator.fault(operation="PutObject", key="*.metadata", status=403, code="AccessDenied")
    with pytest.raises(CheckpointException, match="PermissionDenied: PutObject"):
        save(ground, files, 2.0)
    ground.emulator.clear_faults()
    found = load(ground, files)
    assert found["step"] == 1
    assert torch.equal(found["weight"], torch.full((1000,), 1.0))


def test_metadata_damaged_on_its_way_leaves_the_old_checkpoint_loadable(
    ground: Ground, files: OssDCPFileSystem
) -> None:
    save(ground, files, 1.0)
    ground.emulator.fault(operation="PutObject", key="*.metadata", corrupt_upload=True)
    with pytest.raises(CheckpointException):
        save(ground, files, 2.0)
    ground.emulator.clear_faults()
    assert load(ground, files)["step"] == 1


def test_old_files_that_may_not_be_removed_do_not_fail_a_save(ground: Ground, files: OssDCPFileSystem) -> None:
    save(ground, files, 1.0)
    ground.emulator.fault(operation="DeleteObject", status=403, code="AccessDenied")
    save(ground, files, 2.0)
    assert load(ground, files)["step"] == 2
    assert len(names(ground, files)) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_that_a_thread_could_not_write_fails_the_save(ground: Ground, files: OssDCPFileSystem) -> None:
    """torch forgets what its threads raise, and would make a checkpoint with a file missing."""
    ground.emulator.fault(operation="PutObject", key="*_1.distcp", status=403, code="AccessDenied")
    with pytest.raises(CheckpointException, match="PermissionDenied: PutObject"):
        save(ground, files, 1.0, thread_count=3)
    ground.emulator.clear_faults()
    with pytest.raises(CheckpointException, match="holds no checkpoint"):
        load(ground, files)


def test_a_directory_without_metadata_is_no_checkpoint(ground: Ground, files: OssDCPFileSystem) -> None:
    ground.emulator.seed("step-1/__0_0.distcp", b"something")
    with pytest.raises(CheckpointIncomplete, match="step-1 holds no checkpoint"):
        files.reader(ground.uri("step-1")).read_metadata()


def test_a_save_in_the_background_is_a_save(ground: Ground, files: OssDCPFileSystem) -> None:
    state = {"weight": torch.full((1000,), 4.0), "step": 4}
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        dcp.async_save(state, storage_writer=files.writer(ground.uri("step-1"))).result()
    finally:
        torch.distributed.destroy_process_group()
    assert load(ground, files)["step"] == 4


# --- the file system ---


def test_it_does_what_torch_asks_of_a_file_system(ground: Ground, files: OssDCPFileSystem) -> None:
    path = files.concat_path(ground.uri("d/"), "a")
    assert path == ground.uri("d/a")
    assert not files.exists(path)
    with files.create_stream(path, "wb") as stream:
        stream.write(b"abc")
    assert files.exists(path)
    files.rename(path, ground.uri("d/b"))
    assert not files.exists(path)
    with files.create_stream(ground.uri("d/b"), "rb") as stream:
        assert stream.read() == b"abc"
    assert files.ls(ground.uri("d")) == [ground.uri("d/b")]
    files.rm_file(ground.uri("d/b"))
    assert files.ls(ground.uri("d")) == []


def test_a_path_that_lost_a_slash_in_pathlib_is_understood(ground: Ground, files: OssDCPFileSystem) -> None:
    assert files.init_path(Path(ground.uri("d"))) == ground.uri("d")
    assert files.validate_checkpoint_id(Path(ground.uri("d")))
    assert not files.validate_checkpoint_id("relative/path")


def test_what_it_does_not_do_is_refused(ground: Ground, files: OssDCPFileSystem) -> None:
    with pytest.raises(InvalidOption, match="'rb' or 'wb'"), files.create_stream(ground.uri("a"), "r+"):
        pass
    with pytest.raises(CrossVolume):
        files.rename(ground.uri("a"), "oss://another-bucket/a")


def test_an_error_is_not_taken_for_absence(ground: Ground) -> None:
    ground.configure(checkpointConfig={"timeoutMs": 200})
    files = OssDCPFileSystem(**ground.arguments)
    ground.emulator.fault(operation="HeadObject", status=501, code="NotImplemented")
    with pytest.raises(ServerFailure):
        files.exists(ground.uri("a"))


def test_it_pickles(ground: Ground, files: OssDCPFileSystem) -> None:
    save(ground, pickle.loads(pickle.dumps(files)), 5.0)
    writer = pickle.loads(pickle.dumps(files.writer(ground.uri("step-1"))))
    assert writer.path == ground.uri("step-1")
    assert load(ground, files)["step"] == 5


# --- several ranks ---


def _whole() -> torch.Tensor:
    return torch.arange(ROWS * COLUMNS, dtype=torch.float32).reshape(ROWS, COLUMNS)


def _sharded(rank: int, size: int, full: torch.Tensor) -> torch.Tensor:
    """This rank's rows, as a DTensor."""
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh  # noqa: PLC0415 - not in the parent

    mesh = init_device_mesh("cpu", (size,))
    made: torch.Tensor = distribute_tensor(full, mesh, [Shard(0)])
    assert made.to_local().shape[0] == ROWS // size, rank
    return made


def _begin(rank: int, size: int, rendezvous: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)


def _save_rank(rank: int, size: int, rendezvous: str, arguments: dict[str, str], uri: str) -> None:
    _begin(rank, size, rendezvous)
    state = {"weight": _sharded(rank, size, _whole()), "step": 7}
    dcp.save(state, storage_writer=OssDCPFileSystem(**arguments).writer(uri))
    torch.distributed.destroy_process_group()


def _load_rank(rank: int, size: int, rendezvous: str, arguments: dict[str, str], uri: str) -> None:
    _begin(rank, size, rendezvous)
    state = {"weight": _sharded(rank, size, torch.zeros(ROWS, COLUMNS)), "step": 0}
    dcp.load(state, storage_reader=OssDCPFileSystem(**arguments).reader(uri))
    share = ROWS // size
    expected = _whole()[rank * share : (rank + 1) * share]
    assert torch.equal(state["weight"].to_local(), expected)  # type: ignore[attr-defined]
    assert state["step"] == 7
    torch.distributed.destroy_process_group()


def test_three_ranks_save_what_two_ranks_load(ground: Ground, tmp_path: Path) -> None:
    uri = ground.uri("sharded")
    for work, size in ((_save_rank, 3), (_load_rank, 2)):
        rendezvous = str(tmp_path / f"rendezvous-{size}")
        arguments = (size, rendezvous, ground.arguments, uri)
        torch.multiprocessing.start_processes(work, arguments, nprocs=size, start_method="fork")
    written = sorted(path.rpartition("/")[2] for path in OssDCPFileSystem(**ground.arguments).ls(uri))
    assert written == [".metadata", "__0_0.distcp", "__1_0.distcp", "__2_0.distcp"]
