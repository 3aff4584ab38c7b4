"""Images without a registry: archives as `docker save` writes them, made from static programs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.harness.places import (
    BUSYBOX_IMAGE,
    LIVENESS_IMAGE,
    PAUSE_IMAGE,
    PROVISIONER_IMAGE,
    REGISTRAR_IMAGE,
    Places,
)

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_BUSYBOX = "/bin/busybox"
_SOURCES = (Path(__file__), Path(__file__).with_name("places.py"))
"""What says how images look and what they are called."""


@dataclass(frozen=True)
class Image:
    """`programs`: path in the image → file; `links`: path → target; `directories` are writable by everybody."""

    tag: str
    programs: dict[str, Path]
    links: dict[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ("tmp",)
    entry_point: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ("PATH=/bin",)


def write_image(image: Image, path: Path) -> None:
    """The archive at `path`, replaced as a whole. The same programs give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # two runs may make the same image at the same time
        _write_archive(image, Path(scratch, "layer"), Path(scratch, "archive"))
        Path(scratch, "archive").replace(path)


def cluster_images(places: Places) -> tuple[Path, ...]:
    """The archives that every cluster gets: pause, busybox, provisioner and the two stand-ins; made if out of date."""
    archives = []
    for name, image in _images(places).items():
        path = places.images / f"{name}.tar"
        newest = max(source.stat().st_mtime for source in (*image.programs.values(), *_SOURCES))
        if not path.exists() or path.stat().st_mtime < newest:
            write_image(image, path)
        archives.append(path)
    return tuple(archives)


def _write_archive(image: Image, layer_path: Path, path: Path) -> None:
    _write_layer(image, layer_path)
    with layer_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES[os.uname().machine],
            "os": "linux",
            "config": {
                "Env": list(image.environment),
                "Entrypoint": list(image.entry_point),
                "Cmd": list(image.command),
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created_by": "tests/cluster/harness/images.py"}],
        }
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [image.tag], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        archive.addfile(_file(config_name, len(config), 0o644), io.BytesIO(config))
        with layer_path.open("rb") as layer:
            archive.addfile(_file(f"{digest}/layer.tar", layer_path.stat().st_size, 0o644), layer)
        listed = json.dumps(manifest).encode()
        archive.addfile(_file("manifest.json", len(listed), 0o644), io.BytesIO(listed))


def _images(places: Places) -> dict[str, Image]:
    return {
        "pause": _single(PAUSE_IMAGE, places.program("pause")),
        "busybox": _busybox(),
        "csi-provisioner": _single(PROVISIONER_IMAGE, places.program("csi-provisioner")),
        "registrar": _single(REGISTRAR_IMAGE, places.program("registrar-stand-in")),
        "livenessprobe": _single(LIVENESS_IMAGE, places.program("livenessprobe-stand-in")),
    }


def _single(tag: str, program: Path) -> Image:
    return Image(tag, {program.name: program}, entry_point=(f"/{program.name}",))


def _busybox() -> Image:
    """Debian's static one; a busybox that needs libraries would not start."""
    busybox = Path(shutil.which("busybox") or _BUSYBOX)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
    return Image(BUSYBOX_IMAGE, {"bin/busybox": busybox}, links, ("tmp", "data"), command=("sh",))


def _write_layer(image: Image, path: Path) -> None:
    with tarfile.open(path, "w") as layer:
        for name in sorted({parent for inner in image.programs for parent in _parents(inner)}):
            layer.addfile(_directory(name, 0o755))
        for name in image.directories:
            layer.addfile(_directory(name, 0o1777))
        for inner, program in image.programs.items():
            with program.open("rb") as file:
                layer.addfile(_file(inner, program.stat().st_size, 0o755), file)
        for inner, target in image.links.items():
            link = tarfile.TarInfo(inner)
            link.type, link.linkname = tarfile.SYMTYPE, target
            layer.addfile(link)


def _parents(inner: str) -> list[str]:
    return [str(parent) for parent in Path(inner).parents if str(parent) != "."]


def _directory(name: str, mode: int) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.mode = tarfile.DIRTYPE, mode
    return found


def _file(name: str, size: int, mode: int) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.mode = size, mode
    return found
