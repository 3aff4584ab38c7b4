"""ListMultipartUploads and ListParts, as the client reads the emulator's answers."""

from __future__ import annotations

import time

from csi.oss.client import OssClient
from csi.oss.credentials import Credentials, StaticCredentials
from csi.volume.spec import HttpOptions, Location, WriteOptions
from csi.volume.units import KIB, ObjectKey
from tests.support.emulator import RunningEmulator

KEY = ObjectKey("models/a b+ü&<x>.pt")


def client_of(emulator: RunningEmulator) -> OssClient:
    location = Location(emulator.bucket, emulator.endpoint, region=emulator.region, path_style=True)
    credentials = StaticCredentials(Credentials(emulator.access_key_id, emulator.access_key_secret))
    return OssClient(location, HttpOptions(), WriteOptions(), credentials)


def test_only_uploads_of_exactly_this_key_are_told(emulator: RunningEmulator) -> None:
    client = client_of(emulator)
    assert list(client.pending_uploads(KEY)) == []
    ours = {client.initiate_multipart(KEY), client.initiate_multipart(KEY)}
    client.initiate_multipart(ObjectKey(f"{KEY}.2"))
    found = client.pending_uploads(KEY)
    assert {upload.upload_id for upload in found} == ours
    assert all(abs(upload.initiated - time.time()) < 600 for upload in found)
    client.close()


def test_the_newest_part_is_told(emulator: RunningEmulator) -> None:
    client = client_of(emulator)
    upload = client.initiate_multipart(KEY)
    assert client.newest_part(KEY, upload) == 0.0
    for number in (1, 2):
        client.upload_part(KEY, upload, number, [bytes(100 * KIB)])
    assert abs(client.newest_part(KEY, upload) - time.time()) < 600
    client.abort_multipart(KEY, upload)
    client.close()
