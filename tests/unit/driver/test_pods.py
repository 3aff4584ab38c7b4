from __future__ import annotations

import json

import pytest

from csi.driver.capabilities import Access
from csi.driver.pods import digest_of_call, pod_reference, required_pod, service_account_token
from csi.errors import ClusterMisconfigured
from csi.handover.types import PodReference
from tests.support.service_accounts import TOKENS, pod_context, tokens_of

ACCESS = Access("MULTI_NODE_MULTI_WRITER", False, False, ("-oro",), 1000)
ATTRIBUTES = {"bucket": "b", "mode": "fast"}


def test_the_pod_is_who_kubelet_says() -> None:
    assert pod_reference(pod_context()) == PodReference("uid-1", "train-0", "team", "trainer", ephemeral=False)


def test_an_inline_volume_is_recognised() -> None:
    found = pod_reference({**pod_context(), "csi.storage.k8s.io/ephemeral": "true"})

    assert found is not None and found.ephemeral


@pytest.mark.parametrize("key", ["pod.uid", "pod.name", "pod.namespace"])
def test_half_a_pod_is_none(key: str) -> None:
    assert pod_reference({**pod_context(), f"csi.storage.k8s.io/{key}": ""}) is None


def test_a_pod_that_is_missing_names_the_field_of_the_csidriver_object() -> None:
    with pytest.raises(ClusterMisconfigured, match=r"podInfoOnMount .*CSIDriver object ossfuse\.csi\.dev"):
        required_pod(None)


@pytest.mark.parametrize("place", ["context", "secrets"])
def test_a_token_is_found_where_older_and_newer_kubelets_put_it(place: str) -> None:
    given = {"context": {}, "secrets": {}, place: tokens_of("t.o.k")}

    assert service_account_token(given["context"], given["secrets"]) == "t.o.k"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "not json",
        "[]",
        "7",
        json.dumps({"": {"token": "for-the-api-server"}}),
        json.dumps({"sts.aliyuncs.com": "bare"}),
        json.dumps({"sts.aliyuncs.com": {"token": ""}}),
        json.dumps({"sts.aliyuncs.com": {"token": 7}}),
    ],
)
def test_a_token_that_is_missing_names_the_field_and_shows_nothing(text: str | None) -> None:
    context = {} if text is None else {TOKENS: text}

    with pytest.raises(ClusterMisconfigured, match="tokenRequests") as raised:
        service_account_token(context, {})

    assert "for-the-api-server" not in str(raised.value)
    assert "sts.aliyuncs.com" in str(raised.value)


def test_a_repetition_of_a_call_has_its_digest() -> None:
    first = digest_of_call("v", {**ATTRIBUTES, **pod_context(token="a.b.c")}, ACCESS)
    again = digest_of_call("v", {**dict(reversed(ATTRIBUTES.items())), **pod_context(token="d.e.f")}, ACCESS)

    assert first == again


@pytest.mark.parametrize(
    ("volume_id", "attributes", "access"),
    [
        ("w", ATTRIBUTES, ACCESS),
        ("v", {**ATTRIBUTES, "mode": "consistent"}, ACCESS),
        ("v", {"bucket": "b"}, ACCESS),
        ("v", ATTRIBUTES, Access(ACCESS.mode, True, False, ("-oro",), 1000)),
        ("v", ATTRIBUTES, Access(ACCESS.mode, False, False, (), 1000)),
        ("v", ATTRIBUTES, Access(ACCESS.mode, False, False, ("-oro",), None)),
    ],
)
def test_another_call_has_another_digest(volume_id: str, attributes: dict[str, str], access: Access) -> None:
    assert digest_of_call(volume_id, attributes, access) != digest_of_call("v", ATTRIBUTES, ACCESS)
