"""Build steps: the CSI messages and services (csi/v1) from proto/csi/v1/csi.proto, and the extensions in Cython.

An extension that cannot be built is left out (`optional`): what it does is then done in Python, more slowly.
"""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

# tables, answers and requests read without the interpreter's lock (csi/fuse/native), one HTTP exchange (csi/oss/wire)
SOURCES = (
    "csi/fuse/native/tables",
    "csi/fuse/native/sending",
    "csi/fuse/native/noted",
    "csi/fuse/native/fetches",
    "csi/fuse/native/scattered",
    "csi/fuse/native/quick",
    "csi/fuse/native/answers",
    "csi/fuse/native/tails",
    "csi/fuse/native/turns",
    "csi/fuse/native/buffers",
    "csi/fuse/native/device",
    "csi/fuse/native/records",
    "csi/oss/digests",
    "csi/oss/wire",
    "csi/oss/getting",
    "csi/oss/parcels",
)


def extensions() -> list[Extension]:
    there = [source for source in SOURCES if (ROOT / f"{source}.pyx").is_file()]
    return [
        Extension(source.replace("/", "."), [f"{source}.pyx"], extra_compile_args=["-O2", "-pthread"], optional=True)
        for source in there
    ]


def generate_csi() -> None:
    """Write csi/v1/csi_pb2{,_grpc}.py and their stubs beside the other rooms."""
    from grpc_tools import protoc  # noqa: PLC0415 - only there while building

    out = ROOT / "csi" / "v1"
    out.mkdir(parents=True, exist_ok=True)
    (out / "__init__.py").write_text('"""Generated from proto/csi/v1/csi.proto; not kept in git."""\n')
    include = Path(protoc.__file__).resolve().parent / "_proto"
    arguments = [
        "protoc",
        f"-I{ROOT / 'proto'}",
        f"-I{include}",
        f"--python_out={ROOT}",
        f"--pyi_out={ROOT}",
        f"--grpc_python_out={ROOT}",
        "csi/v1/csi.proto",
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed on proto/csi/v1/csi.proto; its message is above")


class BuildWithProto(build_py):
    def run(self) -> None:
        generate_csi()
        if "csi.v1" not in self.packages:  # the packages were looked for before it was there
            self.packages.append("csi.v1")
        super().run()


setup(
    cmdclass={"build_py": BuildWithProto},
    ext_modules=cythonize(extensions(), build_dir="build/cython", language_level=3),
)
