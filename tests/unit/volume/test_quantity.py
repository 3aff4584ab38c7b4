"""Quantities against a table made with apimachinery v0.31's resource.ParseQuantity, Value and MilliValue."""

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import InvalidOption
from csi.volume.quantity import format_bytes, parse_bytes, parse_millis, parse_quantity

APIMACHINERY = [
    # text, AsDec, Value, MilliValue
    ("0", "0", 0, 0),
    ("0.5", "0.5", 1, 500),
    ("1.5Gi", "1610612736", 1610612736, 1610612736000),
    (".5", "0.5", 1, 500),
    ("5.", "5", 5, 5000),
    ("5.Gi", "5368709120", 5368709120, 5368709120000),
    ("1e3", "1000", 1000, 1000000),
    ("1E3", "1000", 1000, 1000000),
    ("1E+3", "1000", 1000, 1000000),
    ("1e-3", "0.001", 1, 1),
    ("1.2e3", "1200", 1200, 1200000),
    ("+1", "1", 1, 1000),
    ("-0", "0", 0, 0),
    ("0010", "10", 10, 10000),
    ("1n", "0.000000001", 1, 1),
    ("0.1n", "0.000000001", 1, 1),
    ("1e-400", "0.000000001", 1, 1),
    ("1E-10", "0.000000001", 1, 1),
    ("1500u", "0.0015", 1, 2),
    ("100m", "0.1", 1, 100),
    ("1100m", "1.1", 2, 1100),
    ("1.1Ki", "1126.4", 1127, 1126400),
    ("0.1Gi", "107374182.4", 107374183, 107374182400),
    ("0.00000000001Ki", "0.000000011", 1, 1),
    ("0.9999999999Ki", "1023.999999898", 1024, 1024000),
    ("123456789.123456789123", "123456789.12345679", 123456790, 123456789124),
    ("9999999999999999999n", "9999999999.999999999", 10000000000, 10000000000000),
    ("0.0000000000001E", "100000", 100000, 100000000),
    ("2.5M", "2500000", 2500000, 2500000000),
    ("1k", "1000", 1000, 1000000),
    ("1Ki", "1024", 1024, 1024000),
    ("10Gi", "10737418240", 10737418240, 10737418240000),
]


@pytest.mark.parametrize(("text", "exact", "value", "millis"), APIMACHINERY)
def test_a_quantity_is_what_kubernetes_says_it_is(text: str, exact: str, value: int, millis: int) -> None:
    assert parse_quantity(text) == Decimal(exact)
    assert parse_bytes("key", text) == value
    assert parse_millis("key", text) == millis


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("1Ei", 2**60),
        ("1E", 10**18),
        ("7Ei", 7 * 2**60),
        ("8Ei", 2**63 - 1),
        ("9.9Ei", 2**63 - 1),
        ("-100Ei", -(2**63) + 1),
        ("9223372036854775808Ki", 2**63 - 1),
        ("9223372036854775808", 2**63),
        ("1e19", 10**19),
        ("-1", -1),
        ("12345678901234567890", 12345678901234567890),
    ],
)
def test_large_and_negative_quantities_are_exact_and_binary_ones_capped(text: str, exact: int) -> None:
    assert parse_quantity(text) == exact


@pytest.mark.parametrize(
    "text",
    [
        *("", " 1Gi", "1Gi ", "1gi", "1 Gi", "1Gib", "1GB", "0x10", "NaN", "Inf", "1K", "1mi", "1KI", "1e", "1e+"),
        *("1e3.5", "1_000", "1,5", "١", "−1", "++1", "+-1", "1.5.5", "1ee3", "1Ee3", "1nu", "1m5", "Ki1", "1\n", "0q"),
        *("1E2Mi", "+", "-", ".", "Gi", "E", "e3", "1e999999999999", "1e2147483648", "9" * 200),
    ],
)
def test_what_kubernetes_or_its_grammar_refuses_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"^fs\.key: "):
        parse_quantity(text, key="fs.key")


@pytest.mark.parametrize(
    ("text", "hint"), [("1 Gi", "1Gi"), ("1gi", "1Gi"), ("1Gib", "1Gi"), (" 1Gi", "1Gi"), ("512MiB", "512Mi")]
)
def test_a_near_miss_is_answered_with_what_was_meant(text: str, hint: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        parse_quantity(text)
    assert refusal.value.hint == f"did you mean {hint}?"


@pytest.mark.parametrize("text", ["-1", "-0.1", "9223372036854775808", "1e19", "10E"])
def test_sizes_and_cpus_are_neither_negative_nor_beyond_63_bits(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"fs\.key"):
        parse_bytes("fs.key", text)
    with pytest.raises(InvalidOption, match=r"fs\.key"):
        parse_millis("fs.key", text)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_size_survives_being_written_as_a_quantity(size: int) -> None:
    assert parse_bytes("key", format_bytes(size)) == size


@given(st.text(alphabet="0123456789.+-eEinumkKMGTP ", max_size=12) | st.text(max_size=20))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidOption):
        parse_quantity(text)
