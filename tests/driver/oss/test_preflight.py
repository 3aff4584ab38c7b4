import pytest

from csi import errors
from csi.oss.credentials import Credentials, FileCredentials, StaticCredentials
from csi.oss.preflight import preflight
from tests.support.raw_server import answering, ok, raw_server


def test_a_volume_that_can_be_served_passes_with_one_request(make_client, emulator):
    emulator.seed("data/x", b"1")

    preflight(make_client(prefix="data/"))

    assert emulator.counters()["requests"] == 1


def test_an_empty_prefix_passes(make_client):
    preflight(make_client(prefix="nothing/here/"))


def test_a_bucket_that_does_not_exist_is_named(make_client, emulator):
    with pytest.raises(errors.BucketNotFound) as failure:
        preflight(make_client(bucket="no-such-bucket-here"))

    assert "check bucket no-such-bucket-here and endpoint " + emulator.endpoint in str(failure.value)


def test_a_wrong_secret_is_named_by_its_key_but_not_shown(make_client, emulator):
    wrong = StaticCredentials(Credentials(emulator.access_key_id, "not-the-secret"))

    with pytest.raises(errors.AuthenticationFailed) as failure:
        preflight(make_client(credentials=wrong, prefix="data/"))

    text = str(failure.value)
    assert f"access key …{emulator.access_key_id[-4:]}" in text
    assert "prefix 'data/'" in text
    assert "AccessKeySecret" in text
    assert emulator.access_key_id not in text
    assert "not-the-secret" not in text


def test_missing_rights_are_named(make_client, emulator):
    emulator.fault(operation="ListObjectsV2", status=403, code="AccessDenied")

    with pytest.raises(errors.PermissionDenied, match="grant oss:ListObjects on oss://"):
        preflight(make_client())


def test_an_endpoint_where_nobody_listens_is_named(make_client):
    with raw_server(answering(ok())) as server:
        url = server.url

    with pytest.raises(errors.EndpointUnreachable, match=url):
        preflight(make_client(endpoint=url))


def test_a_server_that_is_not_oss_is_told(make_client):
    page = b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nLocation: https://login.example\r\n\r\n"
    with raw_server(answering(page)) as server, pytest.raises(errors.RequestRejected, match="OSS endpoint"):
        preflight(make_client(endpoint=server.url))


def test_credentials_that_are_not_there_are_told(make_client, tmp_path):
    with pytest.raises(errors.CredentialsMissing, match="absent"):
        preflight(make_client(credentials=FileCredentials(tmp_path / "absent")))


def test_a_passing_error_is_tried_again_once(make_client, emulator):
    emulator.fault(operation="ListObjectsV2", status=503, count=1)

    preflight(make_client())

    assert emulator.count("ListObjectsV2") == 2
