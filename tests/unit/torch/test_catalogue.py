"""Samples in flat memory."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import InvalidOption
from csi.torch.catalogue import UNKNOWN, Entry, Samples
from csi.torch.uri import Place

HERE, THERE = Place("bucket"), Place("other", "oss-cn-beijing.aliyuncs.com")

entries = st.builds(
    Entry,
    place=st.sampled_from([HERE, THERE]),
    key=st.text(min_size=1, max_size=40),
    size=st.one_of(st.just(UNKNOWN), st.integers(0, 1 << 46)),
    etag=st.sampled_from(["", '"5EB63BBBE01EEED093CB22BB8F5ACDC3"', '"a-3"']),
    label=st.one_of(st.text(max_size=10), st.integers(-(1 << 40), 1 << 40)),
    offset=st.just(UNKNOWN),
    whole=st.just(UNKNOWN),
)


def filled(given_entries: list[Entry]) -> Samples:
    samples = Samples()
    for entry in given_entries:
        samples.add(entry.place, entry.key, entry.size, entry.etag, entry.label)
    return samples


@given(st.lists(entries, max_size=20))
def test_what_is_added_is_found_again_in_another_process_too(added: list[Entry]) -> None:
    samples = filled(added)
    assert list(samples) == added
    assert list(pickle.loads(pickle.dumps(samples))) == added


def test_a_number_may_count_from_the_end_and_must_be_one_of_the_samples() -> None:
    samples = filled([Entry(HERE, "a"), Entry(HERE, "b")])  # type: ignore[arg-type]
    assert samples[-1].key == "b"
    for number in (2, -3):
        with pytest.raises(IndexError, match="of a data set of 2"):
            samples[number]


def test_a_key_that_no_object_has_is_refused() -> None:
    with pytest.raises(InvalidOption, match="1023 bytes"):
        Samples().add(HERE, "x" * 70_000)


def test_a_sample_of_a_manifest_takes_little_more_than_its_text() -> None:
    samples = Samples()
    for number in range(10_000):
        samples.add(HERE, f"class{number % 100:03}/image{number:08}.JPEG", label=f"n{number % 1000:08}")
    assert samples.memory / 10_000 < len("class000/image00000000.JPEG") + len("n00000000") + 16
