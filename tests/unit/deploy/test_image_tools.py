"""tools/image.sh on a machine that has neither buildah nor debootstrap."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
INPUTS = ("Dockerfile", ".dockerignore", "pyproject.toml", "setup.py", "README.md", "LICENSE")
TOOLS = {"buildah", "debootstrap"}


def test_what_is_missing_is_installed(tmp_path: Path) -> None:
    checkout, programs = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "tools").mkdir(parents=True)
    for name in INPUTS:
        shutil.copy(ROOT / name, checkout / name)
    for name in ("csi", "proto"):
        (checkout / name).mkdir()
    shutil.copy(ROOT / "tools" / "image.sh", checkout / "tools" / "image.sh")
    shutil.copytree(ROOT / "tools" / "image", checkout / "tools" / "image")
    programs.mkdir()
    for directory in ("/usr/bin", "/usr/sbin"):
        for program in Path(directory).iterdir():
            if program.name not in {*TOOLS, "apt-get"} and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    apt = programs / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ntest "$1" = update\n')
    apt.chmod(0o755)

    ended = subprocess.run(
        [str(checkout / "tools" / "image.sh")],
        env={"PATH": str(programs), "HOME": str(tmp_path), "LANG": os.environ.get("LANG", "C")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1, ended.stderr
    assert "installing Debian packages: buildah debootstrap" in ended.stderr
    _update, install = (tmp_path / "asked").read_text().splitlines()
    assert set(install.split()) >= TOOLS
