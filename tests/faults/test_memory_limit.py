"""A sidecar with little memory is not killed for it: by 32 readers and 4 writers of 1 GiB files at once (256Mi), by
programs that look at 120,000 files (128Mi), nor by hundreds that write at once (128Mi)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import NamedTuple

import oss2
import pytest
from fastcrc.crc64 import xz as crc64

from csi.fuse.choice import OWN
from csi.handover.types import PublishRequest, VolumeCondition
from csi.oss.checksum import combine
from csi.volume.naming import SESSIONS
from csi.volume.parse import parse_volume
from csi.volume.units import MIB, Crc64
from tests.support.node import DEADLINE, running_node

READERS = 32
WRITERS = 4
GIB = 1024 * MIB

RUN = """
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\\n".join(failures))
sys.exit(bool(failures))
"""

# In a process of its own: a hung mount must not hang the test, and the load must not share a GIL with anything. Every
# object is zeros but for its last mebibyte, which repeats its number; every written file is its number, repeated.
LOAD = """
import os, sys, threading
mount, readers, writers, size = sys.argv[1], *map(int, sys.argv[2:])
mebibyte = 1 << 20
zeros = bytes(mebibyte)
failures = []

def guarded(work):
    def run(number):
        try:
            work(number)
        except OSError as error:
            failures.append(f"{work.__name__} {number}: {error}")
    return run

@guarded
def read(number):
    buffer = bytearray(mebibyte)
    descriptor = os.open(f"{mount}/read-{number}", os.O_RDONLY)
    for offset in range(0, size, mebibyte):
        expected = zeros if offset < size - mebibyte else bytes([number + 1]) * mebibyte
        if os.readv(descriptor, [buffer]) != mebibyte or buffer != expected:
            failures.append(f"reader {number}: wrong or missing bytes at {offset}")
            break
    if os.read(descriptor, 1):
        failures.append(f"reader {number}: more than {size} bytes")
    os.close(descriptor)

@guarded
def write(number):
    block = bytes([number + 1]) * mebibyte
    descriptor = os.open(f"{mount}/written-{number}", os.O_WRONLY | os.O_CREAT)
    for _ in range(size // mebibyte):
        if os.write(descriptor, block) != mebibyte:
            failures.append(f"writer {number}: a short write")
    os.close(descriptor)

threads = [threading.Thread(target=read, args=(n,)) for n in range(readers)]
threads += [threading.Thread(target=write, args=(n,)) for n in range(writers)]
"""


LOOK = """
import os, sys, threading
mount, files = sys.argv[1], int(sys.argv[2])

def look(first, step):
    for number in range(first, files, step):
        if os.stat(f"{mount}/{number % 2}/{number:06}.jpg").st_size != 7:
            os._exit(3)

os.listdir(f"{mount}/0")
threads = [threading.Thread(target=look, args=(n, 4)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


MIXED = """
import errno, sys, threading
mount, pairs = sys.argv[1], int(sys.argv[2])
failures, refused = [], []

def read(number):
    with open(f"{mount}/{number}", "rb") as file:
        return len(file.read()) == 150_000

def write(number):
    with open(f"{mount}/written-{number}", "wb", buffering=0) as file:
        return all(file.write(bytes([number]) * (1 << 20)) == 1 << 20 for _ in range(3))

def run(work, number):
    try:
        if not work(number):
            failures.append(f"{work.__name__} {number} fell short")
    except OSError as error:  # for want of memory or time some may be refused; what must not be is that most are
        refused.append(f"{work.__name__} {number}: {error}")
        if len(refused) == pairs or error.errno not in (errno.ENOMEM, errno.ETIMEDOUT):
            failures.extend(refused)

threads = [threading.Thread(target=run, args=(work, n)) for n in range(pairs) for work in (read, write)]
"""


class Outcome(NamedTuple):
    """Of a program and of the sidecar that served it."""

    program: subprocess.CompletedProcess
    started: VolumeCondition
    ended: VolumeCondition
    memory: dict
    log: str

    def require_no_kill(self, limit):
        said = f"{self.program.stdout}{self.program.stderr}"
        assert self.program.returncode == 0, f"{said}; {self.memory}; {self.log}"
        assert not self.ended.abnormal, f"{self.ended.message}; {self.memory}; {self.log}"
        assert self.ended.sidecar_pid == self.started.sidecar_pid
        assert self.ended.memory_limit == limit
        assert self.memory["oom_kills"] == 0
        assert self.memory["peak"] < limit, self.memory


def run_on_a_volume(tmp_path, emulator, limit, text, *arguments, session=OWN, timeout):
    """Run a program in Python, given the volume and `arguments`, with a sidecar that may have `limit`."""
    attributes = {
        "bucket": emulator.bucket,
        "url": emulator.endpoint,
        "path": "/data/",
        "fs.jindo.fuse.pod.mem.limit": limit,
    }
    secret = {"akId": emulator.access_key_id, "akSecret": emulator.access_key_secret}
    with running_node(tmp_path) as node:
        plugin = node.start(launcher=node.real(session=session))
        spec = parse_volume(attributes, cpu_count=2).spec
        plugin.publish(PublishRequest("pv-memory", node.target, spec, False, None, secret), DEADLINE)
        started = plugin.condition("pv-memory", node.target)
        command = [sys.executable, "-c", text, str(node.target), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        ended = plugin.condition("pv-memory", node.target)
        (cgroup,) = node.cgroups()
        memory = memory_history(cgroup)
        plugin.unpublish("pv-memory", node.target)
        return Outcome(done, started, ended, memory, node.log()[-4000:])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("session", SESSIONS)
def test_names_that_programs_look_at_do_not_take_all_memory(tmp_path, emulator, session):
    files = 120_000
    for half in range(2):
        emulator.seed(f"data/{half}/{{n:06}}.jpg", count=files, size=7)
    outcome = run_on_a_volume(tmp_path, emulator, "128Mi", LOOK, files, session=session, timeout=250)
    outcome.require_no_kill(128 * MIB)


@pytest.mark.timeout(300)
def test_what_hundreds_of_programs_write_at_once_does_not_take_all_memory(tmp_path, emulator):
    """Most wait for memory, each in a write(2) of a mebibyte."""
    emulator.seed("data/{n}", count=200, size=150_000)
    outcome = run_on_a_volume(tmp_path, emulator, "128Mi", MIXED + RUN, 200, timeout=250)
    outcome.require_no_kill(128 * MIB)


def crc64_of_repeated(byte, size):
    """CRC64 of `size` (a power of two, at least 1 MiB) equal bytes."""
    checksum, length = Crc64(crc64(bytes([byte]) * MIB)), MIB
    while length < size:
        checksum, length = combine(checksum, checksum, length), length * 2
    return checksum


@pytest.mark.timeout(600)
def test_readers_and_writers_of_large_files_stay_under_a_small_limit(tmp_path, emulator):
    free = shutil.disk_usage(tmp_path).free
    assert free > 10 * GIB, f"{free >> 30} GiB free at {tmp_path}: 10 GiB are needed for parts and objects"
    bucket = oss2.Bucket(
        oss2.Auth(emulator.access_key_id, emulator.access_key_secret),
        emulator.endpoint,
        emulator.bucket,
        is_path_style=True,
    )
    for number in range(READERS):
        emulator.seed(f"data/read-{number}", size=GIB - MIB, type="Appendable")
        bucket.append_object(f"data/read-{number}", GIB - MIB, bytes([number + 1]) * MIB)
    outcome = run_on_a_volume(tmp_path, emulator, "256Mi", LOAD + RUN, READERS, WRITERS, GIB, timeout=500)
    outcome.require_no_kill(256 * MIB)
    assert outcome.memory["met_limit"] == 0, outcome.memory
    heads = [bucket.head_object(f"data/written-{number}") for number in range(WRITERS)]
    assert [head.content_length for head in heads] == [GIB] * WRITERS
    expected = [int(crc64_of_repeated(number + 1, GIB)) for number in range(WRITERS)]
    assert [head.server_crc for head in heads] == expected


def memory_history(cgroup):
    """What the kernel counted since the cgroup was made: peak bytes, processes killed, how often the limit was met."""
    if (cgroup / "memory.oom_control").exists():  # version 1
        kills = dict(line.split() for line in (cgroup / "memory.oom_control").read_text().splitlines())
        peak, met = ((cgroup / name).read_text() for name in ("memory.max_usage_in_bytes", "memory.failcnt"))
        return {"peak": int(peak), "oom_kills": int(kills["oom_kill"]), "met_limit": int(met)}
    events = dict(line.split() for line in (cgroup / "memory.events").read_text().splitlines())
    peak = int((cgroup / "memory.peak").read_text())
    return {"peak": peak, "oom_kills": int(events["oom_kill"]), "met_limit": int(events["max"])}
