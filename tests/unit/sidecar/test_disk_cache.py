"""Which cache a sidecar opens, and with whom it shares what is in it."""

from dataclasses import replace

import pytest

from csi.errors import CredentialsMissing
from csi.oss.credentials import AnonymousCredentials, Credentials, CredentialsProvider, StaticCredentials
from csi.sidecar.disk_cache import disk_cache_of, identity_of
from csi.volume.spec import AuthType, CacheOptions, CredentialOptions, Location, VolumeSpec

PLAIN = VolumeSpec(Location("bkt", "https://oss-cn-hangzhou.aliyuncs.com"))
KEY = StaticCredentials(Credentials("LTAI-one", "secret"))
OTHER_KEY = StaticCredentials(Credentials("LTAI-two", "secret"))
TEMPORARY = StaticCredentials(Credentials("STS.one", "secret", "token"))


class NoCredentials(AnonymousCredentials):
    def current(self) -> None:
        raise CredentialsMissing("they come later")


def of(auth_type: AuthType, credentials: CredentialsProvider, volume_id: str = "pv-1", role: str = "") -> str:
    spec = replace(PLAIN, credentials=CredentialOptions(auth_type, role_arn=role))
    return identity_of(spec, volume_id, credentials)


def test_volumes_with_one_access_key_share() -> None:
    assert of(AuthType.SECRET, KEY, "pv-1") == of(AuthType.SECRET, KEY, "pv-2") == of(AuthType.FILE, KEY)
    assert of(AuthType.SECRET, KEY) != of(AuthType.SECRET, OTHER_KEY)


@pytest.mark.parametrize("credentials", [TEMPORARY, NoCredentials()])
def test_a_temporary_or_unknown_key_stands_for_its_volume_alone(credentials: CredentialsProvider) -> None:
    assert of(AuthType.SECRET, credentials, "pv-1") == of(AuthType.SECRET, credentials, "pv-1")
    assert of(AuthType.SECRET, credentials, "pv-1") != of(AuthType.SECRET, credentials, "pv-2")


def test_volumes_with_one_role_share_whatever_its_keys_are() -> None:
    assert of(AuthType.RRSA, TEMPORARY, "pv-1", "role/a") == of(AuthType.RRSA, KEY, "pv-2", "role/a")
    assert of(AuthType.RRSA, TEMPORARY, role="role/a") != of(AuthType.RRSA, TEMPORARY, role="role/b")


def test_what_anybody_may_read_is_shared_by_all() -> None:
    public = AnonymousCredentials()
    assert of(AuthType.PUBLIC, public, "pv-1") == of(AuthType.PUBLIC, public, "pv-2")


def test_no_identity_holds_a_secret() -> None:
    assert "secret" not in of(AuthType.SECRET, KEY) + of(AuthType.SECRET, TEMPORARY)


def test_a_volume_that_asks_for_none_gets_none() -> None:
    assert disk_cache_of(PLAIN, "pv-1", KEY, "/var/cache/ossfuse") is None


def test_a_sidecar_without_a_directory_goes_without_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    spec = replace(PLAIN, cache=CacheOptions("emptyDir"))
    assert disk_cache_of(spec, "pv-1", KEY, "") is None
    assert "this sidecar was given no directory for it" in caplog.text
