from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.driver.provisioning.path_pattern import expand, safe_name
from csi.errors import InvalidOption

NAMES = {
    "csi.storage.k8s.io/pvc/name": "data",
    "csi.storage.k8s.io/pvc/namespace": "team-a",
    "csi.storage.k8s.io/pv/name": "pvc-0123",
}


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("${.PVC.namespace}/${.PVC.name}", "team-a/data/"),
        ("/volumes/${.PV.name}/", "volumes/pvc-0123/"),
        ("${ .PVC.name }", "data/"),
        ("a-${.PVC.namespace}-b", "a-team-a-b/"),
        ("a//b", "a/b/"),
        ("fixed", "fixed/"),
        ("", ""),
    ],
)
def test_a_pattern_becomes_a_prefix(pattern, prefix):
    assert expand(pattern, NAMES, volume_name="pvc-0123") == prefix


def test_the_volume_name_stands_in_for_the_persistent_volumes():
    assert expand("${.PV.name}", {}, volume_name="pvc-9") == "pvc-9/"


def test_an_unknown_variable_is_refused_with_the_list_of_known_ones():
    with pytest.raises(InvalidOption) as raised:
        expand("${.PVC.uid}/x", NAMES, volume_name="pvc-1")

    assert "pathPattern: '${.PVC.uid}/x'" in str(raised.value)
    assert "${.PV.name}, ${.PVC.name}, ${.PVC.namespace}" in str(raised.value)


def test_a_variable_without_value_names_the_provisioners_flag():
    with pytest.raises(InvalidOption, match=r"\$\{\.PVC\.name\} is not; run .* --extra-create-metadata"):
        expand("${.PVC.name}", {}, volume_name="pvc-1")


@pytest.mark.parametrize("pattern", ["../${.PV.name}", "a/./b", "a/../b", "a\nb", "${.PV.name", "a" * 901])
def test_what_is_no_clean_path_is_refused(pattern):
    with pytest.raises(InvalidOption, match=r"pathPattern: "):
        expand(pattern, NAMES, volume_name="pvc-1")


@pytest.mark.parametrize("name", ["..", ".", "a/../../b", "/etc", "a\0b"])
def test_a_name_cannot_climb_out_of_its_part(name):
    prefix = expand("base/${.PVC.name}/x", {"csi.storage.k8s.io/pvc/name": name}, volume_name="pvc-1")

    assert prefix.startswith("base/")
    assert len(prefix.split("/")) == 4
    assert ".." not in prefix.split("/")


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_different_names_make_different_parts(one, other):
    assert (safe_name(one) == safe_name(other)) == (one == other)
