"""The examples are what newcomers copy: each holds together, is a valid volume and satisfies "restricted"."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from csi.cli.descriptions import read_descriptions
from csi.volume.modes import Mode
from csi.volume.naming import DRIVER_NAME
from csi.volume.parse import parse_volume
from tests.cluster.harness.developer import KEY, PORT, SECRET

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
FILES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))
WORKLOADS = ("Pod", "Job")
POD_VOLUMES = {"persistentVolumeClaim", "csi", "configMap", "secret", "emptyDir", "ephemeral", "projected"}

Object = dict[str, Any]


def objects(file: str) -> list[Object]:
    return list(yaml.safe_load_all((EXAMPLES / file).read_text()))


def of_kind(file: str, *kinds: str) -> list[Object]:
    return [found for found in objects(file) if found["kind"] in kinds]


def names(file: str, kind: str) -> set[tuple[str, str]]:
    """(namespace, name)."""
    return {(one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in of_kind(file, kind)}


def workloads(file: str) -> list[tuple[str, Object]]:
    """(namespace, PodSpec)."""
    found = of_kind(file, *WORKLOADS)
    return [
        (one["metadata"]["namespace"], one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"])
        for one in found
    ]


def not_restricted(spec: Object) -> list[str]:
    """What Pod Security "restricted" would refuse of a PodSpec."""
    wrong = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    pod = spec.get("securityContext", {})
    for volume in spec.get("volumes", []):
        wrong += [f"volume {volume['name']}: {kind}" for kind in volume if kind != "name" and kind not in POD_VOLUMES]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        both = {**pod, **own}
        capabilities = own.get("capabilities", {})
        checks = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser") != 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "capabilities.drop": "ALL" in capabilities.get("drop", []),
            "capabilities.add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "privileged": not own.get("privileged"),
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        wrong += [f"container {container['name']}: {name}" for name, well in checks.items() if not well]
    return wrong


@pytest.mark.parametrize("file", FILES)
def test_every_volume_of_an_example_is_accepted_without_a_warning(file: str) -> None:
    descriptions, _ = read_descriptions((EXAMPLES / file).read_text())
    for volume in descriptions:
        parsed = parse_volume(volume.attributes, cpu_count=4, read_only=volume.read_only)
        assert (*parsed.warnings, *volume.remarks) == ()


@pytest.mark.parametrize("file", FILES)
def test_every_pod_of_an_example_satisfies_pod_security_restricted(file: str) -> None:
    found = workloads(file)
    assert found
    assert [wrong for _, spec in found for wrong in not_restricted(spec)] == []


@pytest.mark.parametrize("file", FILES)
def test_pods_and_claims_of_an_example_name_objects_of_the_same_file(file: str) -> None:
    claims, volumes, maps = (names(file, kind) for kind in ("PersistentVolumeClaim", "PersistentVolume", "ConfigMap"))
    for namespace, spec in workloads(file):
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert (namespace, volume["persistentVolumeClaim"]["claimName"]) in claims
            if "configMap" in volume:
                assert (namespace, volume["configMap"]["name"]) in maps
        if "serviceAccountName" in spec:
            assert (namespace, spec["serviceAccountName"]) in names(file, "ServiceAccount")
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
    for claim in of_kind(file, "PersistentVolumeClaim"):
        if claim["spec"]["storageClassName"]:
            assert ("", claim["spec"]["storageClassName"]) in names(file, "StorageClass")
            continue
        assert ("", claim["spec"]["volumeName"]) in volumes
        volume = next(
            one for one in of_kind(file, "PersistentVolume") if one["metadata"]["name"] == claim["spec"]["volumeName"]
        )
        assert volume["spec"]["claimRef"] == {key: claim["metadata"][key] for key in ("namespace", "name")}
        assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"]


@pytest.mark.parametrize("file", FILES)
def test_secrets_that_an_example_names_are_in_it_and_hold_no_key(file: str) -> None:
    named = set()
    for volume in of_kind(file, "PersistentVolume"):
        secret = volume["spec"]["csi"].get("nodePublishSecretRef")
        named |= {(secret["namespace"], secret["name"])} if secret else set()
    for found in of_kind(file, "StorageClass"):
        given = found["parameters"]
        for role in ("provisioner", "node-publish"):
            prefix = f"csi.storage.k8s.io/{role}-secret"
            named.add((given[f"{prefix}-namespace"], given[f"{prefix}-name"]))
    for namespace, spec in workloads(file):
        for volume in spec["volumes"]:
            if "csi" in volume:
                named.add((namespace, volume["csi"]["nodePublishSecretRef"]["name"]))
    assert named == names(file, "Secret")
    for secret in of_kind(file, "Secret"):
        assert secret["stringData"] == {"akId": "<your AccessKey ID>", "akSecret": "<your AccessKey secret>"}


def test_there_is_an_example_of_every_mode() -> None:
    shown = {read_descriptions((EXAMPLES / file).read_text())[0][0].attributes["mode"] for file in FILES}
    assert shown == {mode.value for mode in Mode}
    assert {f"pv-{mode.value}.yaml" for mode in Mode} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_examples_say_what_they_are_for_and_name_the_driver(file: str) -> None:
    text = (EXAMPLES / file).read_text()
    assert re.match(r"# [A-Z][^\n]+\n# ", text)
    assert DRIVER_NAME in text


@pytest.fixture
def training(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The program of training-job.yaml with a small data set: program, data, checkpoints."""
    data, checkpoints, program = tmp_path / "data", tmp_path / "checkpoints", tmp_path / "train.py"
    text = of_kind("training-job.yaml", "ConfigMap")[0]["data"]["train.py"]
    smaller = text.replace('"/data"', repr(str(data))).replace('"/checkpoints"', repr(str(checkpoints)))
    program.write_text(smaller.replace("20_000", "1_000"))
    data.mkdir()
    checkpoints.mkdir()
    return program, data, checkpoints


def train(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, program], check=False, capture_output=True, text=True)


def test_the_training_example_learns_and_goes_on_from_its_newest_checkpoint(training: tuple[Path, Path, Path]) -> None:
    program, data, checkpoints = training
    (data / "below").mkdir()
    (data / "below" / "text").write_bytes(b"abcdefgh" * 200)
    first = train(program)
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", first.stdout)]
    assert (first.returncode, len(losses)) == (0, 5)
    assert losses[-1] < losses[0] / 2
    again = train(program)
    assert "going on from" in again.stdout
    assert sorted(path.name for path in checkpoints.iterdir()) == [f"epoch-{n:04}.bin" for n in range(1, 11)]
    assert float(re.findall(r"loss ([0-9.]+)", again.stdout)[0]) < losses[-1]


def test_the_training_example_says_that_there_is_no_data(training: tuple[Path, Path, Path]) -> None:
    program, _, checkpoints = training
    done = train(program)
    assert done.returncode == 1
    assert "there are no files under" in done.stderr
    assert list(checkpoints.iterdir()) == []


def test_what_the_readme_puts_into_the_training_job_is_what_the_developer_s_cluster_has() -> None:
    readme = (EXAMPLES.parents[1] / "README.md").read_text()
    (program,) = re.findall(r"    sed '(s\|https.+?)' \\\n", readme, re.DOTALL)
    job = (EXAMPLES / "training-job.yaml").read_text()
    given = subprocess.run(["sed", program], input=job, check=True, capture_output=True, text=True).stdout
    assert "<your" in job
    assert "<your" not in given
    assert "aliyuncs.com" not in given
    secrets = [one["stringData"] for one in yaml.safe_load_all(given) if one["kind"] == "Secret"]
    assert secrets
    assert [(one["akId"], one["akSecret"]) for one in secrets] == [(KEY, SECRET)] * len(secrets)
    assert f"http://10.99.0.1:{PORT}" in given
