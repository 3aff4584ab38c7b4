"""Tar archives as data sets, against the emulator."""

from __future__ import annotations

import errno
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from csi.errors import InvalidOption, ManifestMalformed
from csi.torch import OssIterableDataset, OssMapDataset, generate_tar_archive
from csi.torch.fetching import Fetcher
from csi.torch.samples import OssObject
from tests.torch.conftest import Ground

COUNT = 12


def content(number: int) -> bytes:
    return f"member {number}\n".encode() * (number * 100)


def described(sample: OssObject) -> tuple[str, Any, int, bytes]:
    assert sample.key.endswith(f"/{sample.name}")
    return sample.name, sample.label, sample.size, sample.read()


def expected(number: int) -> tuple[str, Any, int, bytes]:
    return f"class{number % 3}/{number:04}.txt", str(number), len(content(number)), content(number)


def as_it_is(batch: list[Any]) -> list[Any]:
    return batch


def generate(ground: Ground, tar_path: str, index_path: str, source_path: str, index_only: bool = False) -> int:
    given = ground.arguments
    return generate_tar_archive(
        given["endpoint"],
        given["cred_path"],
        given["config_path"],
        tar_path,
        index_path,
        source_path,
        index_only=index_only,
    )


def members(ground: Ground, kind: Any = OssIterableDataset, **options: Any) -> Any:
    """Those of the archive `a.tar`, as a data set."""
    return kind.from_tar(ground.uri("a.tar"), ground.uri("a.idx"), **ground.arguments, **options)


@pytest.fixture
def archived(ground: Ground) -> Ground:
    for number in range(COUNT):
        ground.emulator.seed(f"files/class{number % 3}/{number:04}.txt", content(number))
    generate(ground, ground.uri("a.tar"), ground.uri("a.idx"), ground.uri("files/"))
    return ground


def in_order() -> list[tuple[str, Any, int, bytes]]:
    names = sorted(range(COUNT), key=lambda number: (number % 3, number))
    return [(expected(number)[0], str(place), *expected(number)[2:]) for place, number in enumerate(names)]


@pytest.mark.parametrize("kind", [OssMapDataset, OssIterableDataset])
def test_members_are_samples(archived: Ground, kind: Any) -> None:
    made = members(archived, kind, transform=described)
    loader = DataLoader(made, batch_size=5, num_workers=2 if kind is OssMapDataset else 0, collate_fn=as_it_is)
    assert [sample for batch in loader for sample in batch] == in_order()


def test_members_that_lie_together_come_by_one_request(archived: Ground) -> None:
    made = members(archived)
    archived.emulator.reset_counters()
    assert [sample.read() for sample in made] == [sample[3] for sample in in_order()]
    assert archived.emulator.counters()["requests"] == 1


def test_what_reads_the_index_is_closed_at_once(archived: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = Fetcher.close

    def watched(fetcher: Fetcher) -> None:
        closed.append(fetcher)
        close(fetcher)

    monkeypatch.setattr(Fetcher, "close", watched)
    members(archived)
    assert len(closed) == 1


def test_workers_and_ranks_share_the_members(archived: Ground) -> None:
    found = []
    for rank in range(2):
        made = members(archived, transform=described, rank=rank, world_size=2)
        mine = [sample for batch in DataLoader(made, 4, num_workers=2, collate_fn=as_it_is) for sample in batch]
        assert len(mine) == COUNT // 2
        found += mine
    assert sorted(found) == sorted(in_order())


def test_shuffling_members_gives_each_once(archived: Ground) -> None:
    found = list(members(archived, transform=described, shuffle=True, shuffle_chunk_size=4))
    assert found != in_order()
    assert sorted(found) == sorted(in_order())


def test_a_large_member_is_read_by_ranges(ground: Ground, tmp_path: Path) -> None:
    ground.configure(datasetConfig={"prefetchUnitMB": 1})
    body = bytes(range(256)) * (9 * 1024)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "large").write_bytes(body)
    (tmp_path / "source" / "small").write_bytes(b"small")
    assert generate(ground, ground.uri("a.tar"), ground.uri("a.idx"), str(tmp_path / "source")) == 2
    made = members(ground, OssMapDataset)
    large, small = made[0], made[1]
    large.seek(1_000_001)
    assert large.read(5) == body[1_000_001:1_000_006]
    large.seek(0)
    assert (large.size, large.read()) == (len(body), body)
    assert small.read() == b"small"


def test_an_archive_of_somebody_else_gets_an_index(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in ("one", "two" * 50):
        (tmp_path / "files" / name).write_text(name)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "files", "files")
    ground.emulator.seed("a.tar", (tmp_path / "a.tar").read_bytes())
    assert generate(ground, ground.uri("a.tar"), ground.uri("a.idx"), "", index_only=True) == 2
    made = members(ground, OssMapDataset, transform=described)
    assert {sample[0]: sample[3].decode() for sample in made} == {"files/one": "one", "files/" + "two" * 50: "two" * 50}


def test_a_local_archive_is_as_tar_reads_it(archived: Ground, tmp_path: Path) -> None:
    generate(archived, str(tmp_path / "a.tar"), str(tmp_path / "a.idx"), archived.uri("files"))
    with tarfile.open(tmp_path / "a.tar") as opened:
        assert opened.getnames() == [sample[0] for sample in in_order()]
    assert sorted(path.name for path in tmp_path.glob("a.*")) == ["a.idx", "a.tar"]


def test_an_empty_source_leaves_nothing(ground: Ground, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="source_path"):
        generate(ground, str(tmp_path / "a.tar"), str(tmp_path / "a.idx"), str(tmp_path / "none"))
    assert not list(tmp_path.glob("*.tar*"))


def test_a_directory_that_cannot_be_listed_leaves_no_archive_without_it(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source" / "secret").mkdir(parents=True)
    (tmp_path / "source" / "a").write_bytes(b"a")
    listed = os.scandir

    def refuse(path: Any) -> Any:  # permissions do not bind the tests' user
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="secret"):
        generate(ground, ground.uri("a.tar"), ground.uri("a.idx"), str(tmp_path / "source"))
    assert ground.emulator.requests("PutObject") == ground.emulator.requests("CompleteMultipartUpload") == []


def test_an_index_of_another_archive_is_told_when_a_member_is_read(archived: Ground) -> None:
    archived.emulator.seed("other.tar", b"no archive at all " * 10_000)
    made = OssMapDataset.from_tar(archived.uri("other.tar"), archived.uri("a.idx"), **archived.arguments)
    with pytest.raises(ManifestMalformed, match="make it again"):
        made[3]
