"""The whole product on one machine: node plugin, real sidecar, OSS server. What a sidecar does as nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import oss2
import pytest

from csi.handover.types import PublishRequest
from csi.volume.parse import parse_volume
from tests.support.emulator import RunningEmulator
from tests.support.engines import until
from tests.support.node import DEADLINE, Node


def request_for(node: Node, emulator: RunningEmulator, **attributes: str) -> PublishRequest:
    given = {"bucket": emulator.bucket, "url": emulator.endpoint, "path": "/data/", **attributes}
    spec = parse_volume(given, cpu_count=2).spec
    secret = {"akId": emulator.access_key_id, "akSecret": emulator.access_key_secret}
    return PublishRequest("pv-real", node.target, spec, False, None, secret)


def bucket_of(emulator: RunningEmulator) -> oss2.Bucket:
    auth = oss2.Auth(emulator.access_key_id, emulator.access_key_secret)
    return oss2.Bucket(auth, emulator.endpoint, emulator.bucket, is_path_style=True)


@pytest.fixture
def volume(node, emulator):
    plugin = node.start(launcher=node.real())
    request = request_for(node, emulator)
    plugin.publish(request, DEADLINE)
    yield plugin, request
    plugin.unpublish(request.volume_id, node.target)
    assert "Traceback" not in node.log()
    assert emulator.access_key_secret not in node.log()


def test_files_written_through_the_mount_are_objects_and_the_other_way_round(node, emulator, volume):
    (node.target / "made").mkdir()
    (node.target / "made" / "here.txt").write_text("through the mount")
    bucket_of(emulator).put_object("data/there.txt", b"by another client")
    assert bucket_of(emulator).get_object("data/made/here.txt").read() == b"through the mount"
    assert (node.target / "there.txt").read_text() == "by another client"


def test_new_credentials_are_used_without_a_remount(node, emulator):
    plugin = node.start(launcher=node.real())
    lasting = request_for(node, emulator)
    plugin.publish(replace(lasting, credentials=emulator.issue_token().pairs()), DEADLINE)
    (node.target / "one.txt").write_text("1")
    pid = plugin.condition(lasting.volume_id, node.target).sidecar_pid
    plugin.publish(lasting, DEADLINE)
    emulator.expire_tokens()
    (node.target / "two.txt").write_text("2")
    assert bucket_of(emulator).get_object("data/two.txt").read() == b"2"
    assert plugin.condition(lasting.volume_id, node.target).sidecar_pid == pid
    plugin.unpublish(lasting.volume_id, node.target)


def test_programs_wait_for_credentials_that_are_renewed_late(node, emulator):
    plugin = node.start(launcher=node.real())
    lasting = request_for(node, emulator, **{"fs.oss.blocklet.size.mb": "1", "fs.jindo.args": "-odirect_io"})
    content = os.urandom(3 << 20)
    bucket_of(emulator).put_object("data/there.bin", content)
    plugin.publish(replace(lasting, credentials=emulator.issue_token().pairs()), DEADLINE)
    with (node.target / "made.bin").open("wb") as writing, (node.target / "there.bin").open("rb") as reading:
        emulator.expire_tokens()
        with ThreadPoolExecutor(2) as pool:
            written, read = pool.submit(writing.write, content), pool.submit(reading.read)
            for operation in ("UploadPart,InitiateMultipartUpload", "GetObject"):
                until(lambda names=operation: refused(emulator, names))
            plugin.publish(lasting, DEADLINE)
            assert written.result(30) == len(content)
            assert read.result(30) == content
    assert bucket_of(emulator).get_object("data/made.bin").read() == content
    plugin.unpublish(lasting.volume_id, node.target)


def refused(emulator: RunningEmulator, operations: str) -> bool:
    return any(entry["status"] == 403 for name in operations.split(",") for entry in emulator.requests(name))


def test_a_file_that_is_being_written_is_whole_after_sigterm(node, emulator):
    plugin = node.start(launcher=node.real())
    request = request_for(node, emulator)
    plugin.publish(request, DEADLINE)
    program = (
        "import sys; file = open(sys.argv[1], 'wb'); file.write(b'x' * 3_000_000); file.flush();"
        "print('written', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(node.target / "open.bin")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout.readline() == b"written\n"
    plugin.unpublish(request.volume_id, node.target)  # in use: the sidecar is asked to finish and leave
    assert bucket_of(emulator).head_object("data/open.bin").content_length == 3_000_000
    writer.kill()
    writer.wait()
    for stream in (writer.stdin, writer.stdout):
        stream.close()


def test_a_sidecar_starts_without_libraries_it_must_not_load():
    program = (
        "import sys; import csi.sidecar.main; import csi.sidecar.assemble\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'grpc', 'kubernetes', 'aiohttp', 'click', 'rich', 'oss2', 'google', 'requests', 'asyncio', 'yaml', 'http', "
        "'ssl'}))"
    )
    root = Path(__file__).resolve().parents[3]
    found = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
