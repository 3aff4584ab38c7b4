"""A checkpoint saved or loaded, with the report of the load program.

    torch_checkpoint.py CLIENT ENDPOINT BUCKET save|load KEY SIZE
    torch_checkpoint.py make SIZE FILE            the same bytes as a file

The state is SIZE bytes of tensors of up to 64 MiB whose every element says where it stands. `memory` is the highest
resident size above that of the start; what the loaded tensors themselves take is left out.
"""

from __future__ import annotations

import sys
import tempfile

import torch

from benchmarks.programs.torch_client import Meter, arguments, module_of, report

TENSOR = 64 << 20
ELEMENT = 4


def state(size: int) -> dict[str, torch.Tensor]:
    return {name: tensor(start, length) for name, start, length in layers(size)}


def layers(size: int) -> list[tuple[str, int, int]]:
    """(name, first byte, bytes) of each."""
    starts = range(0, size, TENSOR)
    return [(f"layer{start // TENSOR}.weight", start, min(TENSOR, size - start)) for start in starts]


def tensor(start: int, size: int) -> torch.Tensor:
    first = start // ELEMENT
    return torch.arange(first, first + size // ELEMENT, dtype=torch.int32)


def wrong_tensors(found: dict[str, torch.Tensor], size: int) -> int:
    expected = layers(size)
    wrong = [name for name, start, length in expected if not torch.equal(found[name], tensor(start, length))]
    return len(wrong) + abs(len(found) - len(expected))


def main() -> None:
    if sys.argv[1] == "make":
        with open(sys.argv[3], "wb") as file:
            torch.save(state(int(sys.argv[2])), file)
        return
    client, endpoint, bucket, what, key = sys.argv[1:6]
    size = int(sys.argv[6])
    uri = f"oss://{bucket}/{key}"
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = module_of(client).OssCheckpoint(**arguments(endpoint, directory))
        if what == "save":
            saved = state(size)
            meter = Meter()
            with checkpoint.writer(uri) as writer:
                torch.save(saved, writer)
            meter.stop()
            wrong, grown, cpu = 0, meter.grown, meter.cpu
        else:
            meter = Meter()
            with checkpoint.reader(uri) as reader:
                loaded = torch.load(reader)
            meter.stop()
            grown, cpu = meter.grown - size, meter.cpu
            wrong = wrong_tensors(loaded, size)
        report(seconds=meter.seconds, bytes=size, operations=1, wrong=wrong, cpu=cpu, memory=max(grown, 1))


if __name__ == "__main__":
    main()
