from __future__ import annotations

from pathlib import Path

import pytest

from csi.errors import MountError, TargetNotUsable
from csi.handover.target import check_target, remove_target_directory, resolved_target


def test_a_missing_target_with_a_parent_is_usable(tmp_path):
    check_target(str(tmp_path / "new"))


def test_an_existing_directory_is_usable(tmp_path):
    check_target(str(tmp_path))


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TargetNotUsable, match="file is a file, not a directory; remove it"):
        check_target(str(tmp_path / "file"))


def test_a_symlink_is_refused_even_to_a_directory(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(TargetNotUsable, match="is a symbolic link"):
        check_target(str(tmp_path / "link"))


def test_a_missing_parent_is_named(tmp_path):
    with pytest.raises(TargetNotUsable, match=r"create .*/missing first"):
        check_target(str(tmp_path / "missing" / "target"))


@pytest.mark.parametrize("name", ["x" * 300, "file/below"])
def test_a_path_the_system_refuses_is_not_usable(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(TargetNotUsable):
        check_target(str(tmp_path / name))


def test_the_root_is_refused():
    with pytest.raises(TargetNotUsable):
        check_target(resolved_target(Path("/")))


def test_a_relative_path_is_refused():
    with pytest.raises(TargetNotUsable, match="not an absolute path"):
        resolved_target(Path("data"))


def test_parents_are_resolved_but_not_the_target_itself(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "real" / "target").symlink_to("/nowhere")
    assert resolved_target(tmp_path / "alias" / "." / "target") == str(tmp_path.resolve() / "real" / "target")


def test_a_target_is_removed_only_when_it_is_empty(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious").write_text("data")
    with pytest.raises(MountError, match="cannot be removed: Directory not empty; something was written there"):
        remove_target_directory(str(target))
    assert (target / "precious").read_text() == "data"
    (target / "precious").unlink()
    remove_target_directory(str(target))
    remove_target_directory(str(target))
    assert not target.exists()
