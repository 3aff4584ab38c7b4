"""docs/semantics.md is what happens: its tables are carried out on real mounts."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from csi import errors
from csi.fuse.errno_map import errno_of
from csi.volume.parse import parse_volume
from tests.mount.test_posix import failure
from tests.support.emulator import RunningEmulator
from tests.support.filesystems import world
from tests.support.mounts import SOURCE_ROOT
from tests.support.semantics import ACTIONS, Scene, carry_out
from tests.support.volumes import MountedVolume, mounted_volume

APPEND = {"fs.oss.append.enable": "true"}
MOUNTS: dict[str, dict[str, object]] = {
    "fast": {"mode": "fast"},
    "incremental": {"mode": "incremental"},
    "consistent": {"mode": "consistent"},
    "custom": {"mode": "custom"},
    "append": {"mode": "custom", "attributes": APPEND},
    "append, no links": {"mode": "incremental", "attributes": APPEND},
    "readonly": {"mode": "readonly"},
    "whole bucket": {"mode": "consistent", "prefix": ""},
}
COLUMNS = {
    "writing modes": ("fast", "incremental", "consistent", "custom"),
    "append": ("append", "append, no links"),
    "readonly": ("readonly",),
}
WITH_LINKS = ("custom", "append", "readonly")


def tables() -> dict[str, list[dict[str, str]]]:
    """The tables by the heading above them; each row by the names of its columns."""
    found: dict[str, list[dict[str, str]]] = {}
    heading, columns = "", []
    for line in (SOURCE_ROOT / "docs/semantics.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading, columns = line.strip("# "), []
        elif line.startswith("|") and not columns:
            columns = _cells(line)
        elif line.startswith("|") and not line.startswith("|---"):
            found.setdefault(heading, []).append(dict(zip(columns, _cells(line), strict=True)))
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


TABLES = tables()
OPERATIONS = TABLES["Files"] + TABLES["Directories"]


@dataclass(frozen=True)
class Claim:
    row: str
    mount: str
    result: str


def claims() -> Iterator[Claim]:
    for row in OPERATIONS:
        for column, names in COLUMNS.items():
            for name in names:
                text = row["operation"]
                if "-ono_symlink" in text and name != "readonly" and (name in WITH_LINKS) != ("without" in text):
                    continue
                yield Claim(text, name, row[column])


@pytest.fixture(scope="module")
def mounted(
    tmp_path_factory: pytest.TempPathFactory, emulator_process: RunningEmulator
) -> Iterator[Callable[[str], MountedVolume]]:
    """Mounts by name, each made when it is first asked for."""
    made: dict[str, MountedVolume] = {}
    with ExitStack() as stack:

        def mount(name: str) -> MountedVolume:
            if name not in made:
                own = replace(emulator_process, bucket=emulator_process.create_bucket())
                home = tmp_path_factory.mktemp("semantics")
                made[name] = stack.enter_context(mounted_volume(home, own, **MOUNTS[name]))  # type: ignore[arg-type]
            return made[name]

        yield mount


def test_every_row_is_carried_out_and_every_action_is_a_row() -> None:
    assert {row["operation"] for row in OPERATIONS} == set(ACTIONS)


@pytest.mark.parametrize("claim", list(claims()), ids=lambda claim: f"{claim.row}-{claim.mount}")
def test_an_operation_does_what_its_row_says(mounted: Callable[[str], MountedVolume], claim: Claim) -> None:
    scene = Scene(mounted(claim.mount), uuid.uuid4().hex[:12], writable=claim.mount != "readonly")

    assert carry_out(claim.row, scene) == claim.result


# --- names ---


def _shadowed(volume: MountedVolume) -> str:
    volume.put("n1/a", b"file")
    volume.put("n1/a/b", b"below")
    assert os.listdir(volume.path / "n1") == ["a"]
    assert (volume.path / "n1/a").is_dir()
    assert os.listdir(volume.path / "n1/a") == ["b"]
    return "the directory is shown, the file is hidden"


def _unshowable(volume: MountedVolume) -> str:
    for key in ("n2//x", "n2/./x", "n2/../x", "n2/" + "l" * 256, "n2/nul\0byte"):
        volume.put(key, b"hidden")
    volume.put("n2/seen", b"")
    assert os.listdir(volume.path / "n2") == ["seen"]
    return "hidden"


def _old_name_in_latin_1(_volume: MountedVolume) -> str:
    # OSS of today and the emulator refuse such a key, so this row alone has to do with a bucket in memory
    with world("memory") as made:
        made.store.seed("caf\udce9", b"content")
        program = made.mount()
        assert len(program.list()) == 1
        assert program.read(b"caf\xe9") == b"content"
    return "shown"


def _new_name_in_latin_1(volume: MountedVolume) -> str:
    return errno.errorcode[failure(os.open, os.fsencode(volume.path) + b"/caf\xe9", os.O_CREAT | os.O_WRONLY) or 0]


def _leading_backslash(volume: MountedVolume) -> str:
    return errno.errorcode[failure((volume.path / "\\name").write_bytes, b"") or 0]


def _long_name(volume: MountedVolume) -> str:
    return errno.errorcode[failure((volume.path / ("n" * 256)).write_bytes, b"") or 0]


def _long_key(volume: MountedVolume) -> str:
    path = volume.path
    for _ in range(4):
        path /= "d" * 250
        path.mkdir()
    return errno.errorcode[failure((path / ("n" * 100)).write_bytes, b"") or 0]


NAMES: dict[str, Callable[[MountedVolume], str]] = {
    "a file and a directory of one name (`a` and `a/b`)": _shadowed,
    "keys with `//`, or a component `.` or `..`, a NUL byte, or over 255 bytes": _unshowable,
    "bytes that are not UTF-8, in an object that is there": _old_name_in_latin_1,
    "bytes that are not UTF-8, in a new name": _new_name_in_latin_1,
    "a new name at the top of the bucket that starts with a backslash": _leading_backslash,
    "a name over 255 bytes": _long_name,
    "a new name whose key would be over 1,023 bytes, the volume's prefix included": _long_key,
}


@pytest.mark.parametrize("row", TABLES["Names"], ids=lambda row: row["name or key"])
def test_names_are_treated_as_their_row_says(mounted: Callable[[str], MountedVolume], row: dict[str, str]) -> None:
    assert NAMES[row["name or key"]](mounted("whole bucket")) == row["what happens"]


# --- timeouts and errors ---


TIMEOUTS = {
    "size, time and version of a file": ("attr_timeout",),
    "that a name exists": ("attr_timeout", "entry_timeout"),
    "that a name does not exist": ("negative_timeout",),
    "the names in a directory": ("entry_timeout",),
}


@pytest.mark.parametrize("row", TABLES["How old an answer may be"], ids=lambda row: row["what"])
@pytest.mark.parametrize("mode", ["fast", "incremental", "consistent", "readonly", "custom"])
def test_the_ages_of_the_table_are_the_timeouts_of_the_modes(row: dict[str, str], mode: str) -> None:
    attributes = {"bucket": "b-1", "url": "http://127.0.0.1:1", "mode": mode}
    arguments = parse_volume(attributes, cpu_count=2).spec.arguments
    column = next(cell for title, cell in row.items() if mode in title)

    assert max(getattr(arguments, name) for name in TIMEOUTS[row["what"]]) == _seconds(column)


def _seconds(text: str) -> float:
    found = re.match(r"(\d+)(?: (s|h))?", text)
    assert found
    return int(found[1]) * {"h": 3600, "s": 1, None: 1}[found[2]]


ANSWERS: dict[str, errors.OssFuseError] = {
    "access denied, bad or expired credentials (403)": errors.AuthenticationFailed("x"),
    "object in an archive class that is not restored (403)": errors.ObjectArchived("x"),
    "object not found (404)": errors.ObjectNotFound("x"),
    "bucket not found (404)": errors.BucketNotFound("x"),
    "object changed under an open file (412)": errors.PreconditionFailed("x"),
    "another client appended (409)": errors.AppendConflict("x"),
    "too large, or too many parts": errors.ObjectTooLarge("x"),
    "out of memory for writers, at open": errors.OutOfMemoryBudget("x"),
    "nobody answers (name resolution, connection refused or reset, TLS)": errors.EndpointUnreachable("x"),
    "no answer within the deadline": errors.DeadlineExceeded("x"),
    "server errors after all retries": errors.ServerFailure("x"),
}


@pytest.mark.parametrize("row", TABLES["Errors from OSS"], ids=lambda row: row["answer"])
def test_answers_of_oss_have_the_errno_of_their_row(row: dict[str, str]) -> None:
    assert errno.errorcode[errno_of(ANSWERS[row["answer"]])] == row["errno"]
