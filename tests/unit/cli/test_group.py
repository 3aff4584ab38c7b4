import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from csi.cli.group import COMMANDS, ossfuse

OSSFUSE = Path(sys.executable).with_name("ossfuse")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OSSFUSE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
    )


def test_help_lists_the_commands_without_loading_them() -> None:
    result = run("--help", PYTHONPROFILEIMPORTTIME="1")
    assert all(f"  {name} " in result.stdout for name in COMMANDS if name != "demo")
    assert "grpc" not in result.stderr
    assert "aiohttp" not in result.stderr


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"demo"}))
def test_every_command_has_help(name: str) -> None:
    result = run(name, "--help")
    assert result.returncode == 0
    assert "--help" in result.stdout


def test_a_sidecar_starts_without_the_libraries_of_the_command_line() -> None:
    result = run("sidecar", "--help", PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert "csi.sidecar.node_link" in loaded
    assert loaded.isdisjoint({"grpc", "aiohttp", "click", "rich", "oss2", "kubernetes", "yaml"})


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nodes"], 2, "Did you mean 'node'?"),
        (["--nothing"], 2, "No such option"),
        (["volume", "explain", "/no/such/file"], 2, "No such file"),
        (["node", "--sidecar", "pod"], 1, "Hint: run it in a pod"),
        (["node", "--endpoint", "tcp://127.0.0.1:1"], 1, "CSI is not served over TCP"),
        (["controller", "--endpoint", "nowhere"], 1, "unix:///csi/csi.sock"),
        (["doctor", "--endpoint", "ftp://x"], 1, "--endpoint: 'ftp://x' is not accepted"),
        (["doctor", "--endpoint", ""], 1, "--endpoint: '' is not accepted"),
        (["mount", "oss://bkt/", "", "--public", "--url", "http://127.0.0.1:1"], 2, "'' names no directory"),
        (["mount", "oss://bkt/", "m", "--public", "--credentials", "/dev/null"], 2, "contradict each other"),
        (["mount", "oss://bkt/", "/tmp", "--public"], 1, "no endpoint is given"),
        (["mount", "oss://bkt/", "/tmp", "--url", "http://127.0.0.1:1"], 1, "Hint: use --credentials FILE"),
        (["mount", "oss://bkt/", "/tmp", "--url", "http://x.y", "-o", "r0"], 1, "there is no argument '-or0'"),
        (["emulator", "--data", "/proc/none/x", "--access-key", "hunter2"], 1, "ID:SECRET"),
    ],
)
def test_a_failure_is_told_in_lines_and_not_as_a_traceback(arguments: list[str], status: int, said: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize("output", ["/dev/full", "&-"])
@pytest.mark.parametrize("words", ["--help", "--version", "doctor", "doctor --output json", "doctor --help"])
def test_output_that_cannot_be_written_is_one_line_and_a_failure(words: str, output: str) -> None:
    command = f"{OSSFUSE} {words} >{output}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_a_defect_is_one_line_and_with_debug_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csi.cli.doctor.check_machine", lambda machine: 1 / 0)
    quiet = CliRunner().invoke(ossfuse, ["doctor"])
    assert quiet.exit_code == 1
    assert "Error: unexpected ZeroDivisionError: division by zero" in quiet.stderr
    assert "ossfuse --debug" in quiet.stderr
    assert isinstance(CliRunner().invoke(ossfuse, ["--debug", "doctor"]).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("shell", "piece"), [("bash", "complete -o"), ("zsh", "#compdef ossfuse"), ("fish", "complete ")]
)
def test_completion_scripts_are_printed(shell: str, piece: str) -> None:
    result = CliRunner().invoke(ossfuse, ["completion", shell])
    assert result.exit_code == 0
    assert piece in result.stdout
    assert "_OSSFUSE_COMPLETE" in result.stdout


def test_a_shell_is_told_commands_and_options() -> None:
    words = {"_OSSFUSE_COMPLETE": "bash_complete"}
    commands = run(**words, COMP_WORDS="ossfuse vol", COMP_CWORD="1").stdout
    options = run(**words, COMP_WORDS="ossfuse volume explain --out", COMP_CWORD="3").stdout
    assert commands.split() == ["plain,volume"]
    assert options.split() == ["plain,--output"]


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout.startswith("ossfuse 0.")


def test_findings_can_be_read_by_programs() -> None:
    findings = json.loads(CliRunner().invoke(ossfuse, ["doctor", "--output", "json"]).stdout)
    assert {finding["check"] for finding in findings} >= {"kernel", "/dev/fuse", "memory cgroup", "rights", "libfuse"}
    assert {finding["level"] for finding in findings} <= {"OK", "WARN", "FAIL"}
