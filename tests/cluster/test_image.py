"""The container image as tools/image.sh builds it: small, without privileges, and all of the product works in it."""

from __future__ import annotations

import os
import re
import socket
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from csi.cluster.webhook.resources import ContainerResources
from csi.cluster.webhook.sidecar import SidecarSettings, sidecar_container
from csi.handover.channel import Channel
from csi.handover.wire import Hello
from csi.sidecar.main import ReadyFile
from csi.volume.units import MIB, Bytes, Seconds
from tests.support.image_root import ARCHIVE, CHECKOUT, Image, build, programs, unpack

pytestmark = pytest.mark.timeout(1800)  # the first test may have to build the image from nothing

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
LARGEST = 200_000_000
NEVER_IN_A_SIDECAR = {
    *("grpc", "google", "kubernetes", "cryptography", "aiohttp", "click", "rich", "yaml", "requests", "oss2"),
    *("csi.cli.group", "csi.driver", "csi.cluster", "csi.emulator", "csi.torch"),
}
UNCHECKED_HASH = 1  # PEP 552: Python takes the bytecode as it is, whatever the time of its source


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    build()
    return unpack(ARCHIVE, tmp_path_factory.mktemp("image") / "root")


@pytest.fixture
def shared(tmp_path) -> Iterator[Path]:
    """What the pod mounts at /run/ossfuse: writable for the image's user."""
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


@pytest.fixture(scope="module")
def packages(image) -> Path:
    (found,) = (image.root / "opt/ossfuse/lib").glob("python3.*/site-packages")
    return found


def test_it_is_tagged_with_the_version_of_the_project(image):
    assert image.tag == f"docker.io/ossfuse-csi/ossfuse-csi:{PROJECT['version']}"


def test_it_runs_ossfuse_as_nobody(image):
    assert image.config["User"] == "65534:65534"
    assert image.config["Entrypoint"] == ["ossfuse"]
    assert not image.config.get("Cmd")


def test_its_labels_tell_what_it_is(image):
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.title"] == PROJECT["name"]
    assert labels["org.opencontainers.image.version"] == PROJECT["version"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]
    assert labels["org.opencontainers.image.description"]


def test_a_build_without_arguments_has_the_version_of_the_project_too():
    assert f"\nARG VERSION={PROJECT['version']}\n" in (CHECKOUT / "Dockerfile").read_text()


def test_it_is_smaller_than_200_mb(image):
    assert image.size < LARGEST


def test_nothing_in_it_compiles_or_installs(image, packages):
    found = programs([image.root / place for place in ("usr/bin", "usr/sbin", "usr/local/bin", "opt/ossfuse/bin")])
    unwanted = re.compile(
        r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|ld|as|make)(-[\d.]+)?|(pip|easy_install)[\d.]*|apt(-.*)?|perl.*"
    )
    assert {name for name in found if unwanted.fullmatch(name)} == set()
    assert programs([packages]).isdisjoint({"pip", "setuptools", "wheel", "Cython", "grpc_tools"})
    assert not list(image.root.glob("usr/lib/python3*/ensurepip"))


def test_it_has_no_headers_and_no_static_libraries(image):
    found = [path for path in image.root.rglob("*.[hca]") if path.is_file() and not path.is_symlink()]
    assert found == []


def test_no_program_in_it_gives_rights_to_its_caller(image):
    privileged = [path for path in image.root.rglob("*") if path.is_file() and path.lstat().st_mode & 0o6000]
    assert privileged == []


def test_no_secret_of_the_build_is_left_in_it(image):
    assert not (image.root / "run" / "secrets").exists()
    assert not [variable for variable in image.config["Env"] if "CERT" in variable or "PROXY" in variable.upper()]


def test_every_part_brings_its_licence(image, packages):
    assert (next(packages.glob("ossfuse_csi-*.dist-info")) / "licenses" / "LICENSE").is_file()
    status = (image.root / "var/lib/dpkg/status").read_text()
    installed = re.findall(r"^Package: (.*)\nStatus: install ok installed$", status, re.MULTILINE)
    assert "python3" in installed
    documents = image.root / "usr" / "share" / "doc"
    assert [name for name in installed if not (image.root / _resolved(documents / name) / "copyright").exists()] == []


def test_all_bytecode_is_there_and_never_compared_with_its_source(image):
    modules = [*image.root.glob("usr/lib/python3.*/**/*.py"), *image.root.glob("opt/ossfuse/lib/**/*.py")]
    assert len(modules) > 1000
    assert [path for path in modules if not _has_lasting_bytecode(path)] == []


def test_its_root_cannot_be_written_to_and_need_not_be(image, shared):
    script = "touch /here /opt/ossfuse/here /tmp/here 2>/dev/null; test ! -e /tmp/here && touch /run/ossfuse/there"
    image.run("sh", "-c", script, shared=shared)
    assert (shared / "there").exists()


@pytest.mark.parametrize("arguments", ["--help", "node --help", "controller --help", "sidecar --help", "doctor --help"])
def test_its_commands_show_their_help(image, shared, arguments):
    assert "usage: ossfuse" in image.run("ossfuse", *arguments.split(), shared=shared).lower()


def test_every_module_of_the_project_can_be_imported_in_it(image, shared):
    script = """if True:
        import importlib, pkgutil, csi
        names = [name for _, name, _ in pkgutil.walk_packages(csi.__path__, "csi.")
                 if not name.startswith("csi.torch.")]  # for training code, which has PyTorch
        print(len([importlib.import_module(name) for name in names if not name.endswith("__main__")]))"""
    sources = [path for path in (CHECKOUT / "csi").rglob("*.py") if not {"v1", "torch"} & set(path.parts)]
    assert int(image.run("python", "-c", script, shared=shared)) > len(sources) * 0.8


def test_what_the_libraries_load_late_is_there(image, shared):
    script = "import oss2.crypto_bucket, cryptography.x509, aiohttp.web, kubernetes.config, rich.table, rich.traceback"
    image.run("python", "-c", script, shared=shared)


def test_what_is_compiled_is_there_and_nothing_has_to_do_without(image, shared):
    script = (
        "import csi.fuse.native.device, csi.fuse.native.records, csi.oss.wire; "
        "from csi.fuse.choice import OWN, choose; print(choose(OWN).name == OWN)"
    )
    assert image.run("python", "-c", script, shared=shared).strip() == "True"


def test_authorities_are_found_where_python_and_curl_look_for_them(image, shared):
    script = """if True:
        import ssl, os, csi.oss.transport
        assert len(os.listdir(ssl.get_default_verify_paths().capath)) > 100
        assert any(os.path.getsize(path) > 100000 for path in csi.oss.transport.CA_BUNDLES if os.path.exists(path))"""
    image.run("python", "-c", script, shared=shared)


def test_the_gate_before_the_application_can_be_run_in_it(image, shared):
    resources = ContainerResources(Bytes(512 * MIB), Bytes(512 * MIB), 100)
    container = sidecar_container("ossfuse-data", resources, SidecarSettings(image.tag))
    gate = image.start(*container["lifecycle"]["postStart"]["exec"]["command"], shared=shared)
    try:
        while not (shared / "READY.pipe").exists():
            assert gate.poll() is None
        assert (shared / "READY.pipe").is_fifo()
        directory = os.open(shared, os.O_PATH | os.O_DIRECTORY)
        ready = ReadyFile(directory, "READY")
        ready.make()
        said = gate.communicate(timeout=120)
        ready.close()
        os.close(directory)
    finally:
        gate.kill()
    assert (gate.returncode, said) == (0, ("", ""))


def test_a_sidecar_asks_for_its_volume_without_the_libraries_of_the_others(image, shared, tmp_path):
    record = tmp_path / "imports"
    with socket.socket(socket.AF_UNIX) as listener, record.open("w") as written:
        listener.bind(str(shared / "s"))
        (shared / "s").chmod(0o777)
        listener.listen()
        listener.settimeout(120)
        sidecar = image.start(
            *(*image.config["Entrypoint"], "sidecar", "--socket", "/run/ossfuse"),
            shared=shared,
            environment={"PYTHONPROFILEIMPORTTIME": "1"},
            stderr=written,
        )
        try:
            connection, _ = listener.accept()
            channel = Channel(connection)
            asked = channel.receive(Seconds(60.0))
            channel.close()
        finally:
            sidecar.kill()
            sidecar.communicate()
    assert isinstance(asked.message, Hello)
    assert not asked.message.resume
    loaded = {line.rpartition("|")[2].strip() for line in record.read_text().splitlines()}
    assert "csi.sidecar.assemble" in loaded
    assert {name for name in loaded if _reaches(name)} == set()


def test_the_controller_listens_on_its_socket(image, shared, tmp_path):
    with (tmp_path / "log").open("w") as log:
        command = ("ossfuse", "controller", "--endpoint", "unix:///run/ossfuse/csi.sock")
        controller = image.start(*command, shared=shared, stdout=log, stderr=log)
    try:
        while not (shared / "csi.sock").exists():
            assert controller.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
    finally:
        controller.kill()
        controller.wait()


def test_the_pinned_versions_are_those_the_project_asks_for():
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (CHECKOUT / "tools/image/requirements.txt").read_text(), re.M))
    asked = [Requirement(text) for text in PROJECT["dependencies"]]
    wrong = [
        str(requirement)
        for requirement in asked
        if not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"))
    ]
    assert not wrong, f"run `tools/image.sh lock`: {wrong}"


def _reaches(name: str) -> bool:
    return any(name == banned or name.startswith(f"{banned}.") for banned in NEVER_IN_A_SIDECAR)


def _resolved(directory: Path) -> Path:
    return directory.parent / directory.readlink() if directory.is_symlink() else directory


def _has_lasting_bytecode(source: Path) -> bool:
    for compiled in source.parent.glob(f"__pycache__/{source.stem}.cpython-*.pyc"):
        with compiled.open("rb") as file:
            return int.from_bytes(file.read(8)[4:], "little") == UNCHECKED_HASH
    return False
