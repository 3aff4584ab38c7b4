import logging
import subprocess
import sys

import pytest

from csi import errors
from csi.oss.credentials import Credentials, StaticCredentials
from csi.oss.rare import BucketAdministration
from csi.volume.spec import HttpOptions, Location
from tests.support.raw_server import answering, ok, raw_server


@pytest.fixture(params=[1, 4])
def http(request):
    return HttpOptions(signature_version=request.param)


@pytest.fixture
def make(emulator, http):
    def make(*, secret="", **location):
        where = {"bucket": emulator.bucket, "endpoint": emulator.endpoint, "region": emulator.region, **location}
        key = Credentials(emulator.access_key_id, secret or emulator.access_key_secret)
        return BucketAdministration(Location(**{"path_style": True, **where}), http, StaticCredentials(key))

    return make


def test_a_bucket_describes_itself(make, emulator):
    administration = make()

    info = administration.info()

    assert info.name == emulator.bucket
    assert info.created > 0
    assert administration.acl() == info.acl == "private"
    assert administration.region() == info.location


def test_a_bucket_counts_what_it_holds(make, emulator):
    emulator.seed("a/{n}", b"12345", count=4)

    stat = make().stat()

    assert (stat.objects, stat.stored) == (4, 20)


def test_uploads_left_behind_are_found_and_aborted(make, client):
    ids = {client.initiate_multipart(f"dir/{n} +") for n in range(3)}
    client.initiate_multipart("elsewhere")
    administration = make()

    found = list(administration.pending_uploads("dir/"))
    aborted = administration.abort_uploads("dir/", older_than=0.0)

    assert {upload.upload_id for upload in found} == ids
    assert {upload.key for upload in found} == {"dir/0 +", "dir/1 +", "dir/2 +"}
    assert aborted == 3
    assert [upload.key for upload in administration.pending_uploads()] == ["elsewhere"]


def test_uploads_that_are_young_stay(make, client):
    client.initiate_multipart("dir/k")

    assert make().abort_uploads(older_than=3600.0) == 0


def test_refusals_are_ours(make):
    with pytest.raises(errors.BucketNotFound, match="no-such-bucket-here"):
        make(bucket="no-such-bucket-here").info()
    with pytest.raises(errors.AuthenticationFailed, match="SignatureDoesNotMatch"):
        make(secret="wrong").info()


def test_silence_is_ours(make):
    with raw_server(answering(ok())) as server:
        url = server.url

    with pytest.raises(errors.EndpointUnreachable, match=url):
        make(endpoint=url).info()


def test_an_answer_that_is_not_oss_is_ours(make):
    with raw_server(answering(ok(b"<html>not xml"))) as server:
        with pytest.raises(errors.RequestRejected, match="OSS endpoint"):
            make(endpoint=server.url).info()


def test_a_security_token_is_not_logged(make, emulator, http, caplog):
    token = emulator.issue_token()
    credentials = StaticCredentials(Credentials(token.access_key_id, token.access_key_secret, token.security_token))
    location = Location(emulator.bucket, emulator.endpoint, region=emulator.region, path_style=True)

    with caplog.at_level(logging.DEBUG):
        BucketAdministration(location, http, credentials).acl()

    assert token.security_token not in caplog.text
    assert token.access_key_secret not in caplog.text


def test_the_client_loads_neither_oss2_nor_requests():
    program = (
        "import sys; import csi.oss.client, csi.oss.preflight; "
        "print(*sorted({'oss2', 'requests', 'aiohttp', 'grpc', 'asyncio'} & set(sys.modules)))"
    )

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == ""
