"""docs/sidecars.md names every annotation, and has a heading for every way the webhook refuses a pod, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from csi.cluster.not_injected import NOT_INJECTED_ANNOTATION
from csi.cluster.webhook.resources import ANNOTATIONS
from tests.unit.cluster.golden_cases import NAMES, outcome, read_given

TEXT = (Path(__file__).parents[3] / "docs" / "sidecars.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### `(.+)`$", TEXT, flags=re.MULTILINE)
REFUSALS = {name: outcome(read_given(name)).get("refused") for name in NAMES}


def pattern(heading: str) -> re.Pattern[str]:
    """`<name>` in a heading stands for anything."""
    return re.compile(".+".join(re.escape(words) for words in re.split(r"<[a-z]+>", heading)))


@pytest.mark.parametrize("name", [name for name, message in REFUSALS.items() if message])
def test_every_refusal_has_a_heading(name: str) -> None:
    message = str(REFUSALS[name])
    assert [heading for heading in HEADINGS if pattern(heading).match(message)], message


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_heading_is_a_refusal(heading: str) -> None:
    assert [message for message in REFUSALS.values() if message and pattern(heading).match(message)]


@pytest.mark.parametrize("annotation", [*ANNOTATIONS, NOT_INJECTED_ANNOTATION])
def test_every_annotation_is_named(annotation: str) -> None:
    assert f"`{annotation}`" in TEXT
