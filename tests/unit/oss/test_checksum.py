import pytest
from hypothesis import given
from hypothesis import strategies as st
from oss2.utils import Crc64

from csi.oss.checksum import EMPTY, combine, crc64_of, update


@given(st.binary(max_size=5000), st.binary(max_size=5000))
def test_the_checksum_of_a_whole_is_combined_from_those_of_its_parts(first, second):
    combined = combine(crc64_of([first]), crc64_of([second]), len(second))

    assert combined == crc64_of([first + second])


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_pieces_give_the_checksum_of_the_whole(pieces):
    crc = EMPTY
    for piece in pieces:
        crc = update(crc, piece)

    assert crc == crc64_of(pieces) == crc64_of([b"".join(pieces)])


@pytest.mark.parametrize("length", [1, 7, 4096, 8 * 1024 * 1024, 5 * 1024**3, 48 * 1024**4])
def test_combining_is_associative_at_any_length(length):
    a, b, c = 0x0123456789ABCDEF, 0xFEDCBA9876543210, 0x5555AAAA5555AAAA

    left = combine(combine(a, b, length), c, length)
    right = combine(a, combine(b, c, length), 2 * length)

    assert left == right


def test_the_checksum_is_the_one_oss2_computes():
    data = bytes(range(256)) * 37

    expected = Crc64()
    expected.update(data)

    assert crc64_of([data]) == expected.crc


def test_the_checksum_of_the_reference_string_is_the_published_one():
    assert crc64_of([b"123456789"]) == 0x995DC9BBDF1939FA
