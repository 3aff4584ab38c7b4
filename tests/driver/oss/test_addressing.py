import pytest

from csi.oss.client import OssClient
from csi.oss.credentials import Credentials, StaticCredentials
from csi.volume.spec import HttpOptions, Location, WriteOptions
from tests.support.emulator import start_emulator


@pytest.mark.parametrize("signature_version", [1, 4])
def test_the_bucket_may_be_in_the_name_of_the_host(tmp_path, signature_version):
    # libcurl takes every name under .localhost for this machine
    with start_emulator(tmp_path, arguments=("--domain", "localhost")) as emulator:
        client = OssClient(
            Location(emulator.bucket, f"http://localhost:{emulator.port}", region=emulator.region),
            HttpOptions(signature_version=signature_version),
            WriteOptions(),
            StaticCredentials(Credentials(emulator.access_key_id, emulator.access_key_secret)),
        )

        client.put("dir/k +?é", [b"x"])

        assert [o.key for o in client.list_page("dir/").objects] == ["dir/k +?é"]
        client.close()
