"""What a long manifest costs a data set: `python -m benchmarks.torch_manifest [LINES]`, ten million unless said.

A manifest of a key and a label a line is read as OssMapDataset keeps it and as OssIterableDataset streams it, each in a
process of its own, which says how far its resident memory rose above that of the start. Needs neither PyTorch nor a
server: reading a manifest asks nobody.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.model import MIB
from csi.torch.configuration import Configuration
from csi.torch.connection import Connection
from csi.torch.manifests import imagenet_manifest_parser
from csi.torch.sources import Manifest

LINES = 10_000_000
BASE = "oss://bucket/"
CLASSES = 1000


class NoCredentials:
    """Nobody asks for any."""

    def open(self) -> None:
        raise AssertionError


def lines(count: int) -> Iterator[str]:
    """Keys and labels as those of ImageNet look."""
    for number in range(count):
        folder = f"n{number % CLASSES:08d}"
        yield f"train/{folder}/{folder}_{number}.JPEG\t{number % CLASSES}\n"


def main() -> None:
    if len(sys.argv) > 2:
        print(json.dumps(measure(sys.argv[1], sys.argv[2])))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else LINES
    with tempfile.NamedTemporaryFile("w", prefix="ossfuse-manifest-") as file:
        file.writelines(lines(count))
        file.flush()
        print(f"{count} lines, {Path(file.name).stat().st_size / MIB:.0f} MiB")
        for way, kind in (("kept", "OssMapDataset"), ("streamed", "OssIterableDataset")):
            command = [sys.executable, "-m", "benchmarks.torch_manifest", way, file.name]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if found["samples"] != count:
                raise SystemExit(f"{kind} has {found['samples']} samples")
            told = f"{kind}: {found['seconds']:.0f} s, resident memory +{found['grown'] / MIB:.1f} MiB at most"
            if found["list"]:
                beside = (found["list"] - found["text"]) / count
                told += f"; the list {found['list'] / MIB:.0f} MiB, {beside:.1f} bytes a sample beside key and label"
            print(told)


def measure(way: str, path: str) -> dict[str, float]:
    manifest = Manifest(path, imagenet_manifest_parser, BASE)
    connection = Connection("", NoCredentials(), Configuration())  # type: ignore[arg-type]
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, started = _status("VmRSS"), time.monotonic()
    kept = text = 0
    if way == "kept":
        samples = manifest.samples(connection)
        seconds, grown = time.monotonic() - started, _status("VmHWM") - before
        count, kept = len(samples), samples.memory
        text = sum(len(entry.key.encode()) + len(str(entry.label)) for entry in samples)
    else:
        count = sum(1 for _ in manifest.stream(connection))
        seconds, grown = time.monotonic() - started, _status("VmHWM") - before
    return {"samples": count, "seconds": seconds, "grown": grown, "list": kept, "text": text}


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


if __name__ == "__main__":
    main()
