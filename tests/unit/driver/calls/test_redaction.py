"""Over every message of every service: what is marked as a secret, or named like one, is in no log line."""

from __future__ import annotations

import json

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from csi.driver.calls.redaction import SERVICE_ACCOUNT_TOKENS, STRIPPED, redact_value, redacted, scrub, secret_values
from csi.v1 import csi_pb2

METHODS = [
    (service.name, method.name, kind)
    for service in csi_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    for kind in (method.input_type, method.output_type)
]


def filled(kind: Descriptor, depth: int = 0) -> tuple[Message, list[str], list[str]]:
    """A message with every field set; the markers in its secret fields and those in its plain strings."""
    message = GetMessageClass(kind)()
    secret: list[str] = []
    plain: list[str] = []
    for field in kind.fields:
        marked = field.GetOptions().Extensions[csi_pb2.csi_secret]
        marker = f"{'SECRET' if marked else 'plain'}-{kind.name}-{field.name}-{depth}"
        found = secret if marked else plain
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)["name"] = marker
            found.append(marker)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name):
                continue
            nested, nested_secret, nested_plain = filled(field.message_type, depth + 1)
            secret += nested_secret
            plain += nested_plain
            if field.is_repeated:
                getattr(message, field.name).append(nested)
            else:
                getattr(message, field.name).CopyFrom(nested)
                getattr(message, field.name).SetInParent()
        elif field.type == FieldDescriptor.TYPE_STRING:
            found.append(marker)
            if field.is_repeated:
                getattr(message, field.name).append(marker)
            else:
                setattr(message, field.name, marker)
    return message, secret, plain


@pytest.mark.parametrize(("service", "method", "kind"), METHODS, ids=lambda value: getattr(value, "name", value))
def test_no_marked_field_of_any_call_reaches_the_log(service, method, kind):
    message, secret, plain = filled(kind)

    line = redacted(message)

    assert [marker for marker in secret if marker in line] == []
    assert [marker for marker in plain if marker not in line] == []


@pytest.mark.parametrize(("service", "method", "kind"), METHODS, ids=lambda value: getattr(value, "name", value))
def test_redaction_leaves_the_message_as_it_was(service, method, kind):
    message, secret, _ = filled(kind)
    before = message.SerializeToString(deterministic=True)

    redacted(message)

    assert message.SerializeToString(deterministic=True) == before
    assert secret_values(message) == frozenset(secret)


def test_there_are_secret_fields_to_find():
    marked = [kind.name for _, _, kind in METHODS if filled(kind)[1]]

    assert "NodePublishVolumeRequest" in marked
    assert "CreateVolumeRequest" in marked
    assert len(marked) >= 15


def test_service_account_tokens_are_stripped_although_the_interface_does_not_mark_them():
    tokens = json.dumps({"sts.aliyuncs.com": {"token": "eyJhbGciOiJSUzI1NiJ9.body.mark", "expirationTimestamp": "x"}})
    request = csi_pb2.NodePublishVolumeRequest(
        volume_context={SERVICE_ACCOUNT_TOKENS: tokens, "csi.storage.k8s.io/pod.name": "trainer-0"}
    )

    line = redacted(request)

    assert "eyJhbGciOiJSUzI1NiJ9" not in line
    assert "trainer-0" in line
    assert "eyJhbGciOiJSUzI1NiJ9.body.mark" in secret_values(request)


@pytest.mark.parametrize(
    ("key", "value", "hidden", "shown"),
    [
        ("fs.oss.accessKeySecret", "marker-1", "marker-1", STRIPPED),
        ("options", '{"fs.oss.accessKeyId": "marker-2", "mode": "fast"}', "marker-2", '"mode": "fast"'),
        ("options", '{"a": [{"token": "marker-3"}]}', "marker-3", '"a"'),
        ("options", '{"broken": "marker-4', "marker-4", "not JSON"),
        ("fs.jindo.args", "-opasswd=marker-5 -oro", "marker-5", "-oro"),
        ("url", "http://user:marker-6@oss.example.com/", "marker-6", "oss.example.com"),
        ("bucket", "training-data", "marker", "training-data"),
    ],
)
def test_secrets_in_the_wrong_place_are_stripped_and_the_rest_is_shown(key, value, hidden, shown):
    text = redact_value(key, value)

    assert hidden not in text
    assert shown in text


def test_secrets_in_mount_flags_are_stripped_in_place_and_order():
    capability = csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(mount_flags=["ro", "password=marker", "uid=1000"])
    )
    request = csi_pb2.NodePublishVolumeRequest(volume_capability=capability)

    line = redacted(request)

    assert "marker" not in line
    assert line.index("ro") < line.index(f"password={STRIPPED}") < line.index("uid=1000")


def test_a_secret_that_contains_another_is_scrubbed_whole():
    assert scrub("key abcdefgh-long end", {"abcdefgh", "abcdefgh-long"}) == f"key {STRIPPED} end"


@pytest.mark.parametrize("size", [200, 1000])
def test_huge_attributes_make_a_short_line(size):
    request = csi_pb2.NodePublishVolumeRequest(volume_context={f"k{n}": "v" * 1000 for n in range(size)})

    assert len(redacted(request)) < 5000


@pytest.mark.timeout(20)
@pytest.mark.parametrize("value", ["x" * 2**20, "=" * 2**20, "a=b " * 2**18, "://" * 2**18, "-o" * 2**19])
def test_a_megabyte_in_one_value_is_redacted_in_no_time(value):
    request = csi_pb2.NodePublishVolumeRequest(volume_context={"key": value})

    assert len(redacted(request)) < 5000
    assert "characters" in redact_value("key", value)


def test_deeply_nested_json_does_not_break_the_log():
    assert "not JSON" in redact_value("options", "[" * 2000)
