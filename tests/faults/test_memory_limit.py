"""A sidecar limited to 256Mi serves 32 readers and 4 writers of 1 GiB files at once and is not killed for memory."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from csi.handover.types import PublishRequest
from csi.volume.parse import parse_volume
from csi.volume.units import MIB
from tests.support.node import DEADLINE, running_node

READERS = 32
WRITERS = 4
GIB = 1024 * MIB

# in another process: a hung mount must not hang the test, and the reading must not share its GIL with anything
LOAD = """
import os, sys, threading
mount, readers, writers, size, share = sys.argv[1], *map(int, sys.argv[2:])
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
    with open(f"{mount}/big.bin", "rb", buffering=0) as file:
        file.seek(number * share % size)
        left = share
        while left:
            data = file.read(min(1 << 20, left))
            if not data or data.count(0) != len(data):
                failures.append(f"reader {number}: wrong or missing bytes with {left} left")
                return
            left -= len(data)

@guarded
def write(number):
    block = bytes(1 << 20)
    with open(f"{mount}/written-{number}", "wb", buffering=0) as file:
        for _ in range(size >> 20):
            file.write(block)

threads = [threading.Thread(target=read, args=(n,)) for n in range(readers)]
threads += [threading.Thread(target=write, args=(n,)) for n in range(writers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\\n".join(failures))
sys.exit(bool(failures))
"""


@pytest.mark.timeout(240)
def test_readers_and_writers_of_large_files_stay_under_a_small_limit(tmp_path, emulator):
    free = shutil.disk_usage(tmp_path).free
    assert free > 6 * GIB, f"{free >> 30} GiB free at {tmp_path}: 6 GiB are needed for the objects"
    emulator.seed("data/big.bin", size=GIB)
    attributes = {
        "bucket": emulator.bucket,
        "url": emulator.endpoint,
        "path": "/data/",
        "fs.jindo.fuse.pod.mem.limit": "256Mi",
    }
    secret = {"akId": emulator.access_key_id, "akSecret": emulator.access_key_secret}
    with running_node(tmp_path) as node:
        plugin = node.start(launcher=node.real())
        spec = parse_volume(attributes, cpu_count=2).spec
        plugin.publish(PublishRequest("pv-memory", node.target, spec, False, None, secret), DEADLINE)
        share = GIB // READERS  # together the readers read the whole file, each a part of its own
        command = [sys.executable, "-c", LOAD, str(node.target), *map(str, (READERS, WRITERS, GIB, share))]
        load = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        condition = plugin.condition("pv-memory", node.target)
        (cgroup,) = node.cgroups()
        events = (cgroup / "memory.oom_control").read_text() if (cgroup / "memory.oom_control").exists() else ""
        assert not condition.abnormal, f"{condition.message}; {events}; {node.log()[-2000:]}"
        sizes = [(node.target / f"written-{number}").stat().st_size for number in range(WRITERS)]
        plugin.unpublish("pv-memory", node.target)
    assert load.returncode == 0, load.stdout + load.stderr
    assert condition.memory_limit == 256 * MIB
    assert "oom_kill 0" in events or not events
    assert sizes == [GIB] * WRITERS
