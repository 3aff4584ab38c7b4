"""Build step: generate the CSI messages and services (csi/v1) from proto/csi/v1/csi.proto."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


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


setup(cmdclass={"build_py": BuildWithProto})
