"""proto/csi/v1/csi.proto says the same as the official definition: both are compiled and compared fact by fact.

The official file comes from the Go module github.com/container-storage-interface/spec (tools/go-tools.sh). Comments,
the order of declarations and the file's name may differ; nothing that reaches the wire or the options may.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ROOT = Path(__file__).resolve().parents[3]
OFFICIAL = ROOT / ".cache" / "go" / "csi-v1.12.0.proto"
OURS = ROOT / "proto" / "csi" / "v1" / "csi.proto"

Facts = dict[str, object]


@dataclass(frozen=True)
class Compiled:
    """One compiled file with its options parsed, extensions included."""

    file: descriptor_pb2.FileDescriptorProto
    pool: descriptor_pool.DescriptorPool

    def options(self, raw: object) -> object:
        """The options as text with every extension named; what the pool does not know would stay visible as numbers."""
        kind = self.pool.FindMessageTypeByName(raw.DESCRIPTOR.full_name)
        options = message_factory.GetMessageClass(kind).FromString(raw.SerializeToString())
        return sorted((field.full_name, value) for field, value in options.ListFields())


def compile_proto(path: Path, include: Path, scratch: Path) -> Compiled:
    bundled = Path(grpc_tools.__file__).resolve().parent / "_proto"
    out = scratch / "descriptors.pb"
    name = str(path.relative_to(include))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{include}", f"-I{bundled}"),
            *("--include_imports", f"--descriptor_set_out={out}", name),
        ],
        check=True,
    )
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    for file in files:
        pool.Add(file)
    return Compiled(next(file for file in files if file.name == name), pool)


def facts(compiled: Compiled) -> Facts:
    """Everything the definition says, each fact under the path of what it is about."""
    file = compiled.file
    found: Facts = {
        "syntax": file.syntax,
        "package": file.package,
        "imports": sorted(file.dependency),
        "public imports": sorted(file.public_dependency),
        "options": compiled.options(file.options),
    }
    for message in file.message_type:
        found.update(message_facts(compiled, message, ""))
    for enum in file.enum_type:
        found.update(enum_facts(compiled, enum, ""))
    for extension in file.extension:
        found[f"extension {extension.extendee}.{extension.name}"] = field_fact(compiled, extension, ())
    for service in file.service:
        found[f"service {service.name}"] = compiled.options(service.options)
        for method in service.method:
            found[f"service {service.name}.{method.name}"] = (
                method.input_type,
                method.output_type,
                method.client_streaming,
                method.server_streaming,
                compiled.options(method.options),
            )
    return found


def message_facts(compiled: Compiled, message: descriptor_pb2.DescriptorProto, outer: str) -> Iterator[tuple]:
    path = f"{outer}{message.name}"
    oneofs = tuple(oneof.name for oneof in message.oneof_decl)
    yield (
        f"message {path}",
        (
            compiled.options(message.options),
            sorted((oneof.name, str(compiled.options(oneof.options))) for oneof in message.oneof_decl),
            sorted((reserved.start, reserved.end) for reserved in message.reserved_range),
            sorted(message.reserved_name),
            sorted((extensible.start, extensible.end) for extensible in message.extension_range),
        ),
    )
    for field in message.field:
        yield f"field {path}.{field.name}", field_fact(compiled, field, oneofs)
    for extension in message.extension:
        yield f"extension {path}.{extension.name}", field_fact(compiled, extension, oneofs)
    for enum in message.enum_type:
        yield from enum_facts(compiled, enum, f"{path}.")
    for nested in message.nested_type:
        yield from message_facts(compiled, nested, f"{path}.")


def enum_facts(compiled: Compiled, enum: descriptor_pb2.EnumDescriptorProto, outer: str) -> Iterator[tuple]:
    path = f"{outer}{enum.name}"
    yield (
        f"enum {path}",
        (
            compiled.options(enum.options),
            sorted((reserved.start, reserved.end) for reserved in enum.reserved_range),
            sorted(enum.reserved_name),
        ),
    )
    for value in enum.value:
        yield f"enum value {path}.{value.name}", (value.number, compiled.options(value.options))


def field_fact(compiled: Compiled, field: descriptor_pb2.FieldDescriptorProto, oneofs: tuple[str, ...]) -> object:
    return (
        field.number,
        descriptor_pb2.FieldDescriptorProto.Type.Name(field.type),
        field.type_name,
        descriptor_pb2.FieldDescriptorProto.Label.Name(field.label),
        field.extendee,
        field.default_value,
        field.json_name,
        field.proto3_optional,
        oneofs[field.oneof_index] if field.HasField("oneof_index") else None,
        compiled.options(field.options),
    )


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Facts:
    assert OFFICIAL.is_file(), f"{OFFICIAL} is missing: run tools/go-tools.sh, which fetches it from the Go proxy"
    return facts(compile_proto(OFFICIAL, OFFICIAL.parent, tmp_path_factory.mktemp("official")))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Compiled:
    return compile_proto(OURS, ROOT / "proto", tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def ours(compiled) -> Facts:
    return facts(compiled)


def test_nothing_of_the_official_definition_is_missing(official, ours):
    assert sorted(official.keys() - ours.keys()) == []


def test_nothing_is_defined_that_the_official_definition_lacks(official, ours):
    assert sorted(ours.keys() - official.keys()) == []


def test_every_fact_equals_the_official_one(official, ours):
    different = {path: (official[path], ours.get(path)) for path in official if official[path] != ours.get(path)}

    assert different == {}


def test_the_comparison_sees_the_values_of_extension_options(official):
    options = official["field CreateVolumeRequest.secrets"][-1]

    assert options == [("csi.v1.csi_secret", True)]


@pytest.mark.parametrize(
    ("original", "altered", "path"),
    [
        ("string name = 1;", "string name = 9;", "field CreateVolumeRequest.name"),
        ("map<string, string> parameters = 4;", "map<string, bytes> parameters = 4;", "field "),
        ("secrets = 5 [(csi_secret) = true]", "secrets = 5", "field CreateVolumeRequest.secrets"),
        (
            "(stream GetMetadataDeltaResponse)",
            "(GetMetadataDeltaResponse)",
            "service SnapshotMetadata.GetMetadataDelta",
        ),
        ("option (alpha_service) = true;", "", "service SnapshotMetadata"),
        ("  BlockVolume block = 1;\n", "", "field VolumeCapability.block"),
        (
            "GET_SNAPSHOT = 15 [(alpha_enum_value) = true]",
            "GET_SNAPSHOT = 15",
            "enum value ControllerServiceCapability",
        ),
        ("option go_package", "option java_package", "options"),
    ],
)
def test_a_small_difference_is_found(official, tmp_path, original, altered, path):
    text = OURS.read_text()
    assert original in text
    changed = tmp_path / "csi.proto"
    changed.write_text(text.replace(original, altered))

    found = facts(compile_proto(changed, tmp_path, tmp_path))

    assert any(name.startswith(path) for name in official if official[name] != found.get(name))


def test_the_generated_code_in_use_is_this_definition(compiled):
    from csi.v1 import csi_pb2  # noqa: PLC0415 - generated at build; its absence should fail this test alone

    generated = descriptor_pb2.FileDescriptorProto()
    csi_pb2.DESCRIPTOR.CopyToProto(generated)

    assert generated.name == "csi/v1/csi.proto"
    assert facts(Compiled(generated, descriptor_pool.Default())) == facts(without_json_names(compiled))


def without_json_names(compiled: Compiled) -> Compiled:
    """The runtime derives JSON names from the fields' names and does not keep them in a descriptor."""
    stripped = descriptor_pb2.FileDescriptorProto()
    stripped.CopyFrom(compiled.file)
    messages = list(stripped.message_type)
    while messages:
        message = messages.pop()
        messages.extend(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")
    for extension in stripped.extension:
        extension.ClearField("json_name")
    return Compiled(stripped, compiled.pool)
