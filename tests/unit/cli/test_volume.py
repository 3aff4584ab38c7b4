import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from csi.cli.group import ossfuse

ROOT = Path(__file__).parents[3]
PV = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: data}
spec:
  accessModes: [%s]
  mountOptions: %s
  csi:
    driver: ossfuse.csi.dev
    nodePublishSecretRef: {name: keys, namespace: default}
    volumeAttributes: %s
"""
PLACE = {"uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com/a/"}


def explain(text: str, *arguments: str) -> Result:
    return CliRunner().invoke(ossfuse, ["volume", "explain", "-", "--cpus", "4", *arguments], input=text)


def explained(text: str, *arguments: str) -> dict:
    result = explain(text, "--output", "json", *arguments)
    return json.loads(result.stdout)[0]


def pv(attributes: dict | None = None, mode: str = "ReadWriteMany", flags: tuple[str, ...] = ()) -> str:
    return PV % (mode, json.dumps(flags), json.dumps({**PLACE, **(attributes or {})}))


def setting(explanation: dict, key: str) -> tuple[str, str]:
    return next((one["value"], one["origin"]) for one in explanation["settings"] if one["key"] == key)


def test_every_option_of_a_volume_is_shown_with_its_origin() -> None:
    result = explain(pv({"mode": "fast", "fs.jindo.args": "-oattr_timeout=9", "fs.oss.retry.count": "7"}))
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines[0] == ["PersistentVolume", "data"]
    assert ["fs.oss.retry.count", "7", "attribute"] in lines
    assert ["-oattr_timeout", "9", "fs.jindo.args"] in lines
    assert ["-oentry_timeout", "0", "mode", "fast"] in lines
    assert ["fs.oss.upload.thread.concurrency", "8", "mode", "fast"] in lines


@pytest.mark.parametrize("example", sorted((ROOT / "deploy/examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_of_the_repository_is_a_volume_without_warnings(example: Path) -> None:
    result = CliRunner().invoke(ossfuse, ["volume", "explain", str(example)])
    assert result.exit_code == 0
    assert "Warning" not in result.output
    assert "Not volumes, passed over: " in result.output


def test_what_has_no_effect_is_a_warning() -> None:
    explanation = explained(pv({"fs.oss.list.type": "2"}))
    assert explanation["warnings"] == [
        "fs.oss.list.type: accepted, no effect: listing is always ListObjectsV2, in pages"
    ]
    assert explanation["error"] is None


def test_a_refused_volume_is_an_error_and_the_others_are_still_explained() -> None:
    result = explain(f"{pv({'fs.oss.retry.cuont': '1'})}\n---\n{pv()}")
    assert result.exit_code == 1
    assert "Error: 'fs.oss.retry.cuont': there is no such option" in result.stdout
    assert "Hint: did you mean fs.oss.retry.count?" in result.stdout
    assert "bkt" in result.stdout


def test_read_only_access_and_mount_options_of_the_volume_count() -> None:
    explanation = explained(pv(mode="ReadOnlyMany", flags=("attr_timeout=5",)))
    assert explanation["readOnly"] is True
    assert setting(explanation, "-oro") == ("true", "read-only access")
    assert setting(explanation, "-oattr_timeout") == ("5", "mountOptions")


def test_read_only_arguments_on_a_writing_access_mode_are_an_error() -> None:
    explanation = explained(pv({"fs.jindo.args": "-oro"}))
    assert "-oro" in explanation["error"]["message"]
    assert "ReadOnlyMany" in explanation["error"]["hint"]


def test_the_group_of_the_pod_may_be_told() -> None:
    assert setting(explained(pv(), "--fs-group", "2000"), "gid") == ("2000", "fsGroup")


def test_a_storage_class_is_explained_without_what_only_makes_volumes() -> None:
    explanation = explained(
        """
        kind: StorageClass
        metadata: {name: c}
        provisioner: ossfuse.csi.dev
        mountOptions: [ro]
        parameters:
          bucket: bkt
          url: https://oss-cn-hangzhou.aliyuncs.com
          pathPattern: ${.PVC.namespace}/${.PVC.name}
          onDelete: delete
          csi.storage.k8s.io/node-publish-secret-name: s
        """
    )
    assert explanation["error"] is None
    assert setting(explanation, "bucket") == ("bkt", "attribute")
    assert setting(explanation, "-oro") == ("true", "mountOptions")
    assert explanation["warnings"] == []
    assert explanation["notes"] == [
        "pathPattern: each volume gets the path '${.PVC.namespace}/${.PVC.name}' below the one shown"
    ]


def storage_class(**parameters: object) -> str:
    place = {"bucket": "bkt", "url": "https://oss-cn-hangzhou.aliyuncs.com"}
    document = {"kind": "StorageClass", "metadata": {"name": "c"}, "provisioner": "ossfuse.csi.dev"}
    return json.dumps({**document, "parameters": {**place, "authType": "public", **parameters}})


@pytest.mark.parametrize(
    ("parameters", "message", "hint"),
    [
        ({"onDelete": "destroy"}, "onDelete: 'destroy' is not accepted, expected retain or delete", ""),
        ({"pathPattern": "${.PVC.uid}"}, "expected only the variables ${.PV.name}", "remove ${.PVC.uid}"),
        ({"pathPattern": "../x"}, "pathPattern: '../x' is not accepted, expected a path without '..'", ""),
        ({"pathPattern": "${.PVC.name"}, "expected every ${ to be closed by }", ""),
        ({"pathPatern": "x"}, "'pathPatern': there is no such option", "did you mean pathPattern?"),
        ({"onDeletion": "delete"}, "'onDeletion': there is no such option", "did you mean onDelete?"),
    ],
)
def test_what_the_controller_refuses_of_a_storage_class_is_an_error(
    parameters: dict[str, str], message: str, hint: str
) -> None:
    error = explained(storage_class(**parameters))["error"]
    assert message in error["message"]
    assert error["hint"] == hint


def test_a_parameter_that_is_no_text_is_an_error() -> None:
    result = explain(storage_class(onDelete=True))
    assert result.exit_code == 1
    assert "parameters.onDelete: 'True' is not accepted, expected text; put it into quotes" in result.stderr


@pytest.mark.parametrize("arguments", ["-oro", "-oattr_timeout=1"])
def test_a_storage_class_may_be_meant_for_reading_or_writing(arguments: str) -> None:
    assert explained(storage_class(**{"fs.jindo.args": arguments}))["error"] is None


@pytest.mark.parametrize(("key", "hint"), [("pathPattern", "says its place with path"), ("onDelete", "never deleted")])
def test_a_parameter_of_a_storage_class_is_refused_on_a_volume(key: str, hint: str) -> None:
    error = explained(pv({key: "retain"}))["error"]
    assert error["message"] == f"{key}: this option is not accepted here"
    assert hint in error["hint"]


def test_a_block_volume_is_an_error() -> None:
    error = explained(pv().replace("spec:\n", "spec:\n  volumeMode: Block\n"))["error"]
    assert "OSS holds objects, not block devices" in error["message"]
    assert error["hint"] == "use volumeMode: Filesystem"


def test_a_volume_mode_that_does_not_exist_is_an_error() -> None:
    result = explain(pv().replace("spec:\n", "spec:\n  volumeMode: Blok\n"))
    assert result.exit_code == 1
    assert "spec.volumeMode: 'Blok' is not accepted, expected Filesystem" in result.stderr


@pytest.mark.parametrize(
    "dataset",
    [
        {"Name": "d", **{"Uri": PLACE["uri"]}, "Options": '{"fs.oss.retry.count": 7, "mountPath": "/mnt"}'},
        {"name": "d", **PLACE, "options": {"fs.oss.retry.count": 7}},
        {"DatasetId": "d-1", "Uri": PLACE["uri"], "Options": '{"mode": "FastReadWrite", "fs.oss.retry.count": "7"}'},
    ],
)
def test_a_pai_dataset_is_a_volume(dataset: dict) -> None:
    assert setting(explained(json.dumps(dataset)), "fs.oss.retry.count") == ("7", "options JSON")


def test_an_inline_volume_of_a_pod_is_a_volume() -> None:
    volume = {"name": "v", "csi": {"driver": "ossfuse.csi.dev", "readOnly": True, "volumeAttributes": PLACE}}
    other = {"name": "o", "csi": {"driver": "other.csi.dev"}}
    explanation = explained(
        json.dumps({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"volumes": [other, volume]}})
    )
    assert explanation["name"] == "Pod p, volume v"
    assert explanation["readOnly"] is True


def test_a_list_is_taken_apart() -> None:
    items = [json.loads(json.dumps({"kind": "PersistentVolume", "spec": {"csi": {"volumeAttributes": PLACE}}}))] * 2
    result = explain(json.dumps({"kind": "List", "items": items}), "--output", "json")
    assert len(json.loads(result.stdout)) == 2


def test_a_volume_of_another_driver_or_without_a_secret_is_remarked_on() -> None:
    text = json.dumps(
        {
            "kind": "PersistentVolume",
            "spec": {"csi": {"driver": "ossplugin.csi.alibabacloud.com", "volumeAttributes": PLACE}},
        }
    )
    warnings = explained(text)["warnings"]
    assert "spec.csi.driver is 'ossplugin.csi.alibabacloud.com'" in warnings[0]
    assert "no Secret is named in nodePublishSecretRef" in warnings[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "this is neither YAML nor JSON"),
        ("\x00", "this is neither YAML nor JSON"),
        ("a: !!python/object:os.system x", "this is neither YAML nor JSON"),
        ("", "there is no volume in this file"),
        ("kind: Secret\nmetadata: {name: keys}", "there is no volume in this file, it holds Secret keys"),
        ("just text", "there is no volume in this file, it holds a str"),
        ("kind: PersistentVolume\nspec: []", "spec: expected a mapping"),
        (
            "kind: PersistentVolume\nspec: {csi: {volumeAttributes: [1]}}",
            "spec.csi.volumeAttributes: expected a mapping",
        ),
        ("kind: PersistentVolume\nspec: {mountOptions: ro, csi: {driver: x}}", "spec.mountOptions: expected a list"),
        ("kind: PersistentVolume\nspec: {mountOptions: [1], csi: {driver: x}}", "spec.mountOptions: '1'"),
    ],
)
def test_a_file_that_is_no_description_is_refused_in_one_line(text: str, said: str) -> None:
    result = explain(text)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("value", [0o22, True, 1.5, None, [1], {"a": 1}])
def test_an_attribute_that_is_not_text_is_refused_as_kubernetes_would(value: object) -> None:
    assert "only strings" in explained(pv({"umask": value}))["error"]["message"]


def test_a_credential_among_the_attributes_is_not_shown() -> None:
    result = explain(pv({"akSecret": "hunter2", "fs.oss.accessKeySecret": "hunter3"}))
    assert result.exit_code == 1
    assert "hunter" not in result.output
