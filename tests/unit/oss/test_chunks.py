"""Bodies in chunks: the same however they are cut, by the server and by the network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.oss.chunks import ChunkedBody

CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
SIZES = st.sampled_from(["%x", "%X", "%04x", "%x;name=value", "%x ;a"])


@given(CHUNKS, st.lists(SIZES, min_size=9, max_size=9), st.lists(st.integers(1, 30), max_size=40))
def test_a_body_is_the_same_however_it_is_cut(chunks: list[bytes], sizes: list[str], cuts: list[int]) -> None:
    coded = b"".join(
        (size % len(chunk)).encode() + b"\r\n" + chunk + b"\r\n"
        for size, chunk in zip(sizes, [*chunks, b""], strict=False)
    )
    body = ChunkedBody(1000)
    at = 0
    for cut in [*cuts, len(coded)]:
        assert body.is_whole == (at >= len(coded))
        body.take(coded[at : at + cut])
        at += cut
    assert body.is_whole
    assert body.body == b"".join(chunks)


@given(st.binary(max_size=60))
def test_garbage_is_an_error_or_not_the_end(data: bytes) -> None:
    body = ChunkedBody(20)
    try:
        body.take(data)
    except ValueError:
        return
    assert len(body.body) <= 20
    assert not body.is_whole or data.endswith(b"\r\n\r\n")


def test_a_body_longer_than_allowed_is_refused_before_it_comes() -> None:
    body = ChunkedBody(10)
    body.take(b"8\r\n12345678\r\n")
    with pytest.raises(ValueError, match="longer than 10"):
        body.take(b"3\r\n")
