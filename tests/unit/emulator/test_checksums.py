from __future__ import annotations

from fastcrc.crc64 import xz as crc64
from hypothesis import given
from hypothesis import strategies as st

from csi.emulator.store.checksums import combine, combine_all


@given(st.binary(max_size=500), st.binary(max_size=500))
def test_the_crc_of_two_joined_bodies_follows_from_their_crcs(first: bytes, second: bytes) -> None:
    assert combine(crc64(first), crc64(second), len(second)) == crc64(first + second)


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_the_crc_of_many_joined_bodies_follows_from_their_crcs(pieces: list[bytes]) -> None:
    assert combine_all((crc64(piece), len(piece)) for piece in pieces) == crc64(b"".join(pieces))


def test_the_crc_of_a_terabyte_is_only_arithmetic() -> None:
    doubled = crc64(bytes(1 << 20))
    for power in range(20, 40):
        doubled = combine(doubled, doubled, 1 << power)

    assert combine(combine(0, doubled, 1 << 40), crc64(b"x"), 1) == combine(doubled, crc64(b"x"), 1)
    assert combine(doubled, crc64(b""), 0) == doubled
