"""What our own session agrees on with the kernel, seen from a program: how many requests it costs, and who goes on when
a server is killed."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from csi.errors import MountError
from csi.fs.journal import make
from csi.handover.kernel import MNT_DETACH, MS_NODEV, MS_NOSUID, LinuxKernel
from tests.support.emulator import RunningEmulator
from tests.support.linux_releases import needs_linux
from tests.support.mounts import SOURCE_ROOT, ServedMount, served_mount
from tests.support.published_volume import Bucket, program
from tests.support.restless_program import FILES, content

MIB = 1 << 20
CONTENT = bytes(range(256)) * 8192
Mount = Callable[..., AbstractContextManager[ServedMount]]


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    def make(**arguments: Any) -> AbstractContextManager[ServedMount]:
        command = ["tests.support.tree_server", "--calls", str(tmp_path / "calls.json")]
        return served_mount(tmp_path / "m", [*command, "--arguments", json.dumps(arguments)])

    return make


def calls(tmp_path: Path, served: ServedMount) -> dict[str, int]:
    """What the filesystem was asked; ends the server."""
    assert served.unmount() == 0
    found: dict[str, int] = json.loads((tmp_path / "calls.json").read_text())
    return found


def test_a_mebibyte_is_one_request(mount: Mount, tmp_path: Path) -> None:
    page = mmap.mmap(-1, MIB)
    with mount() as served:
        descriptor = os.open(served.path / "big.bin", os.O_RDONLY | os.O_DIRECT)
        try:
            assert os.preadv(descriptor, [page], 0) == MIB
        finally:
            os.close(descriptor)
        assert page[:] == CONTENT[:MIB]
        assert calls(tmp_path, served)["read"] == 1


@pytest.mark.parametrize(("timeout", "listings"), [(60.0, 1), (0.0, 3)])
def test_a_listing_is_shown_again_for_as_long_as_names_are_believed(
    mount: Mount, tmp_path: Path, timeout: float, listings: int
) -> None:
    with mount(entry_timeout=timeout) as served:
        assert len({tuple(sorted(os.listdir(served.path / "many"))) for _ in range(3)}) == 1
        assert calls(tmp_path, served)["readdir"] == listings


def test_names_alone_do_not_cost_attributes_of_each(mount: Mount, tmp_path: Path) -> None:
    with mount() as served:
        assert len(os.listdir(served.path / "many")) == 3000
        assert calls(tmp_path, served)["lookup"] <= 2  # of the directory


# --- a server that is killed, and its successor ---


class Succession:
    """A mount whose descriptor outlives its servers: this process holds it."""

    def __init__(self, directory: Path, ending: ExitStack) -> None:
        self.path = directory / "mount"
        self.path.mkdir()
        self._directory = directory
        self._options: list[str] = []
        self._passed: list[int] = []
        self._agreed = directory / "agreed.json"
        self._log = directory / "server.log"
        self._ending = ending
        kernel = LinuxKernel()
        self._device = kernel.open_fuse_device()
        ending.callback(os.close, self._device)
        data = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        kernel.mount("ossfuse:test", str(self.path), "fuse.ossfuse", MS_NODEV | MS_NOSUID, data)
        ending.callback(self._detach)

    def show(self, emulator: RunningEmulator) -> None:
        """A bucket is served, and who serves it leaves a journal to the next."""
        secret, volume = self._directory / "secret", self._directory / "volume.json"
        secret.mkdir()
        (secret / "akId").write_text(emulator.access_key_id)
        (secret / "akSecret").write_text(emulator.access_key_secret)
        attributes = {"bucket": emulator.bucket, "url": emulator.endpoint, "path": "/data/", "mode": "fast"}
        volume.write_text(json.dumps(attributes))
        journal = make()
        self._ending.callback(os.close, journal)
        self._passed.append(journal)
        self._options = ["--volume", str(volume), "--credentials", str(secret), "--journal", str(journal)]

    def serve(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.support.successor", "--descriptor", str(self._device)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--agreed", str(self._agreed), *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=[self._device, *self._passed],
                cwd=SOURCE_ROOT,
            )
        self._ending.enter_context(process)
        self._ending.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def ask(self, program: str) -> subprocess.Popen[str]:
        """A program that the test never waits for without end: its own calls may hang on the mount."""
        return self._start("-c", program, cwd="/")

    def hold(self) -> subprocess.Popen[str]:
        """A program that has files of the bucket open and waits for a line."""
        process = self._start("-m", "tests.support.holding_program", str(self.path), cwd=SOURCE_ROOT)
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        return process

    def until_read(self) -> None:
        """Until a server has read the request for `slow`, which it does not answer."""
        for _ in range(2000):
            if "slow is asked for" in self._log.read_text():
                return
            subprocess.run(["sleep", "0.01"], check=True)
        raise AssertionError(f"no request arrived:\n{self._log.read_text()}")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def _start(self, *arguments: str, cwd: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ending.enter_context(process)
        self._ending.callback(process.kill)
        return process

    def _detach(self) -> None:
        with suppress(MountError):
            LinuxKernel().umount2(str(self.path), MNT_DETACH)


@pytest.fixture
def succession(tmp_path: Path) -> Iterator[Succession]:
    with ExitStack() as ending:
        yield Succession(tmp_path, ending)


@needs_linux(6, 9, "FUSE_NOTIFY_RESEND")
def test_a_successor_answers_what_its_predecessor_read_and_goes_on_with_the_mount(succession: Succession) -> None:
    first = succession.serve()
    hello, slow = succession.path / "hello.txt", succession.path / "slow"
    reader = succession.ask(f"print(open({str(hello)!r}).read(), end='')")
    assert reader.communicate(timeout=30)[0] == "hello, world\n"
    waiting = succession.ask(f"import os; print('asking', flush=True); print(os.stat({str(slow)!r}).st_size)")
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "asking\n"
    succession.until_read()

    first.kill()
    first.wait()
    succession.serve()

    assert waiting.communicate(timeout=30)[0] == "6\n"
    again = succession.ask(f"print(open({str(hello)!r}).read(), end='')")
    assert again.communicate(timeout=30)[0] == "hello, world\n"


@needs_linux(6, 9, "FUSE_NOTIFY_RESEND")
@pytest.mark.parametrize("kills", [1, 3])
def test_programs_go_on_with_what_they_had_open(succession: Succession, emulator: RunningEmulator, kills: int) -> None:
    large = random.Random(1).randbytes(24 * MIB)
    names = [f"{number:05}" for number in range(5000)]
    bucket = Bucket(emulator)
    for name, data in (("large", large), ("small", b"some words"), ("old", b"was there"), ("here/file", b"found")):
        bucket.put(name, data)
    emulator.seed("data/many/{n:05d}", b"", count=5000)
    succession.show(emulator)
    server = succession.serve()
    holding = succession.hold()

    emulator.reset_counters()
    for _ in range(kills):
        server.kill()
        server.wait()
        server = succession.serve()
    found = json.loads(holding.communicate("go on\n", timeout=60)[0])

    assert (found["large"], found["md5"]) == (len(large), hashlib.md5(large, usedforsecurity=False).hexdigest())
    assert emulator.requests("GetObject", "data/large"), "the successor was not asked"
    assert found["small"] == "some words"
    assert found["names"] == names
    assert (found["size"], found["here"]) == (5, "found")
    assert found["old"] == ["synced", "", ""]
    assert found["new"] == ["EIO", "EIO", "EIO"]
    assert "new was not written" in succession.log
    listed = succession.ask(f"import os; print(os.listdir({str(succession.path)!r}))")
    assert "new" not in listed.communicate(timeout=30)[0]
    assert bucket.get("new") is None
    assert bucket.get("old") == b"synced"


@needs_linux(6, 9, "FUSE_NOTIFY_RESEND")
def test_who_reads_notices_nothing_of_killed_servers_and_who_writes_is_told(
    succession: Succession, emulator: RunningEmulator
) -> None:
    bucket = Bucket(emulator)
    for number in range(FILES):
        bucket.put(f"files/{number:05}", content(f"{number:05}"))
    succession.show(emulator)
    server = succession.serve()
    works = ["read", "read", "list", "write", "write"]
    with ExitStack() as ending:
        directory = str(succession.path / "files")
        programs = [ending.enter_context(program("restless_program", directory, work)) for work in works]
        said: list[set[str | None]] = [set() for _ in programs]
        for _ in range(6):
            server.kill()
            server.wait()
            server = succession.serve()
            for each, lines in zip(programs, said, strict=True):
                lines |= {each.line(), each.line()}  # none of their calls meets two deaths
        for each in programs:
            each.say("enough")
        for each, lines in zip(programs, said, strict=True):
            lines |= set(each.lines())

    assert said[:3] == [{"done"}] * 3
    assert {"done"} <= said[3] | said[4] <= {"done", "EIO"}
    for name in bucket.names():
        data = bucket.get(name)
        assert data == content((data or b"")[:5].decode())
