"""The emulator as a process: memory, restarts, crashes, its log of requests and what it keeps to itself."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import oss2
import pytest
from fastcrc.crc64 import xz as crc64

from tests.driver.emulator.conftest import RawClient, eventually, make_bucket
from tests.support.emulator import RunningEmulator, start_emulator

MIB = 1 << 20
GIB = 1 << 30
HALF = GIB // 2


def peak_memory(running: RunningEmulator) -> int:
    """The most resident memory the process ever had, in bytes."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


# --- streaming ---


def test_memory_stays_small_while_large_bodies_go_through(tmp_path: Path) -> None:
    with start_emulator(tmp_path / "data") as running:
        running.seed("huge", size=10 * GIB)
        bucket = make_bucket(running, "V1")
        before = peak_memory(running)
        block = bytes(MIB)

        url = bucket.sign_url("PUT", "up", 600, headers={"Content-Type": "application/octet-stream"})
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
        headers = {"Content-Length": str(HALF), "Content-Type": "application/octet-stream"}
        target = url.removeprefix(running.endpoint)
        connection.request("PUT", target, (block for _ in range(HALF // MIB)), headers, encode_chunked=False)
        assert connection.getresponse().read() == b""
        down = bucket.get_object("huge", byte_range=(10 * GIB - HALF, 10 * GIB - 1))
        received = sum(len(piece) for piece in iter(lambda: down.resp.response.raw.read(MIB), b""))
        connection.close()

        assert received == HALF
        assert bucket.head_object("up").content_length == HALF
        assert peak_memory(running) - before < 48 * MIB


def test_a_replaced_or_deleted_object_is_still_sent_whole_to_who_began_to_read_it(
    emulator: RunningEmulator, raw: RawClient
) -> None:
    bucket = make_bucket(emulator, "V4")
    old = bytes(i % 249 for i in range(MIB)) * 32
    bucket.put_object("k", old)
    reading = bucket.get_object("k")
    first = reading.resp.response.raw.read(1000)

    bucket.put_object("k", b"new")
    bucket.delete_object("k")
    rest = reading.resp.response.raw.read()

    assert first + rest == old
    assert raw("GET", "k").status == 404


def test_concurrent_appends_never_mix(emulator: RunningEmulator) -> None:
    winners: list[int] = []
    start = threading.Barrier(4)

    def add(number: int) -> None:
        bucket = make_bucket(emulator, "V4")
        start.wait(timeout=20)
        try:
            bucket.append_object("log", 0, bytes([number]) * 2 * MIB)
            winners.append(number)
        except oss2.exceptions.PositionNotEqualToLength:
            pass

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert len(winners) == 1
    data = make_bucket(emulator, "V4").get_object("log").read()
    assert data == bytes([winners[0]]) * 2 * MIB


# --- restarts ---


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    keys = {"LTAItest": "secret-of-the-test"}
    with start_emulator(tmp_path / "data", access_keys=keys) as running:
        bucket = make_bucket(running, "V4")
        bucket.put_object("small", b"x")
        bucket.put_object("large", b"y" * MIB, headers={"x-oss-meta-a": "1"})
        bucket.append_object("log", 0, b"abc")
        upload = bucket.init_multipart_upload("parts").upload_id
        etag = bucket.upload_part("parts", upload, 1, b"z" * MIB).etag
        token = running.issue_token()

    with start_emulator(tmp_path / "data", access_keys=keys) as running:
        bucket = make_bucket(running, "V4")
        sts = oss2.StsAuth(token.access_key_id, token.access_key_secret, token.security_token)
        assert oss2.Bucket(sts, running.endpoint, running.bucket).get_object("small").read() == b"x"
        assert bucket.get_object("large").read() == b"y" * MIB
        assert bucket.head_object("large").headers["x-oss-meta-a"] == "1"
        assert bucket.append_object("log", 3, b"def").next_position == 6
        bucket.complete_multipart_upload("parts", upload, [oss2.models.PartInfo(1, etag)])
        assert bucket.get_object("parts").read() == b"z" * MIB


def test_a_killed_server_comes_back_with_whole_objects_and_no_rubbish(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with start_emulator(data) as running:
        bucket = make_bucket(running, "V4")
        bucket.put_object("kept", b"y" * MIB)
        bucket.append_object("log", 0, b"a" * MIB)
        under_way = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        url = bucket.sign_url("PUT", "half", 600)
        under_way.putrequest("PUT", url.removeprefix(running.endpoint))
        under_way.putheader("Content-Length", str(8 * MIB))
        under_way.endheaders(b"h" * 4 * MIB)
        eventually(lambda: len(body_files(data)) == 3)
        running.kill()
        under_way.close()

    with start_emulator(data) as running:
        bucket = make_bucket(running, "V4", secret=running.access_key_secret)
        assert [found.key for found in oss2.ObjectIteratorV2(bucket)] == ["kept", "log"]
        assert bucket.get_object("kept").read() == b"y" * MIB
        assert bucket.append_object("log", MIB, b"b").next_position == MIB + 1
        assert len(body_files(data)) == 2


def body_files(data: Path) -> list[Path]:
    return [path for path in (data / "bodies").glob("*/*") if path.is_file()]


def test_bodies_of_deleted_and_replaced_objects_leave_the_disk(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with start_emulator(data) as running:
        bucket = make_bucket(running, "V4")
        bucket.put_object("k", b"1" * MIB)
        bucket.put_object("k", b"2" * MIB)
        upload = bucket.init_multipart_upload("k").upload_id
        parts = [oss2.models.PartInfo(n, bucket.upload_part("k", upload, n, b"x" * 200_000).etag) for n in (1, 2, 3)]
        bucket.complete_multipart_upload("k", upload, parts[:2])
        eventually(lambda: len(body_files(data)) == 2)
        bucket.copy_object(bucket.bucket_name, "k", "copy")
        bucket.delete_object("k")
        assert bucket.get_object("copy").read() == b"x" * 400_000
        bucket.batch_delete_objects(["copy"])
        eventually(lambda: not body_files(data))


def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with start_emulator(tmp_path / "data"):
        command = [sys.executable, "-m", "csi.emulator", "--data", str(tmp_path / "data"), "--port", "0"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert second.returncode == 1
    assert "in use by another emulator" in second.stderr


def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    with start_emulator(tmp_path / "one") as running:
        command = [sys.executable, "-m", "csi.emulator", "--data", str(tmp_path / "two"), "--port", str(running.port)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{running.port}" in second.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_while_a_request_hangs(tmp_path: Path, number: signal.Signals) -> None:
    with start_emulator(tmp_path / "data") as running:
        running.fault(blackhole=True)
        hanging = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        hanging.request("GET", f"/{running.bucket}/k")

        running.process.send_signal(number)

        assert running.process.wait(timeout=20) == 0
        hanging.close()


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    with start_emulator(tmp_path / "data") as running:
        assert running.process.stdin is not None
        running.process.stdin.close()

        assert running.process.wait(timeout=20) == 0


# --- listings that must be quick ---


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEmulator]:
    with start_emulator(tmp_path_factory.mktemp("crowded")) as running:
        running.seed("deep/{n:06d}", count=20_000)
        running.seed("wide/{n:05d}/file", count=5_000)
        yield running


def test_every_key_and_group_is_listed_once(crowded: RunningEmulator) -> None:
    bucket = make_bucket(crowded, "V4")

    keys = [found.key for found in oss2.ObjectIteratorV2(bucket, prefix="deep/0", max_keys=1000)]
    groups = [found.key for found in oss2.ObjectIteratorV2(bucket, prefix="wide/", delimiter="/", max_keys=700)]

    assert keys == [f"deep/{n:06d}" for n in range(20_000)]
    assert groups == [f"wide/{n:05d}/" for n in range(5_000)]


# --- admin ---


def test_counters_tell_requests_bytes_and_concurrency(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", b"x" * 100)
    raw("GET", "k")
    raw("GET", "missing")
    raw("PUT", "up", body=b"y" * 50)

    counters = emulator.counters()

    assert counters["requests"] == 3
    assert counters["operations"]["GetObject"]["by_status"] == {"200": 1, "404": 1}
    assert counters["operations"]["PutObject"]["bytes_in"] == 50
    assert counters["operations"]["GetObject"]["bytes_out"] > 100
    assert counters["connections"] == 3


def test_the_log_keeps_no_signature(emulator: RunningEmulator) -> None:
    bucket = make_bucket(emulator, "V4")
    url = bucket.sign_url("GET", "k", 60)
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=20)
    connection.request("GET", url.removeprefix(emulator.endpoint))
    connection.getresponse().read()
    connection.close()

    (entry,) = emulator.requests("GetObject")

    assert entry["caller"] == emulator.access_key_id
    assert "x-oss-expires=60" in entry["query"]
    assert "signature=" not in entry["query"]


@pytest.mark.parametrize(
    "line",
    [b"not json", b'{"bucket": "B", "key": "k", "colour": 1}', b'{"bucket": "B", "key": "same", "count": 2}'],
)
def test_a_bad_seed_is_refused(emulator: RunningEmulator, line: bytes) -> None:
    with pytest.raises(AssertionError, match="400"):
        emulator.admin("POST", "/seed", line.replace(b"B", emulator.bucket.encode()))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"size": -3}, "size is"),
        ({"size": "many"}, "size is"),
        ({"size": 10**30}, "size is"),
        ({"count": 0}, "count is"),
        ({"count": -1}, "count is"),
        ({"count": True}, "count is"),
        ({"modified": "yesterday"}, "modified is"),
        ({"modified": 10**15}, "modified is"),
        ({"content": 7}, "content is"),
        ({"content_base64": "*"}, "content_base64 is"),
        ({"user": "a=1"}, "user is"),
        ({"headers": {"Content-Type": 7}}, "headers is"),
        ({"tags": {"a": "1"}}, "tags is"),
        ({"type": ["Normal"]}, "Unknown type or storage class"),
        ({"type": "Symlink"}, "A Symlink needs a target"),
        ({"etag": 7}, "etag is"),
        ({"key": 7}, "key is"),
    ],
)
def test_a_seed_that_means_nothing_is_refused(emulator: RunningEmulator, setting: dict[str, object], said: str) -> None:
    with pytest.raises(AssertionError, match=rf"(?s) 400 .*{said}"):
        emulator.seed_many([{"key": "k", **setting}])


@pytest.mark.parametrize("line", [b"[]", b"7", b"[" * 100_000])
def test_a_line_that_is_no_object_is_refused(emulator: RunningEmulator, line: bytes) -> None:
    with pytest.raises(AssertionError, match="400"):
        emulator.admin("POST", "/seed", line)


@pytest.mark.parametrize("seconds", ["long", None, float("nan"), [1]])
def test_a_token_lives_for_a_number_of_seconds(emulator: RunningEmulator, seconds: object) -> None:
    with pytest.raises(AssertionError, match=r"(?s) 400 .*seconds is"):
        emulator.admin("POST", "/tokens", {"seconds": seconds})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "no-such-host.invalid"), "give a name or address of this machine as --host"),
        (("--host", "192.0.2.1"), "give a name or address of this machine as --host"),
        (("--admin-path", "x"), "--admin-path 'x' is no path: it begins with '/' and does not end with it; write /x"),
        (("--admin-path", "/"), "--admin-path '/' is no path"),
        (("--sts-path", "/sts/"), "--sts-path '/sts/' is no path"),
        (("--admin-path", "/sts"), "--admin-path and --sts-path are both '/sts'"),
    ],
)
def test_a_place_where_nobody_would_find_it_is_said_so(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "csi.emulator", "--data", str(tmp_path), "--port", "0", *arguments]
    started = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert started.returncode == 1
    assert said in started.stderr
    assert "Traceback" not in started.stderr


def test_seeded_objects_have_what_was_asked_for(emulator: RunningEmulator) -> None:
    emulator.seed(
        "k", b"x" * 9000, etag="ABC", modified=1_500_000_000, type="Multipart", storage_class="IA", user={"a": "1"}
    )
    emulator.seed("zeros", size=3 * MIB + 7)
    bucket = make_bucket(emulator, "V4")

    head = bucket.head_object("k")

    assert (head.etag, head.last_modified, head.object_type) == ("ABC", 1_500_000_000, "Multipart")
    assert (head.headers["x-oss-storage-class"], head.headers["x-oss-meta-a"]) == ("IA", "1")
    assert bucket.get_object("k").read() == b"x" * 9000
    zeros = bucket.get_object("zeros")
    assert zeros.read() == bytes(3 * MIB + 7)
    assert zeros.server_crc == crc64(bytes(3 * MIB + 7))


def test_seeding_again_replaces(emulator: RunningEmulator) -> None:
    emulator.seed("k{n}", b"first" * 2000, count=3)
    emulator.seed("k{n}", b"second", count=3)

    assert make_bucket(emulator, "V4").get_object("k2").read() == b"second"


def test_an_unknown_admin_call_lists_the_known_ones(emulator: RunningEmulator) -> None:
    with pytest.raises(AssertionError, match="GET /counters"):
        emulator.admin("GET", "/nonsense")
