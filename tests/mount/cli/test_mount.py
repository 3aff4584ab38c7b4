"""`ossfuse mount` as a person uses it: a process in the foreground, a bucket of the emulator, Ctrl-C."""

import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.emulator import RunningEmulator

OSSFUSE = Path(sys.executable).with_name("ossfuse")


@contextmanager
def mounting(
    emulator: RunningEmulator, directory: Path, *arguments: str, **environment: str
) -> Iterator[subprocess.Popen]:
    """The command, running; it has unmounted when this ends, also when the test failed."""
    command = [
        OSSFUSE,
        "mount",
        f"oss://{emulator.bucket}/data/",
        str(directory),
        "--url",
        emulator.endpoint,
        *arguments,
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)
        assert str(directory) not in Path("/proc/self/mountinfo").read_text()


def line_of(process: subprocess.Popen) -> str:
    ready, _, _ = select.select([process.stdout], [], [], 60)
    assert ready, "the command printed nothing in 60 s"
    return process.stdout.readline()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def stopped_sidecar(process: subprocess.Popen) -> int:
    """The sidecar that the command starts, stopped before it can say anything."""
    while process.poll() is None:
        for child in children_of(process.pid):
            if b"/sidecar/" in Path(f"/proc/{child}/cmdline").read_bytes():  # it is past fork and exec
                os.kill(child, signal.SIGSTOP)
                return child
        time.sleep(0.005)
    raise AssertionError(f"the command ended: {process.communicate()}")


def keys_file(emulator: RunningEmulator, path: Path) -> Path:
    path.write_text(json.dumps({"AccessKeyId": emulator.access_key_id, "AccessKeySecret": emulator.access_key_secret}))
    return path


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_bucket_is_a_folder_until_the_command_is_ended(
    emulator: RunningEmulator, tmp_path: Path, ending: signal.Signals
) -> None:
    directory = tmp_path / "folder"
    keys = keys_file(emulator, tmp_path / "keys.json")
    with mounting(emulator, directory, "--credentials", str(keys), "--memory", "256Mi") as process:
        line = line_of(process)
        (directory / "a.txt").write_text("written")
        read = (directory / "a.txt").read_text()
        process.send_signal(ending)
        rest, errors = process.communicate(timeout=60)
    assert f"mounted oss://{emulator.bucket}/data/" in line
    assert "memory limit 256Mi" in line
    assert read == "written"
    assert (process.returncode, rest) == (0, f"unmounted {directory}\n")
    assert emulator.access_key_secret not in line + rest + errors
    assert not directory.exists()


@pytest.mark.parametrize(("ending", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_mount_that_a_silent_server_holds_up_is_given_up_at_once(
    tmp_path: Path, ending: signal.Signals, status: int
) -> None:
    directory = tmp_path / "folder"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = [OSSFUSE, "mount", "oss://bkt/", str(directory), "--url", endpoint, "--public"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with server.accept()[0]:
            said = ended_by(process, ending)
    assert (process.returncode, said) == (status, given_up(directory, ending))
    assert not directory.exists()


@pytest.mark.parametrize(("ending", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_mount_whose_sidecar_says_nothing_is_given_up_at_once_and_leaves_nothing(
    emulator: RunningEmulator, tmp_path: Path, ending: signal.Signals, status: int
) -> None:
    directory = tmp_path / "folder"
    keys = keys_file(emulator, tmp_path / "keys.json")
    with mounting(emulator, directory, "--credentials", str(keys)) as process:
        sidecar = stopped_sidecar(process)
        said = ended_by(process, ending)
    assert (process.returncode, said.splitlines()[-1] + "\n") == (status, given_up(directory, ending))
    assert "Traceback" not in said
    assert not Path(f"/proc/{sidecar}").exists()
    assert not directory.exists()


def ended_by(process: subprocess.Popen, ending: signal.Signals) -> str:
    """All that the command says after the signal; it does not wait for a deadline of its own, of a minute or more."""
    process.send_signal(ending)
    said, errors = process.communicate(timeout=30)
    return said + errors


def given_up(directory: Path, ending: signal.Signals) -> str:
    return f"{directory} is not mounted: {ending.name} came before the mount was made\n"


def test_a_folder_that_was_there_stays_and_keys_may_come_from_the_environment(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    directory = tmp_path / "folder"
    directory.mkdir()
    environment = {"OSS_ACCESS_KEY_ID": emulator.access_key_id, "OSS_ACCESS_KEY_SECRET": emulator.access_key_secret}
    with mounting(emulator, directory, "-o", "ro,attr_timeout=1", **environment) as process:
        line = line_of(process)
        with pytest.raises(OSError, match="Read-only file system"):
            (directory / "a.txt").write_text("refused")
    assert "read-only" in line
    assert process.returncode == 0
    assert directory.is_dir()


def test_the_command_ends_when_somebody_else_unmounts(emulator: RunningEmulator, tmp_path: Path) -> None:
    directory = tmp_path / "folder"
    keys = keys_file(emulator, tmp_path / "keys.json")
    with mounting(emulator, directory, "--credentials", str(keys)) as process:
        line_of(process)
        subprocess.run(["umount", str(directory)], check=True, timeout=60)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "was unmounted by somebody else" in rest


def test_a_sidecar_that_is_killed_is_followed_by_another_and_nobody_notices(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    directory = tmp_path / "folder"
    keys = keys_file(emulator, tmp_path / "keys.json")
    with mounting(emulator, directory, "--credentials", str(keys)) as process:
        line = line_of(process)
        (directory / "a.txt").write_text("written")
        held = os.open(directory / "a.txt", os.O_RDONLY | os.O_DIRECT)
        for _ in range(2):
            os.kill(int(line.partition("sidecar ")[2].partition(",")[0].partition(")")[0]), signal.SIGKILL)
            assert (directory / "a.txt").read_text() == "written"
            assert os.pread(held, 100, 0) == b"written"
            line = line_of(process)
            assert line.startswith(f"served again on {directory} (sidecar ")
        os.close(held)
        (directory / "b.txt").write_text("written after that")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.count("ended, killed by signal 9; another one is started") == 2
    assert not directory.exists()


@pytest.mark.parametrize("arguments", [("--session", "pyfuse3")], ids=["which cannot go on"])
def test_where_the_next_sidecar_cannot_go_on_nobody_finds_the_directory_below(
    emulator: RunningEmulator, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    directory = tmp_path / "folder"
    keys = keys_file(emulator, tmp_path / "keys.json")
    with mounting(emulator, directory, "--credentials", str(keys), *arguments) as process:
        line = line_of(process)
        (directory / "a.txt").write_text("written")
        os.kill(int(line.partition("sidecar ")[2].partition(",")[0].partition(")")[0]), signal.SIGKILL)
        failures = list(failures_until_it_is_read(directory / "a.txt", "written"))
        assert line_of(process).startswith(f"mounted again on {directory} (sidecar ")
        assert set(failures) <= {errno.ENOTCONN, errno.ECONNABORTED}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


def failures_until_it_is_read(path: Path, text: str) -> Iterator[int]:
    end = time.monotonic() + 60
    while True:
        try:
            assert path.read_text() == text
        except OSError as error:
            assert time.monotonic() < end, error
            yield error.errno
        else:
            return


def test_a_second_mount_on_the_same_directory_is_refused_and_the_first_goes_on(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    directory = tmp_path / "folder"
    keys = keys_file(emulator, tmp_path / "keys.json")
    with mounting(emulator, directory, "--credentials", str(keys)) as process:
        line_of(process)
        command = [OSSFUSE, *process.args[1:]]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        (directory / "a.txt").write_text("written")
    assert (second.returncode, second.stdout) == (1, "")
    assert f"{directory} is mounted already" in second.stderr
    assert f"Hint: umount {directory} first" in second.stderr
    assert process.returncode == 0


def test_changed_credentials_are_handed_on_without_mounting_again(emulator: RunningEmulator, tmp_path: Path) -> None:
    keys = keys_file(emulator, tmp_path / "keys.json")
    with mounting(emulator, tmp_path / "folder", "--credentials", str(keys)) as process:
        line_of(process)
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
        keys_file(emulator, tmp_path / "new.json").rename(keys)
        line = line_of(process)
        after = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
    assert line == "changed credentials are in use\n"
    assert after == mounts


@pytest.mark.parametrize(
    ("name", "document", "said"),
    [
        ("wrong key", {"AccessKeyId": "nobody", "AccessKeySecret": "hunter2hunter2"}, "InvalidAccessKeyId"),
        ("half a key", {"AccessKeyId": "nobody"}, "AccessKeySecret"),
        ("no object", ["hunter2hunter2"], "is not a JSON object"),
    ],
)
def test_bad_credentials_are_told_before_anything_is_mounted(
    emulator: RunningEmulator, tmp_path: Path, name: str, document: object, said: str
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(document))
    with mounting(emulator, tmp_path / "folder", "--credentials", str(keys)) as process:
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (1, "")
    assert said in errors
    assert "hunter2" not in errors
    assert not (tmp_path / "folder").exists()


def test_a_disk_cache_is_named_by_an_attribute_and_belongs_to_the_sidecar(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    keys = keys_file(emulator, tmp_path / "keys.json")
    emulator.seed("data/a.bin", "a" * 100_000)
    place = Path("/var/tmp") / f"ossfuse-{tmp_path.parent.name}-{tmp_path.name}"  # pytest's own are root's alone
    given = ("--credentials", str(keys), "--attribute", f"cache={place}", "--attribute", "cacheSize=64Mi")
    gets = []
    try:
        for _ in range(2):
            with mounting(emulator, tmp_path / "folder", *given) as process:
                line_of(process)
                assert (tmp_path / "folder" / "a.bin").read_bytes() == b"a" * 100_000
            gets.append(emulator.count("GetObject"))
        assert (place / "ossfuse-cache-1").stat().st_uid == 65534
    finally:
        shutil.rmtree(place, ignore_errors=True)
    assert gets == [1, 1], "the second mount found it on the disk"


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("cache", "write KEY=VALUE"),
        ("mode=fast", "an option of this command says it"),
        ("cache=emptyDir", "name a directory instead"),
        ("cache=emptydirs", "did you mean emptyDir?"),
        ("caches=/tmp", "did you mean cache?"),
    ],
)
def test_a_bad_attribute_is_told_before_anything_is_mounted(
    emulator: RunningEmulator, tmp_path: Path, attribute: str, said: str
) -> None:
    keys = keys_file(emulator, tmp_path / "keys.json")
    with mounting(emulator, tmp_path / "folder", "--credentials", str(keys), "--attribute", attribute) as process:
        rest, errors = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    assert said in errors
    assert rest == ""


@pytest.mark.parametrize("scheme", ["", "https://"])
def test_an_endpoint_without_tls_that_is_asked_in_https_is_told_with_the_one_to_give(
    emulator: RunningEmulator, tmp_path: Path, scheme: str
) -> None:
    place = emulator.endpoint.removeprefix("http://")
    command = [OSSFUSE, "mount", "oss://bkt/", str(tmp_path / "folder"), "--public", "--url", scheme + place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: https://{place} was asked in HTTPS, and HTTP is what is spoken there\n"
        f"Hint: give the endpoint as http://{place}; one without http:// or https:// is taken for HTTPS\n"
    )


def test_an_endpoint_that_nobody_answers_at_is_told_as_before(tmp_path: Path) -> None:
    command = [OSSFUSE, "mount", "oss://bkt/", str(tmp_path / "folder"), "--public", "--url", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "https://127.0.0.1:1: Failed to connect" in done.stderr
