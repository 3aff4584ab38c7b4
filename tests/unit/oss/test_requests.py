import pytest

from csi.errors import RequestRejected
from csi.oss.requests import header_lines, url_of, write_headers
from csi.volume.spec import Location, WriteOptions

VIRTUAL = Location("bkt", "https://oss-cn-hangzhou.aliyuncs.com")
PATH = Location("bkt", "http://127.0.0.1:18080", path_style=True)


@pytest.mark.parametrize(
    ("location", "key", "url"),
    [
        (VIRTUAL, "a/b", "https://bkt.oss-cn-hangzhou.aliyuncs.com/a/b"),
        (PATH, "a/b", "http://127.0.0.1:18080/bkt/a/b"),
        (PATH, "", "http://127.0.0.1:18080/bkt/"),
        (PATH, "a?b#c%20d e+f&g=h", "http://127.0.0.1:18080/bkt/a%3Fb%23c%2520d%20e%2Bf%26g%3Dh"),
        (PATH, "中/é", "http://127.0.0.1:18080/bkt/%E4%B8%AD/%C3%A9"),
        (PATH, b"\xff\x80".decode("utf-8", "surrogateescape"), "http://127.0.0.1:18080/bkt/%FF%80"),
        (PATH, "a//b/./../c/", "http://127.0.0.1:18080/bkt/a//b/./../c/"),
        (PATH, "line\nbreak", "http://127.0.0.1:18080/bkt/line%0Abreak"),
    ],
)
def test_a_key_is_encoded_exactly_once(location, key, url):
    assert url_of(location, key, []) == url


def test_a_query_follows_the_key():
    assert url_of(PATH, "k?", [("uploads", "")]) == "http://127.0.0.1:18080/bkt/k%3F?uploads"


@pytest.mark.parametrize("value", ["a\r\nx-oss-acl: public", "a\nb", "a\0b"])
def test_a_header_cannot_smuggle_another(value):
    with pytest.raises(RequestRejected, match="x-oss-meta-a"):
        header_lines({"x-oss-meta-a": value}, "PutObject")


def test_an_empty_header_is_sent_as_such():
    assert header_lines({"x-oss-meta-a": ""}, "PutObject") == [b"x-oss-meta-a;"]


def test_the_encryption_a_volume_asks_for_is_in_every_creating_request():
    options = WriteOptions(
        server_side_encryption="KMS", server_side_data_encryption="SM4", server_side_encryption_key_id="key-1"
    )

    headers = write_headers(options, user={"Mode": "0644"}, content_type="text/plain", forbid_overwrite=True)

    assert headers == {
        "content-type": "text/plain",
        "x-oss-server-side-encryption": "KMS",
        "x-oss-server-side-data-encryption": "SM4",
        "x-oss-server-side-encryption-key-id": "key-1",
        "x-oss-meta-mode": "0644",
        "x-oss-forbid-overwrite": "true",
    }
