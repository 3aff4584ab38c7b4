from __future__ import annotations

from xml.etree import ElementTree

import pytest

from csi.oss.markup import escape, unescape

TEXTS = ["plain", "a&b <c> \"d\" 'e'", "line\r\nnext\ttab", "&amp;", "ä 目录"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_reader_of_xml_finds_what_was_written(text: str) -> None:
    assert ElementTree.fromstring(f"<Key>{escape(text)}</Key>").text == text


@pytest.mark.parametrize("text", TEXTS)
def test_there_and_back_is_the_same(text: str) -> None:
    assert unescape(escape(text)) == text


def test_characters_by_number_and_by_name() -> None:
    assert unescape("&#x4e;&#84;&apos;&amp;lt;") == "NT'&lt;"
