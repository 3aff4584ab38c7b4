import datetime
from urllib.parse import quote_from_bytes, unquote
from xml.sax.saxutils import escape, unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi.errors import ServerFailure
from csi.oss.listing import parse_page
from csi.oss.store import ListedObject, ListPage

keys = st.binary(min_size=1, max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
moments = st.integers(0, 4_000_000_000_000).map(lambda millis: millis / 1000)
objects = st.builds(
    ListedObject,
    keys,
    st.integers(0, 2**47),
    st.sampled_from(['"5B3C1A2E053D763E1B002CC607C5A0FE"', '"A&B-3"', '""']),
    moments,
    st.sampled_from(["Normal", "Multipart", "Appendable", "Symlink"]),
    st.sampled_from(["Standard", "IA", "DeepColdArchive"]),
)


def url_encoded(key):
    return quote_from_bytes(key.encode("utf-8", "surrogateescape"), safe="/")


def document(page, *, encode=url_encoded, namespace="", gap="", encoding_type="<EncodingType>url</EncodingType>"):
    def contents(found):
        moment = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(
            milliseconds=round(found.modified * 1000)
        )
        stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
        fields = {
            "Key": encode(found.key),
            "LastModified": stamp,
            "ETag": found.etag,
            "Type": found.type,
            "Size": str(found.size),
            "StorageClass": found.storage_class,
        }
        inner = gap.join(f"<{n}>{escape(v, {chr(34): '&quot;'})}</{n}>" for n, v in fields.items())
        return f"<Contents>{gap}{inner}{gap}<Owner><ID>1</ID></Owner></Contents>"

    prefixes = "".join(
        f"<CommonPrefixes>{gap}<Prefix>{escape(encode(p))}</Prefix></CommonPrefixes>" for p in page.prefixes
    )
    token = f"<NextContinuationToken>{escape(page.next_token)}</NextContinuationToken>" if page.next_token else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult{namespace}><Name>bkt</Name><Prefix></Prefix>'
        f"<MaxKeys>1000</MaxKeys>{encoding_type}<IsTruncated>{str(bool(page.next_token)).lower()}</IsTruncated>"
        f"{token}{gap.join(map(contents, page.objects))}{prefixes}<KeyCount>1</KeyCount></ListBucketResult>"
    ).encode()


pages = st.builds(
    ListPage, st.lists(objects, max_size=6), st.lists(keys, max_size=4), st.sampled_from(["", "CgJiYw--", "a&b"])
)


@given(pages, st.sampled_from(["", "\n  "]))
@settings(deadline=None)
def test_a_page_is_read_as_it_was_written(page, gap):
    assert parse_page(document(page, gap=gap)) == page


@given(pages)
@settings(deadline=None)
def test_a_page_of_unexpected_shape_is_read_all_the_same(page):
    strange = document(page, namespace=' xmlns="http://doc.oss-cn-hangzhou.aliyuncs.com"').replace(
        b"<Contents>", b'<Contents a="b">'
    )

    assert parse_page(strange) == page


@pytest.mark.parametrize("key", ["plain", "a b", "a&b<c>\"d'", "a+b", "中文", "100%25", "]]>"])
@pytest.mark.parametrize("attribute", ["", ' a="b"'])
def test_keys_that_are_not_url_encoded_are_read_too(key, attribute):
    page = ListPage([ListedObject(key, 1, '"E"', 0.0)], [key + "/"], "")
    body = document(page, encode=lambda k: k, encoding_type="").replace(
        b"<Contents>", f"<Contents{attribute}>".encode()
    )

    assert parse_page(body) == page


def test_numeric_entities_are_characters():
    page = ListPage([ListedObject("a\nb中", 1, '"E"', 0.0)], [], "")
    body = document(page, encode=lambda k: k, encoding_type="").replace("a\nb中".encode(), b"a&#10;b&#x4E2d;")

    assert parse_page(body) == page


def test_an_empty_bucket_is_an_empty_page():
    assert parse_page(document(ListPage([], [], ""))) == ListPage([], [], "")


@pytest.mark.parametrize("attribute", ["", ' a="b"'])
@pytest.mark.parametrize("encode", [url_encoded, lambda key: key])
def test_a_page_says_which_prefix_it_is_of(attribute, encode):
    page = ListPage([ListedObject("d/a b", 1, '"E"', 0.0)], ["d/a b/"], "")
    told = f"<Prefix>{encode('d/a b')}</Prefix>".encode()
    body = document(page).replace(b"<Prefix></Prefix>", told, 1)
    body = body.replace(b"<Contents>", f"<Contents{attribute}>".encode())

    assert parse_page(body, "d/a b") == page
    assert parse_page(body) == page
    with pytest.raises(ServerFailure, match="'d/c' was asked for"):
        parse_page(body, "d/c")


@pytest.mark.parametrize("told", ["<Prefix/>", "<Prefix />", "<Prefix></Prefix>"])
def test_a_page_of_the_whole_bucket_is_no_answer_for_a_prefix(told):
    page = ListPage([], ["d/"], "")
    body = document(page).replace(b"<Prefix></Prefix>", told.encode(), 1)

    assert parse_page(body, "") == page
    with pytest.raises(ServerFailure, match="was asked for"):
        parse_page(body, "d/")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>proxy error</body></html>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>false</IsTruncated>",
        document(ListPage([ListedObject("a", 1, '"E"', 0.0)], [], "")).replace(b"1970-01", b"1970-13"),
        document(ListPage([ListedObject("a", 1, '"E"', 0.0)], [], "")).replace(b"1970-01", b"yesterday"),
    ],
)
def test_what_is_not_a_listing_is_an_error(body):
    with pytest.raises(ServerFailure, match="not a listing"):
        parse_page(body)


@pytest.mark.parametrize(
    "written",
    ["a/b", "a/b/c", "a%2Fb%2Fc", "a%2Fb%20c", "a%2520%2Fb", "a%2Fb%2F", "%2F", "%2Fa", "a&amp;b%2Fc", "a%2Fb&amp;c"],
)
def test_keys_in_directories_are_read_as_they_are_in_the_bucket(written):
    page = ListPage([ListedObject("k1", 1, '"E"', 0.0), ListedObject("k2", 1, '"E"', 0.0)], [], "")
    body = document(page, encode=lambda k: k).replace(b"k1", written.encode()).replace(b"k2", written.encode() + b"2")
    key = unquote(unescape(written))

    assert [found.key for found in parse_page(body).objects] == [key, key + "2"]


@pytest.mark.parametrize(
    ("written", "etag"),
    [("&quot;E&quot;", '"E"'), ("&#34;E&#34;", '"E"'), ('"E"', '"E"'), ("&amp;quot;&lt;", "&quot;<"), ("", "")],
)
def test_etags_are_unescaped_once(written, etag):
    page = ListPage([ListedObject("k", 1, "TAG", 0.0)], [], "")

    assert parse_page(document(page).replace(b"TAG", written.encode())).objects[0].etag == etag
