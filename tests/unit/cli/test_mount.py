"""What `ossfuse mount` refuses before it mounts anything."""

import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from csi.cli.group import ossfuse
from csi.errors import MountError

NOWHERE = ("--url", "http://127.0.0.1:1")


def mount(directory: Path, *arguments: str, **environment: str) -> Result:
    given = {"OSS_ACCESS_KEY_ID": None, "OSS_ACCESS_KEY_SECRET": None, "OSS_SESSION_TOKEN": None, **environment}
    return CliRunner().invoke(ossfuse, ["mount", "oss://bkt/", str(directory), *NOWHERE, *arguments], env=given)


@pytest.mark.parametrize("below", ["folder", "folder/cache", "link/cache"])
def test_a_cache_that_the_mount_would_hide_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    result = mount(tmp_path / "folder", "--public", "--attribute", f"cache={tmp_path / below}")
    assert result.exit_code == 1
    assert f"cache: '{tmp_path / below}' is hidden by the mount on {tmp_path / 'folder'}" in result.stderr
    assert "Hint: name a directory outside of it" in result.stderr
    assert os.listdir(tmp_path / "folder") == []


@pytest.mark.parametrize(("there", "lacking"), [("AccessKeyId", "AccessKeySecret"), ("AccessKeySecret", "AccessKeyId")])
def test_half_a_key_in_a_file_is_told_with_file_and_field(tmp_path: Path, there: str, lacking: str) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({there: "hunter2"}))
    result = mount(tmp_path / "folder", "--credentials", str(keys))
    assert result.exit_code == 1
    assert f"credentials file {keys} lacks {lacking}\n" in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    ("there", "lacking"),
    [("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"), ("OSS_ACCESS_KEY_SECRET", "OSS_ACCESS_KEY_ID")],
)
def test_half_a_key_in_the_environment_is_told_with_its_variable(tmp_path: Path, there: str, lacking: str) -> None:
    result = mount(tmp_path / "folder", **{there: "hunter2"})
    assert result.exit_code == 1
    assert f"the environment lacks {lacking}\n" in result.stderr
    assert "hunter2" not in result.stderr


def test_a_directory_that_another_mount_serves_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken:
        def open(self) -> None:
            raise MountError("state directory is in use", errno=errno.EWOULDBLOCK, hint="give --state-dir")

    monkeypatch.setattr("csi.cli.mount._STATE", tmp_path / "state")
    monkeypatch.setattr("csi.cli.mount.local_mounts", lambda *_, **__: Taken())
    result = mount(tmp_path / "folder", "--public")
    assert result.exit_code == 1
    assert f"{tmp_path / 'folder'} is mounted already" in result.stderr
    assert f"Hint: umount {tmp_path / 'folder'} first" in result.stderr
    assert "--state-dir" not in result.stderr


@pytest.mark.parametrize("kind", ["rrsa", "RRSA", " Rrsa "])
@pytest.mark.parametrize(
    "roles", [(), ("roleArn=acs:ram::1:role/training", "oidcProviderArn=acs:ram::1:oidc-provider/a")]
)
def test_a_role_of_a_service_account_needs_a_cluster(tmp_path: Path, kind: str, roles: tuple[str, ...]) -> None:
    given = [word for attribute in (f"authType={kind}", *roles) for word in ("--attribute", attribute)]
    result = mount(tmp_path / "folder", *given, OSS_ACCESS_KEY_ID="a", OSS_ACCESS_KEY_SECRET="b")
    assert result.exit_code == 1
    assert f"authType: {kind!r} needs a cluster" in result.stderr
    assert "Hint: use --credentials FILE" in result.stderr


def test_a_role_inside_the_options_json_is_refused_too(tmp_path: Path) -> None:
    options = {"authType": "RRSA", "roleArn": "acs:ram::1:role/a", "oidcProviderArn": "acs:ram::1:oidc-provider/a"}
    result = mount(tmp_path / "folder", "--attribute", f"options={json.dumps(options)}")
    assert result.exit_code == 1
    assert "authType: 'rrsa' needs a cluster" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--memory", "1Mi"), "Error: --memory: '1Mi' is not accepted, expected at least"),
        (("-o", "attr_timeout=x"), "-o"),
        (("--attribute", "fs.jindo.fuse.pod.mem.request=2Gi"), "the value of --memory"),
    ],
)
def test_what_is_refused_is_named_as_it_was_given(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = mount(tmp_path / "folder", "--public", *arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    for word in ("fs.jindo.fuse.pod.mem.limit", "mountOptions", "PersistentVolume"):
        assert word not in result.stderr
