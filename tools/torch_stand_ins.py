"""Make PyPI's torch load on a machine without CUDA, and without the four gigabytes of CUDA that it is linked against.

    torch_stand_ins.py DIRECTORY            the site-packages with torch, nvidia-cuda-runtime and nvidia-cuda-cupti

PyPI has no CPU build of torch for x86-64, and the loader insists on every library that torch's own were linked with.
Each that is missing gets a stand-in beside them, with the symbols they ask of it: it loads, and a program that calls
into it ends, naming the function. That cannot happen where there is no GPU: the CUDA runtime, which is real, says so
first. Needs gcc and binutils. Prints what it made.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#define FUNCTION(name) void name(void) { fputs("torch called " #name ", which is not here\\n", stderr); abort(); }
"""
_LOADED_LATER = ("libtorch_cuda_linalg", "libcaffe2_nvrtc")
"""Those of torch's libraries that are loaded by their first caller."""
_FOREIGN = ("cublas", "cudnn", "cufft", "cuFile", "cusparse", "nccl", "nvrtc", "nvshmem")
"""What names of NVIDIA's functions without a version begin with."""


def main() -> None:
    packages = Path(sys.argv[1])
    libraries = sorted((packages / "torch" / "lib").glob("*.so*"))
    loaded = [library for library in libraries if not library.name.startswith(_LOADED_LATER)]
    wanted = {name for library in loaded for name in _needed(library) if name not in {made.name for made in libraries}}
    present = {found.name for found in (packages / "nvidia").rglob("*.so*")} | _of_the_system()
    asked = {symbol for library in loaded for symbol in _undefined(library)}
    for name in sorted(wanted - present):
        made = _stand_in(packages / "torch" / "lib" / name, asked)
        print(f"{name}: {made} functions")


def _needed(library: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", _output("readelf", "-d", library))


def _undefined(library: Path) -> Iterator[tuple[str, str]]:
    """(name, version) of each function a library takes from others; the version is '' for those that have none."""
    for line in _output("nm", "-D", "--undefined-only", library).splitlines():
        name, _, version = line.split()[1].partition("@")
        yield name, version.lstrip("@")


def _of_the_system() -> set[str]:
    return {line.split()[0] for line in _output("/sbin/ldconfig", "-p").splitlines() if "=>" in line}


def _stand_in(target: Path, asked: Iterable[tuple[str, str]]) -> int:
    """A library with what is asked of it; returns how many functions that is."""
    own = target.name.partition(".so")[0].removeprefix("lib").removesuffix("_host")
    versioned = {version for _, version in asked if version == target.name or version.lower() == own}
    names = {name for name, version in asked if version in versioned}
    names |= {name for name, version in asked if not version and name.startswith(_FOREIGN) and _begins(name, own)}
    with tempfile.TemporaryDirectory() as directory:
        source, script = Path(directory) / "functions.c", Path(directory) / "version"
        source.write_text(_SOURCE + "".join(f"FUNCTION({name})\n" for name in sorted(names)))
        script.write_text("".join(f"{version} {{ global: *; }};\n" for version in versioned))
        flags = [f"-Wl,--version-script={script}"] if versioned else []
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            "-w",
            f"-Wl,-soname,{target.name}",
            *flags,
            "-o",
            str(target),
            str(source),
        ]
        subprocess.run(command, check=True)
    return len(names)


def _begins(name: str, own: str) -> bool:
    return name.lower().startswith(own.lower())


def _output(*command: object) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
