import json
import logging
import os

import pytest

from csi.errors import CredentialsMissing
from csi.oss.credentials import (
    AnonymousCredentials,
    Credentials,
    EnvironmentCredentials,
    FileCredentials,
    SecretDirectory,
    credentials_from_secret,
)

SECRET = "zB9-do-not-show-me"


class Clock:
    def __init__(self):
        self.now = 1_696_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def write_json(path, key_id, **more):
    path.write_text(json.dumps({"AccessKeyId": key_id, "AccessKeySecret": SECRET, **more}))


def project(directory, generation, **files):
    """Write files as Kubernetes does: a new directory, then `..data` swapped over by a rename."""
    fresh = directory / f"..{generation}"
    fresh.mkdir()
    for name, value in files.items():
        (fresh / name).write_text(value)
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    (directory / "..data_tmp").symlink_to(fresh.name)
    os.rename(directory / "..data_tmp", directory / "..data")


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda c: f"{[c]}"])
def test_credentials_never_show_themselves(show):
    credentials = Credentials("LTAIvisible", SECRET, "token-value")

    shown = show(credentials)

    assert SECRET not in shown
    assert "token-value" not in shown
    assert "LTAIvisible" not in shown


@pytest.mark.parametrize(
    "secret",
    [
        {"akId": "ID", "akSecret": SECRET},
        {"AccessKeyId": "ID", "AccessKeySecret": SECRET},
        {"akId": " ID\n", "akSecret": SECRET + "\n"},
        {"akId": "ID", "AccessKeySecret": SECRET},
    ],
)
def test_a_secret_is_read_in_either_spelling(secret):
    assert credentials_from_secret(secret) == Credentials("ID", SECRET)


def test_a_secret_may_hold_temporary_credentials():
    secret = {
        "AccessKeyId": "STS.ID",
        "AccessKeySecret": SECRET,
        "SecurityToken": "tok",
        "Expiration": "2023-10-01T00:00:00Z",
    }

    assert credentials_from_secret(secret) == Credentials("STS.ID", SECRET, "tok", 1696118400.0)


@pytest.mark.parametrize(
    ("secret", "named"),
    [
        ({"akId": "AKIDVALUE"}, "akSecret"),
        ({"akSecret": SECRET}, "akId"),
        ({"akId": "AKIDVALUE", "akSecret": ""}, "akSecret"),
        ({"AccessKeyId": "  ", "AccessKeySecret": SECRET}, "AccessKeyId"),
        ({}, "akId"),
        ({"akId": "AKIDVALUE", "akSecret": SECRET + "\nmore"}, "akSecret"),
        ({"akId": "AKIDVALUE", "akSecret": SECRET, "Expiration": "tomorrow"}, "Expiration"),
    ],
)
def test_what_is_wrong_with_a_secret_is_named_without_values(secret, named):
    with pytest.raises(CredentialsMissing) as failure:
        credentials_from_secret(secret)

    assert named in str(failure.value)
    assert SECRET not in str(failure.value)
    assert "AKIDVALUE" not in str(failure.value)


def test_the_environment_holds_credentials():
    environ = {"OSS_ACCESS_KEY_ID": "ID", "OSS_ACCESS_KEY_SECRET": SECRET, "OSS_SESSION_TOKEN": "tok"}

    assert EnvironmentCredentials(environ).current() == Credentials("ID", SECRET, "tok")


def test_an_environment_without_a_key_is_refused_by_the_name_of_the_variable():
    with pytest.raises(CredentialsMissing, match="OSS_ACCESS_KEY_SECRET"):
        EnvironmentCredentials({"OSS_ACCESS_KEY_ID": "ID"})


def test_anonymous_access_has_no_credentials():
    assert AnonymousCredentials().current() is None


def test_a_changed_file_is_picked_up(tmp_path, clock):
    path = tmp_path / "credentials"
    write_json(path, "first")
    source = FileCredentials(path, clock)
    source.current()

    write_json(path, "second")
    clock.now += 2

    assert source.current().access_key_id == "second"


def test_a_file_is_looked_at_no_more_than_once_a_second(tmp_path, clock):
    path = tmp_path / "credentials"
    write_json(path, "first")
    source = FileCredentials(path, clock)
    source.current()

    write_json(path, "second")

    assert source.current().access_key_id == "first"


def test_a_refresh_looks_at_the_file_at_once(tmp_path, clock):
    path = tmp_path / "credentials"
    write_json(path, "first")
    source = FileCredentials(path, clock)
    source.current()
    write_json(path, "second")

    source.refresh()

    assert source.current().access_key_id == "second"


def test_a_file_is_read_again_ahead_of_its_expiration_though_it_looks_unchanged(tmp_path, clock):
    path = tmp_path / "credentials"
    expiration = "2023-09-29T16:00:00Z"
    write_json(path, "first", Expiration=expiration)
    status = path.stat()
    source = FileCredentials(path, clock)
    clock.now = source.current().expiration - 59
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, path.read_bytes().replace(b"first", b"newer"))
    os.close(descriptor)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert source.current().access_key_id == "newer"


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"AccessKeyId": "x"}', "\x00\xff"])
def test_a_broken_file_leaves_the_old_credentials_in_force_and_warns_once(tmp_path, clock, caplog, broken):
    path = tmp_path / "credentials"
    write_json(path, "first")
    source = FileCredentials(path, clock)
    source.current()
    path.write_text(broken)

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now += 5
            assert source.current().access_key_id == "first"

    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    assert SECRET not in caplog.text


def test_a_repaired_file_is_used_again(tmp_path, clock):
    path = tmp_path / "credentials"
    write_json(path, "first")
    source = FileCredentials(path, clock)
    source.current()
    path.unlink()
    clock.now += 5
    source.current()
    write_json(path, "second")
    clock.now += 5

    assert source.current().access_key_id == "second"


def test_a_file_that_was_never_there_is_an_error_naming_it(tmp_path, clock):
    source = FileCredentials(tmp_path / "absent", clock)

    with pytest.raises(CredentialsMissing, match="absent"):
        source.current()


def test_a_broken_file_is_not_quoted(tmp_path, clock):
    path = tmp_path / "credentials"
    path.write_text('{"AccessKeyId": "ID", "AccessKeySecret": "' + SECRET)

    with pytest.raises(CredentialsMissing) as failure:
        FileCredentials(path, clock).current()

    assert SECRET not in str(failure.value)
    assert failure.value.__cause__ is None


def test_a_plain_directory_of_files_is_a_secret(tmp_path, clock):
    (tmp_path / "akId").write_text("ID")
    (tmp_path / "akSecret").write_text(SECRET)

    assert SecretDirectory(tmp_path, clock).current() == Credentials("ID", SECRET)


def test_a_projected_secret_is_picked_up_when_it_is_swapped(tmp_path, clock):
    project(tmp_path, 1, akId="first", akSecret=SECRET)
    source = SecretDirectory(tmp_path, clock)
    source.current()

    project(tmp_path, 2, akId="second", akSecret=SECRET + "2")
    clock.now += 2

    assert source.current() == Credentials("second", SECRET + "2")


def test_two_halves_of_a_swapped_secret_are_never_mixed(tmp_path, clock, monkeypatch):
    project(tmp_path, 1, akId="first", akSecret="secret-1")
    source = SecretDirectory(tmp_path, clock)
    listdir = os.listdir

    def swap_while_listing(path):
        monkeypatch.setattr(os, "listdir", listdir)
        names = listdir(path)
        project(tmp_path, 2, akId="second", akSecret="secret-2")
        return names

    monkeypatch.setattr(os, "listdir", swap_while_listing)

    assert source.current() in (Credentials("first", "secret-1"), Credentials("second", "secret-2"))


def test_a_secret_directory_lacking_a_half_is_refused_by_name(tmp_path, clock):
    (tmp_path / "akId").write_text("ID")

    with pytest.raises(CredentialsMissing, match="akSecret"):
        SecretDirectory(tmp_path, clock).current()
