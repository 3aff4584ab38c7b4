from __future__ import annotations

import os
import stat

import pytest

from csi.errors import CredentialsMissing, MountError
from csi.handover.credentials_files import CredentialFiles

KEY = {"akId": "LTAI-one", "akSecret": "first"}


@pytest.fixture
def files(tmp_path):
    return CredentialFiles(tmp_path / "credentials", os.getuid(), os.getgid())


def content(tmp_path):
    directory = tmp_path / "credentials"
    return {name: (directory / name).read_text() for name in os.listdir(directory) if not name.startswith("..")}


def test_each_key_is_a_file_only_its_owner_can_read(files, tmp_path):
    assert files.write(KEY)
    assert content(tmp_path) == KEY
    directory = tmp_path / "credentials"
    modes = {name: stat.S_IMODE(os.stat(directory / name).st_mode) for name in ("akId", "akSecret", "..data", ".")}
    assert modes == {"akId": 0o400, "akSecret": 0o400, "..data": 0o500, ".": 0o500}


def test_new_credentials_replace_the_old_ones_whole(files, tmp_path):
    files.write(KEY)
    files.write({"AccessKeyId": "STS.x", "AccessKeySecret": "second", "SecurityToken": "token"})
    assert content(tmp_path) == {"AccessKeyId": "STS.x", "AccessKeySecret": "second", "SecurityToken": "token"}
    generations = [name for name in os.listdir(tmp_path / "credentials") if name.startswith("..")]
    assert len(generations) == 2  # ..data and the one it points to


def test_an_open_generation_stays_readable_while_it_is_replaced(files, tmp_path):
    files.write(KEY)
    with open(tmp_path / "credentials" / "akSecret") as file:
        files.write({"akId": "LTAI-two", "akSecret": "other"})
        assert file.read() == "first"


def test_the_same_credentials_again_change_nothing(files, tmp_path):
    files.write(KEY)
    before = os.readlink(tmp_path / "credentials" / "..data")
    assert not files.write(dict(KEY))
    assert os.readlink(tmp_path / "credentials" / "..data") == before


def test_other_keys_of_a_secret_are_left_out(files, tmp_path):
    files.write({**KEY, "../../etc/passwd": "x", "note": "y", "..data": "z"})
    assert content(tmp_path) == KEY


def test_no_credentials_leave_an_empty_directory(files, tmp_path):
    files.write({})
    assert content(tmp_path) == {}


def test_a_symlink_in_place_of_the_directory_is_not_followed(files, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "credentials").symlink_to(victim)
    with pytest.raises(MountError, match="credentials could not be written"):
        files.write(KEY)
    assert os.listdir(victim) == []


@pytest.mark.parametrize("name", ["..data", "..data_new", "akId", "..evil"])
def test_a_symlink_planted_inside_is_replaced_and_never_followed(files, tmp_path, name):
    victim = tmp_path / "victim"
    victim.mkdir()
    directory = tmp_path / "credentials"
    directory.mkdir()
    (directory / name).symlink_to(victim)
    files.write(KEY)
    assert os.listdir(victim) == []


def test_a_broken_current_generation_is_replaced(files, tmp_path):
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "..data").symlink_to("..gone")
    assert files.write(KEY)
    assert content(tmp_path) == KEY


def test_an_absurd_value_is_refused_without_showing_it(files):
    with pytest.raises(CredentialsMissing, match="akSecret in the secret is 100000 bytes long") as caught:
        files.write({"akId": "x", "akSecret": "Z" * 100_000})
    assert "ZZ" not in str(caught.value)


def test_a_directory_that_cannot_be_written_is_an_error_without_the_values(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MountError) as caught:
        CredentialFiles(tmp_path / "file" / "credentials", os.getuid(), os.getgid()).write(KEY)
    assert "first" not in str(caught.value)
