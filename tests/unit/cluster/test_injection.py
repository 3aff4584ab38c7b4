from __future__ import annotations

import copy
import functools
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi.cluster.api import JsonObject
from csi.cluster.webhook.injection import PodRefused, inject, wants_sidecars
from csi.cluster.webhook.sidecar import SidecarSettings, image_with_tag
from csi.cluster.webhook.volumes import CLASS_ONLY, OurVolume, UnknownVolume, candidates
from csi.driver.provisioning.creation import ON_DELETE, PATH_PATTERN
from csi.volume.naming import sidecar_name
from tests.support.memory_cluster import patched

SETTINGS = SidecarSettings("registry.example:5000/ossfuse-csi:0.1.0")
PLACE = {"uri": "oss://data.oss-cn-hangzhou-internal.aliyuncs.com/sets/"}


def pod(**spec: Any) -> JsonObject:
    container = {"name": "main", "image": "python", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    return {"metadata": {"name": "trainer"}, "spec": {"containers": [container], "volumes": volumes, **spec}}


def ours(name: str = "data", **attributes: str) -> OurVolume:
    return OurVolume(name, f"claim/{name}", f"PersistentVolume pv-{name}", {**PLACE, **attributes})


def injected(before: JsonObject, *volumes: OurVolume | UnknownVolume) -> JsonObject:
    return patched(before, inject(before, volumes or (ours(),), SETTINGS).patch)


def again(after: JsonObject, *volumes: OurVolume | UnknownVolume) -> list[JsonObject]:
    return inject(after, volumes or (ours(),), SETTINGS).patch


# --- what the API server and other webhooks do between two visits ---


def test_an_init_container_that_another_webhook_put_first_goes_behind_ours() -> None:
    after = injected(pod())
    after["spec"]["initContainers"].insert(0, {"name": "istio-proxy", "image": "istio", "restartPolicy": "Always"})
    mended = patched(after, again(after))
    assert [item["name"] for item in mended["spec"]["initContainers"]] == ["ossfuse-data", "istio-proxy"]
    assert again(mended) == []


@pytest.mark.parametrize(
    "change",
    [
        {"image": "mirror.example/ossfuse-csi:0.1.0"},
        {"restartPolicy": "OnFailure"},
        {"env": [{"name": "LD_PRELOAD", "value": "/evil.so"}]},
        {"envFrom": [{"secretRef": {"name": "x"}}]},
        {"command": ["sh"]},
        {"livenessProbe": {"exec": {"command": ["true"]}}},
        {"securityContext": {"privileged": True}},
        {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        {"lifecycle": None},
    ],
)
def test_what_was_changed_in_a_sidecar_is_restored(change: JsonObject) -> None:
    first = injected(pod())
    changed = copy.deepcopy(first)
    changed["spec"]["initContainers"][0].update(change)
    assert patched(changed, again(changed)) == first


def gate_in(directory: Path, *, looks: int, sleep: int = 1) -> list[str]:
    """The command of the gate that a sidecar gets, for another directory, with another patience."""
    sidecar = injected(pod())["spec"]["initContainers"][0]
    shell, option, gate = sidecar["lifecycle"]["postStart"]["exec"]["command"]
    assert gate.count("-gt 120 ") == gate.count("timeout 1 ") == gate.count("sleep 1;") == 1
    changes = {"/run/ossfuse": str(directory), "-gt 120 ": f"-gt {looks} ", "timeout 1 ": f"timeout {sleep} "}
    return [shell, option, functools.reduce(lambda done, old: done.replace(old, changes[old]), changes, gate)]


@pytest.mark.parametrize(("served", "code"), [(True, 0), (False, 1)])
def test_the_gate_opens_for_a_volume_that_is_served_and_says_when_one_never_is(
    tmp_path: Path, served: bool, code: int
) -> None:
    if served:
        (tmp_path / "READY").touch()
    done = subprocess.run(gate_in(tmp_path, looks=1), check=False, capture_output=True, text=True)
    said = "" if served else "the volume was not served within 120 s; the events of the pod say why\n"
    assert (done.returncode, done.stderr) == (code, said)


def test_the_gate_sleeps_until_its_pipe_is_written_to(tmp_path: Path) -> None:
    with subprocess.Popen(gate_in(tmp_path, looks=1, sleep=1000), stderr=subprocess.PIPE, text=True) as gate:
        while not (tmp_path / "READY.pipe").exists():
            assert gate.poll() is None
        with (tmp_path / "READY.pipe").open("w") as pipe:  # opened once the gate reads
            (tmp_path / "READY").touch()
            pipe.write("\n")
        _, said = gate.communicate(timeout=60)
    assert (gate.returncode, said) == (0, "")


def test_the_gate_opens_without_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "READY.pipe").mkdir()
    with subprocess.Popen(gate_in(tmp_path, looks=60), stderr=subprocess.PIPE, text=True) as gate:
        (tmp_path / "READY").touch()
        _, said = gate.communicate(timeout=60)
    assert (gate.returncode, said) == (0, "")


def test_defaults_of_the_cluster_are_no_change() -> None:
    after = injected(pod())
    sidecar = after["spec"]["initContainers"][0]
    sidecar["resizePolicy"] = [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]
    sidecar["securityContext"]["procMount"] = "Default"
    sidecar["resources"]["limits"]["cpu"] = "2"  # a LimitRange's default, which its maximum then insists on
    sidecar["resources"]["requests"]["memory"] = "1024Mi"
    assert again(after) == []


def test_a_limit_range_s_default_survives_a_restored_sidecar() -> None:
    after = injected(pod())
    after["spec"]["initContainers"][0]["resources"]["limits"]["cpu"] = "2"
    after["spec"]["initContainers"][0]["image"] = "other"
    mended = patched(after, again(after))
    assert mended["spec"]["initContainers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}
    assert mended["spec"]["initContainers"][0]["image"] == SETTINGS.image


def test_a_sidecar_that_is_there_twice_is_there_once() -> None:
    after = injected(pod())
    after["spec"]["initContainers"].append(copy.deepcopy(after["spec"]["initContainers"][0]))
    assert len(patched(after, again(after))["spec"]["initContainers"]) == 1


def test_another_kind_of_empty_directory_becomes_the_small_tmpfs() -> None:
    after = injected(pod())
    after["spec"]["volumes"][1]["emptyDir"] = {"sizeLimit": "10Gi"}
    mended = patched(after, again(after))
    assert mended["spec"]["volumes"][1] == {
        "name": "ossfuse-data",
        "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"},
    }


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_a_directory_that_another_webhook_mounted_elsewhere_refuses_the_pod(kind: str) -> None:
    after = injected(pod())
    spy = {"name": "spy", "image": "x", "volumeMounts": [{"name": "ossfuse-data", "mountPath": "/x"}]}
    after["spec"].setdefault(kind, []).append(spy)
    with pytest.raises(PodRefused, match="container 'spy' mounts 'ossfuse-data'"):
        again(after)


# --- who is injected at all ---


def test_a_sidecar_is_added_for_what_an_init_container_alone_mounts() -> None:
    before = pod(initContainers=[{"name": "a", "volumeMounts": [{"name": "data", "mountPath": "/a"}]}])
    before["spec"]["containers"][0]["volumeMounts"] = []
    assert [volume["name"] for volume in candidates(before)] == ["data"]


def test_an_annotation_of_ours_is_read_only_where_a_volume_may_be_ours() -> None:
    before = pod(volumes=[{"name": "data", "emptyDir": {}}])
    before["metadata"]["annotations"] = {"ossfuse.csi.dev/inject": "nonsense"}
    assert not wants_sidecars(before)


def test_parameters_that_only_concern_the_making_of_a_volume_are_the_provisioner_s() -> None:
    assert {PATH_PATTERN, ON_DELETE} == CLASS_ONLY


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("ossfuse", "ossfuse:1.2"),
        ("ossfuse:0.1.0", "ossfuse:1.2"),
        ("host:5000/ossfuse", "host:5000/ossfuse:1.2"),
        ("host:5000/a/ossfuse:0.1.0", "host:5000/a/ossfuse:1.2"),
        ("host/ossfuse:0.1.0@sha256:abcd", "host/ossfuse:1.2"),
        ("host/ossfuse@sha256:abcd", "host/ossfuse:1.2"),
    ],
)
def test_a_volume_s_tag_replaces_tag_and_digest(image: str, expected: str) -> None:
    assert image_with_tag(image, "1.2") == expected


# --- any pod ---

_NAMES = st.sampled_from(["data", "models", "logs", "a-name-that-is-long-enough-to-be-cut-off-in-the-sidecar-s-name"])
_EXTRA = st.dictionaries(st.sampled_from(["tty", "stdin", "workingDir", "x"]), st.integers(0, 3), max_size=2)


@st.composite
def _mounts(draw: st.DrawFn) -> list[JsonObject]:
    return [
        {
            "name": name,
            "mountPath": f"/m{index}",
            **draw(
                st.sampled_from(
                    [{}, {"subPath": "a"}, {"mountPropagation": "None"}, {"readOnly": True}, {"subPath": ""}]
                )
            ),
        }
        for index, name in enumerate(draw(st.lists(_NAMES, max_size=4)))
    ]


@st.composite
def _containers(draw: st.DrawFn, prefix: str) -> list[JsonObject]:
    count = draw(st.integers(0, 3))
    return [{"name": f"{prefix}{n}", "volumeMounts": draw(_mounts()), **draw(_EXTRA)} for n in range(count)]


@st.composite
def _pods(draw: st.DrawFn) -> JsonObject:
    names = draw(st.lists(_NAMES, unique=True, min_size=1))
    volumes: list[JsonObject] = []
    for name in names:
        volumes.append(
            draw(
                st.sampled_from(
                    [
                        {"name": name, "persistentVolumeClaim": {"claimName": name}},
                        {"name": name, "persistentVolumeClaim": {"claimName": "shared"}},
                        {"name": name, "emptyDir": {}},
                    ]
                )
            )
        )
    spec: JsonObject = {"containers": draw(_containers("c")), "volumes": volumes, **draw(_EXTRA)}
    if draw(st.booleans()):
        spec["initContainers"] = draw(_containers("i"))
    metadata: JsonObject = {"name": "p"}
    if draw(st.booleans()):
        metadata["annotations"] = {"team": "vision", **draw(st.sampled_from([{}, {"ossfuse.csi.dev/cpu-limit": "2"}]))}
    return {"metadata": metadata, "spec": spec}


def _resolved(before: JsonObject, answers: list[int]) -> list[OurVolume | UnknownVolume]:
    """Each candidate as ours, unknown or another's, the same whenever it is asked."""
    found: list[OurVolume | UnknownVolume] = []
    for volume in candidates(before):
        claim = volume["persistentVolumeClaim"]["claimName"]
        answer = answers[len(claim) % len(answers)]
        if answer == 0:
            found.append(OurVolume(volume["name"], f"claim/{claim}", "a volume", PLACE))
        elif answer == 1:
            found.append(UnknownVolume(volume["name"], "nobody knows"))
    return found


_ANSWERS = st.lists(st.integers(0, 2), min_size=3, max_size=3)


@settings(max_examples=300)
@given(_pods(), _ANSWERS)
def test_a_second_visit_changes_nothing(before: JsonObject, answers: list[int]) -> None:
    after = patched(before, inject(before, _resolved(before, answers), SETTINGS).patch)
    assert inject(after, _resolved(after, answers), SETTINGS).patch == []


@settings(max_examples=300)
@given(_pods(), _ANSWERS)
def test_everything_else_in_the_pod_stays(before: JsonObject, answers: list[int]) -> None:
    injection = inject(before, _resolved(before, answers), SETTINGS)
    after = patched(before, injection.patch)
    spec = after["spec"]
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind) or []:
            for mount in container.get("volumeMounts") or []:
                if mount.get("mountPropagation") == "HostToContainer":
                    del mount["mountPropagation"]
    if "initContainers" in spec:
        spec["initContainers"] = [item for item in spec["initContainers"] if item["name"] not in injection.sidecars]
        if not spec["initContainers"] and "initContainers" not in before["spec"]:
            del spec["initContainers"]
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in injection.sidecars]
    annotations = after["metadata"].get("annotations", {})
    annotations.pop("ossfuse.csi.dev/not-injected", None)
    if not annotations:
        after["metadata"].pop("annotations", None)
    assert after == before


@settings(max_examples=300)
@given(_pods(), _ANSWERS)
def test_each_publication_has_one_sidecar_and_they_come_first(before: JsonObject, answers: list[int]) -> None:
    volumes = _resolved(before, answers)
    after = patched(before, inject(before, volumes, SETTINGS).patch)
    first: dict[str, str] = {}
    for volume in volumes:
        if isinstance(volume, OurVolume):
            first.setdefault(volume.identity, sidecar_name(volume.name))
    names = [item["name"] for item in after["spec"].get("initContainers", [])]
    assert names[: len(first)] == list(first.values())
    assert all(name not in first.values() for name in names[len(first) :])


@settings(max_examples=100)
@given(_pods())
def test_a_pod_without_volumes_of_ours_gets_no_patch(before: JsonObject) -> None:
    assert inject(before, [], SETTINGS).patch == []
