"""Where a sidecar's disk cache may be on a host, and how it comes to be nobody's but the sidecar's."""

import os
from pathlib import Path

import pytest

from csi.errors import InvalidOption
from csi.handover.cache_places import CachePlaces
from csi.handover.process import SIDECAR_UID
from csi.volume.naming import CACHE_FOLDER
from csi.volume.spec import CacheOptions


def prepare(path: Path | str, *allowed: Path, in_pods: bool = True) -> None:
    CachePlaces(tuple(map(str, allowed)), in_pods=in_pods).prepare(CacheOptions(str(path)))


def test_the_path_is_roots_and_the_folder_in_it_the_sidecars(tmp_path: Path) -> None:
    for _ in range(2):  # as often as the volume is published
        prepare(tmp_path / "team" / "data", tmp_path)
    for made in (tmp_path / "team", tmp_path / "team" / "data"):
        assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (0, 0o755)
    folder = tmp_path / "team" / "data" / CACHE_FOLDER
    assert (folder.stat().st_uid, folder.stat().st_gid, folder.stat().st_mode & 0o777) == (SIDECAR_UID, 65534, 0o700)


def test_the_allowed_directory_itself_may_be_the_cache_and_others_be_below_it(tmp_path: Path) -> None:
    prepare(tmp_path, tmp_path)
    prepare(tmp_path / "more", tmp_path)
    assert (tmp_path / CACHE_FOLDER).stat().st_uid == (tmp_path / "more" / CACHE_FOLDER).stat().st_uid == SIDECAR_UID


def test_the_allowed_directory_is_made_and_may_be_a_link_of_the_administrators(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    prepare(tmp_path / "link" / "a", tmp_path / "link")
    prepare(tmp_path / "fresh" / "a", tmp_path / "fresh")
    assert (tmp_path / "disk" / "a" / CACHE_FOLDER).is_dir()
    assert (tmp_path / "fresh" / "a" / CACHE_FOLDER).is_dir()


@pytest.mark.parametrize("path", ["/etc", "/allowed-not", "/"])
def test_a_path_that_is_not_allowed_is_refused_and_not_touched(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidOption, match="is not one that this cluster's administrator allows"):
        prepare(f"{tmp_path}{path}", tmp_path / "allowed")
    assert not list(tmp_path.iterdir())


def test_no_link_below_the_allowed_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "target")
    for path in ("link", "link/deeper"):
        with pytest.raises(InvalidOption, match=r"'link' in .* is a symbolic link or a file"):
            prepare(tmp_path / "allowed" / path, tmp_path / "allowed")
    (tmp_path / "allowed" / "a").mkdir()
    (tmp_path / "allowed" / "a" / CACHE_FOLDER).symlink_to(tmp_path / "target")
    with pytest.raises(InvalidOption, match="is a symbolic link or a file"):
        prepare(tmp_path / "allowed" / "a", tmp_path / "allowed")
    assert not list((tmp_path / "target").iterdir())


def test_what_belongs_to_sidecars_is_not_entered(tmp_path: Path) -> None:
    prepare(tmp_path / "a", tmp_path)
    inside = tmp_path / "a" / CACHE_FOLDER / "deeper"
    with pytest.raises(InvalidOption, match="is inside a directory of another volume's cache"):
        prepare(inside, tmp_path)
    assert not inside.exists()


def test_a_folder_of_somebody_else_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / CACHE_FOLDER).mkdir()
    os.chown(tmp_path / CACHE_FOLDER, 1234, 1234)
    with pytest.raises(InvalidOption, match="belongs to user 1234"):
        prepare(tmp_path, tmp_path)


def test_a_disk_that_refuses_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    prepare(tmp_path / "file" / "a", tmp_path / "file")
    assert [record.message for record in caplog.records] == [
        f"cache: {tmp_path}/file/a cannot be prepared, its volume goes without: File exists"
    ]


def test_an_empty_dir_needs_a_pod(tmp_path: Path) -> None:
    prepare("emptyDir")
    with pytest.raises(InvalidOption, match="served by a process of the machine"):
        prepare("emptyDir", in_pods=False)


def test_root_itself_may_name_any_directory(tmp_path: Path) -> None:
    CachePlaces(None, in_pods=False).prepare(CacheOptions(str(tmp_path / "a" / "b")))
    assert (tmp_path / "a" / "b" / CACHE_FOLDER).stat().st_uid == SIDECAR_UID


def test_without_a_cache_nothing_is_made() -> None:
    prepare("none")
