from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from csi.oss.client import OssClient
from csi.oss.credentials import Credentials, CredentialsProvider, StaticCredentials
from csi.volume.spec import HttpOptions, Location, WriteOptions
from tests.support.emulator import RunningEmulator

QUICK = HttpOptions(retry_interval=0.01)

MakeClient = Callable[..., OssClient]


@pytest.fixture
def make_client(emulator: RunningEmulator) -> Iterator[MakeClient]:
    """Makes clients of the test's bucket; keyword arguments replace single parts of the default one."""
    made: list[OssClient] = []

    def make(
        *,
        http: HttpOptions = QUICK,
        write: WriteOptions | None = None,
        credentials: CredentialsProvider | None = None,
        sleep: Callable[[float], object] | None = None,
        **location: object,
    ) -> OssClient:
        where = {"bucket": emulator.bucket, "endpoint": emulator.endpoint, "region": emulator.region, **location}
        client = OssClient(
            Location(**{"path_style": True, **where}),
            http,
            write or WriteOptions(),
            credentials or StaticCredentials(Credentials(emulator.access_key_id, emulator.access_key_secret)),
            sleep=sleep,
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> OssClient:
    return make_client()
