from __future__ import annotations

import pytest
import yaml

from tests.unit.cluster.golden_cases import DIRECTORY, NAMES, Given, expected_path, outcome, read_given


@pytest.mark.parametrize("name", NAMES)
def test_the_pod_becomes_what_the_golden_file_says(name: str) -> None:
    assert outcome(read_given(name)) == yaml.safe_load(expected_path(name).read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_pod_that_comes_by_again_stays_as_it_is(name: str) -> None:
    given = read_given(name)
    first = outcome(given)
    if "refused" in first or first["pod"] == "unchanged":
        assert outcome(given) == first
        return
    assert outcome(Given(first["pod"], given.objects))["pod"] == "unchanged"


def test_every_golden_file_belongs_to_a_case() -> None:
    assert sorted(path.name.removesuffix(".then.yaml") for path in DIRECTORY.glob("*.then.yaml")) == NAMES
