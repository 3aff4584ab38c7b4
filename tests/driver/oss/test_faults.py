"""Each fault the emulator knows, and what the client makes of it."""

import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from csi import errors
from csi.oss.checksum import crc64_of
from csi.oss.credentials import Credentials, FileCredentials, StaticCredentials
from csi.volume.spec import HttpOptions, WriteOptions
from tests.support.engines import until
from tests.support.raw_server import raw_server, read_request

CONTENT = os.urandom(400_000)


def read(client, key="k"):
    target = memoryview(bytearray(1 << 20))
    _, size = client.read_whole(key, target)
    return bytes(target[:size])


@pytest.fixture
def stored(client):
    client.put("k", [CONTENT])
    return client


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "code": "InternalError"},
        {"status": 503, "code": "ServiceUnavailable"},
        {"status": 429},
        {"reset_after": 100_000},
        {"reset_after": 0},
        {"truncate_after": 399_999},
        {"drop_answer": True},
        {"corrupt_body": True},
        {"wrong_crc64": True},
        {"latency": 0.05},
    ],
    ids=lambda fault: next(iter(fault)) + str(next(iter(fault.values()))),
)
def test_a_passing_fault_of_a_read_is_not_noticed(stored, emulator, fault):
    emulator.fault(operation="GetObject", count=2, **fault)

    assert read(stored) == CONTENT


@pytest.mark.parametrize("fault", [{"reset_after": 100_000}, {"truncate_after": 399_999}, {"corrupt_body": True}])
def test_a_passing_fault_of_the_start_of_an_object_is_not_noticed(stored, emulator, fault):
    emulator.fault(operation="GetObject", count=2, **fault)
    target = memoryview(bytearray(500_000))

    _, received = stored.read_start("k", target)

    assert bytes(target[:received]) == CONTENT


@pytest.mark.parametrize("fault", [{"reset_after": 100_000}, {"truncate_after": 50_000}, {"status": 500}])
def test_a_passing_fault_of_a_range_is_not_noticed(stored, emulator, fault):
    emulator.fault(operation="GetObject", count=2, **fault)
    target = memoryview(bytearray(200_000))

    stored.read_into("k", 100_000, target)

    assert bytes(target) == CONTENT[100_000:300_000]


def test_a_range_whose_connections_always_break_is_read_piece_by_piece(stored, emulator):
    etag = stored.head("k").etag
    emulator.fault(operation="GetObject", truncate_after=50_000)
    target = memoryview(bytearray(390_000))

    stored.read_into("k", 5, target, if_match=etag)

    assert bytes(target) == CONTENT[5:390_005]
    assert emulator.count("GetObject") == 8


def test_pieces_of_two_versions_are_never_put_together(stored, make_client, emulator):
    etag = stored.head("k").etag
    emulator.fault(operation="GetObject", truncate_after=100_000, count=1)
    client = make_client(sleep=lambda _seconds: stored.put("k", [bytes(400_000)]))

    with pytest.raises(errors.PreconditionFailed):
        client.read_into("k", 0, memoryview(bytearray(300_000)), if_match=etag)

    assert emulator.count("GetObject") == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"reset_upload_after": 100_000},
        {"drop_answer": True},
        {"wrong_crc64": True},
        {"corrupt_upload": True},
        {"reset_after": 0},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_passing_fault_of_a_write_is_not_noticed(client, emulator, fault):
    emulator.fault(operation="PutObject", count=2, **fault)
    emulator.fault(operation="UploadPart", count=2, **fault)

    client.put("k", [CONTENT])
    upload_id = client.initiate_multipart("m")
    part = client.upload_part("m", upload_id, 1, [CONTENT])
    client.complete_multipart("m", upload_id, [(1, part.etag)], crc64=part.crc64)

    assert read(client, "k") == read(client, "m") == CONTENT


@pytest.mark.parametrize(
    "fault", [{"wrong_crc64": True}, {"corrupt_upload": True}], ids=lambda fault: next(iter(fault))
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_put_that_must_not_overwrite_makes_up_for_what_it_damaged(client, emulator, fault, count):
    emulator.fault(operation="PutObject", count=count, **fault)

    client.put("k", [CONTENT], forbid_overwrite=True)

    assert read(client, "k") == CONTENT


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("HeadObject", lambda c: c.head("k")),
        ("ListObjectsV2", lambda c: c.list_page("")),
        ("CopyObject", lambda c: c.copy("k", "copy", size=len(CONTENT))),
        ("DeleteObject", lambda c: c.delete("k")),
        ("DeleteMultipleObjects", lambda c: c.delete_many(["k"])),
        ("InitiateMultipartUpload", lambda c: c.initiate_multipart("k")),
        ("PutSymlink", lambda c: c.put_symlink("link", "k")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("fault", [{"status": 503}, {"drop_answer": True}], ids=lambda fault: next(iter(fault)))
def test_every_operation_survives_a_passing_fault(stored, emulator, operation, call, fault):
    emulator.fault(operation=operation, count=2, **fault)

    call(stored)

    assert emulator.count(operation) == 3


@pytest.mark.parametrize(
    ("operation", "write"),
    [
        ("PutObject", lambda c: c.put("k", [CONTENT[:7], CONTENT[7:]])),
        ("UploadPart", lambda c: c.upload_part("k", c.initiate_multipart("k"), 1, [CONTENT])),
        ("AppendObject", lambda c: c.append("log", 3, [CONTENT])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_with_md5_what_is_damaged_on_the_way_is_not_stored(make_client, emulator, operation, write):
    client = make_client(write=WriteOptions(md5=True))
    client.put("k", [b"old"])
    client.append("log", 0, [b"old"])
    emulator.fault(operation=operation, corrupt_upload=True)

    with pytest.raises(errors.ServerFailure, match="InvalidDigest") as raised:
        write(client)

    assert "damaged" in raised.value.hint
    assert read(client, "k") == read(client, "log") == b"old"
    assert emulator.count(operation) > 2
    emulator.clear_faults()
    write(client)


@pytest.mark.parametrize("lost", [1, 3])
def test_an_append_whose_answers_are_lost_is_made_once(client, emulator, lost):
    client.append("log", 0, [b"first "])
    emulator.fault(operation="AppendObject", count=lost, drop_answer=True)

    result = client.append("log", 6, [CONTENT])

    assert read(client, "log") == b"first " + CONTENT
    assert result.next_position == 6 + len(CONTENT)
    assert result.crc64 == crc64_of([b"first ", CONTENT])


def test_an_append_that_never_arrived_is_made(client, emulator):
    emulator.fault(operation="AppendObject", count=1, reset_upload_after=1000)

    client.append("log", 0, [CONTENT])

    assert read(client, "log") == CONTENT


def test_a_completion_whose_answer_is_lost_has_succeeded(client, emulator):
    upload_id = client.initiate_multipart("k")
    part = client.upload_part("k", upload_id, 1, [CONTENT])
    emulator.fault(operation="CompleteMultipartUpload", count=1, drop_answer=True)

    result = client.complete_multipart("k", upload_id, [(1, part.etag)], crc64=part.crc64)

    assert result.crc64 == part.crc64
    assert read(client) == CONTENT


def test_an_exclusive_put_whose_answer_is_lost_has_succeeded(client, emulator):
    emulator.fault(operation="PutObject", count=1, drop_answer=True)

    assert client.put("k", [CONTENT], forbid_overwrite=True).crc64 == crc64_of([CONTENT])


def test_an_exclusive_copy_whose_answer_is_lost_has_succeeded(stored, emulator):
    emulator.fault(operation="CopyObject", count=1, drop_answer=True)

    assert stored.copy("k", "copy", size=len(CONTENT), forbid_overwrite=True).crc64 == crc64_of([CONTENT])
    assert read(stored, "copy") == CONTENT


def test_an_exclusive_copy_that_is_tried_again_overwrites_nothing(stored, emulator):
    stored.put("copy", [b"theirs"])
    emulator.fault(operation="CopyObject", count=1, drop_answer=True)

    with pytest.raises(errors.ObjectExists):
        stored.copy("k", "copy", size=len(CONTENT), forbid_overwrite=True)
    assert read(stored, "copy") == b"theirs"


def test_a_lasting_corruption_is_never_handed_out_as_data(stored, emulator):
    emulator.fault(operation="GetObject", corrupt_body=True)

    with pytest.raises(errors.ChecksumMismatch, match="CRC64"):
        read(stored)


def test_a_lasting_server_error_is_told_with_its_request(stored, make_client, emulator):
    emulator.fault(operation="HeadObject", status=503, code="ServiceUnavailable")
    client = make_client(http=HttpOptions(retries=2, retry_interval=0.01))

    with pytest.raises(errors.ServerFailure) as failure:
        client.head("k")

    assert failure.value.request_id
    assert emulator.count("HeadObject") == 3


def test_a_black_hole_ends_within_the_deadline(stored, make_client, emulator):
    emulator.fault(operation="GetObject", blackhole=True)
    client = make_client(http=HttpOptions(retries=9, retry_interval=0.01, timeout=0.2, deadline=0.7))

    with pytest.raises(errors.DeadlineExceeded, match="GetObject k"):
        client.read_into("k", 0, memoryview(bytearray(10)))

    assert 1 < emulator.count("GetObject") < 9


def test_closing_the_client_ends_a_wait_for_a_black_hole(make_client):
    asked = threading.Event()
    failures = []

    def swallow(server, connection):
        read_request(server, connection)
        asked.set()
        read_request(server, connection)

    def work(client):
        try:
            read(client)
        except errors.EndpointUnreachable as error:
            failures.append(error)

    with raw_server(swallow) as server:
        client = make_client(endpoint=server.url)
        thread = threading.Thread(target=work, args=(client,))
        thread.start()
        assert asked.wait(20)
        client.close()
        thread.join(20)

        assert server.accepted == 1
    assert len(failures) == 1


def test_a_volume_without_checksums_reads_what_it_gets(stored, make_client, emulator):
    emulator.fault(operation="GetObject", wrong_crc64=True)

    assert read(make_client(write=WriteOptions(crc64=False))) == CONTENT


def renew(path, emulator):
    new = path.with_suffix(".new")
    new.write_text(json.dumps({**emulator.issue_token().pairs(), "Expiration": "2099-01-01T00:00:00Z"}))
    new.replace(path)


def test_a_token_that_expires_is_replaced_from_its_file_while_requests_go_on(make_client, emulator, tmp_path):
    path = tmp_path / "credentials"
    renew(path, emulator)
    client = make_client(credentials=FileCredentials(path, clock=lambda: 1.0))
    client.put("k", [b"before"])
    emulator.expire_tokens()
    renew(path, emulator)

    client.put("k", [b"after"])

    assert read(client) == b"after"
    refused = [entry for entry in emulator.requests("PutObject") if entry["status"] == 403]
    assert len(refused) == 1


@pytest.mark.parametrize("operation", ["PutObject", "GetObject", "HeadObject"])
def test_a_request_waits_for_a_file_that_is_renewed_late(stored, make_client, emulator, tmp_path, operation):
    path = tmp_path / "credentials"
    renew(path, emulator)
    client = make_client(credentials=FileCredentials(path), http=HttpOptions(retry_interval=0.3))
    call = {
        "PutObject": lambda: client.put("new", [CONTENT]),
        "GetObject": lambda: read(client),
        "HeadObject": lambda: client.head("k"),
    }[operation]
    emulator.expire_tokens()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(call)
        until(lambda: [entry for entry in emulator.requests(operation) if entry["status"] == 403])
        renew(path, emulator)
        done.result(30)


def test_an_expired_token_that_nobody_replaces_is_told_as_such(make_client, emulator):
    token = emulator.issue_token()
    emulator.expire_tokens()
    credentials = StaticCredentials(Credentials(token.access_key_id, token.access_key_secret, token.security_token))

    with pytest.raises(errors.AuthenticationFailed, match="SecurityToken"):
        make_client(credentials=credentials).list_page("")


def test_no_secret_appears_in_any_log_or_error(make_client, emulator, caplog):
    token = emulator.issue_token()
    secrets = [emulator.access_key_secret, token.access_key_secret, token.security_token, "wrong-secret-value"]
    emulator.fault(operation="HeadObject", count=2, status=503)
    emulator.fault(operation="GetObject", reset_after=0)
    seen = []
    with caplog.at_level(logging.DEBUG):
        for credentials in (
            Credentials(token.access_key_id, token.access_key_secret, token.security_token),
            Credentials(emulator.access_key_id, emulator.access_key_secret),
            Credentials(emulator.access_key_id, "wrong-secret-value"),
        ):
            client = make_client(
                credentials=StaticCredentials(credentials), http=HttpOptions(retries=2, retry_interval=0.01)
            )
            for call in (client.head, read_key(client), client.delete):
                try:
                    call("absent")
                except errors.StoreError as error:
                    seen.append(f"{error} {error!r} {error.__cause__!r} {vars(error)}")

    assert len(seen) >= 5
    text = caplog.text + "".join(seen)
    assert not [secret for secret in secrets if secret in text]


def read_key(client):
    return lambda key: read(client, key)
