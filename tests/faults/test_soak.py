"""Many processes use one mount in consistent mode for a while, each in a directory of its own, and everything they see
is what the semantics document says; now and then OSS fails, which nobody notices."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.emulator import RunningEmulator
from tests.support.node import Node
from tests.support.published_volume import program, published_volume

PROCESSES = 8
OPERATIONS = 250


@pytest.mark.parametrize("arguments", ["", "-odirect_io"], ids=["page-cache", "direct"])
def test_many_processes_see_what_the_model_says(node: Node, emulator: RunningEmulator, arguments: str) -> None:
    options = {"fs__oss__retry__interval__millisecond": "20", "fs__oss__blocklet__size__mb": "1"}
    if arguments:
        options["fs__jindo__args"] = arguments
    with published_volume(node, emulator, mode="consistent", **options) as volume, ExitStack() as stack:
        emulator.fault(status=503, probability=0.01, seed=1)
        running = [
            stack.enter_context(
                program("soaking_program", f"{volume.path}/own-{n}", f"{n}{arguments}", str(OPERATIONS))
            )
            for n in range(PROCESSES)
        ]
        said = [list(one.lines()) for one in running]
        assert said == [[f"done {OPERATIONS}"]] * PROCESSES
        assert volume.bucket.kept_uploads() == []
