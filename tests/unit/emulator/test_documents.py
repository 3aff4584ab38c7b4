from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.emulator.wire.documents import document, parse, timestamp
from csi.emulator.wire.refusals import Refusal


@given(
    st.text(alphabet=st.characters(min_codepoint=0x20, exclude_categories=["Cs"], exclude_characters="\ufffe\uffff"))
)
def test_any_text_comes_back_through_a_parser(value: str) -> None:
    root = ElementTree.fromstring(document("Root", [("Outer", [("Inner", value), ("Number", 7)])]))

    assert root.findtext("Outer/Inner") == value
    assert root.findtext("Outer/Number") == "7"


def test_control_characters_become_references() -> None:
    assert b"a&#x1;b&#xA;c" in document("Root", [("Key", "a\x01b\nc")])


def test_a_namespace_in_a_request_is_ignored() -> None:
    root = parse(b'<Delete xmlns="http://doc.oss-cn-hangzhou.aliyuncs.com"><Quiet>true</Quiet></Delete>', "Delete")

    assert root.findtext("Quiet") == "true"


@pytest.mark.parametrize("body", [b"", b"<Delete>", b"<Other/>", b"<!DOCTYPE x><Delete/>", b"\xff\xfe"])
def test_what_is_not_the_expected_document_is_malformed(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse(body, "Delete")

    assert refused.value.code == "MalformedXML"


def test_times_are_whole_seconds_in_utc() -> None:
    assert timestamp(1_330_072_952) == "2012-02-24T08:42:32.000Z"
