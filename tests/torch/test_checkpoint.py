"""torch.save and torch.load through OssCheckpoint, against the emulator: right bytes, few requests, honest ends."""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from csi.errors import ObjectNotFound, PermissionDenied, PreconditionFailed
from csi.torch import OssCheckpoint
from csi.volume.units import MIB
from tests.torch.conftest import Ground

TREE = str(Path(__file__).resolve().parents[2])
KEY = "models/model.pt"


def state(megabytes: int = 24) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(megabytes)
    tensors = {f"small.{i}": torch.randn(100 + i, generator=generator) for i in range(40)}
    size = megabytes * MIB // 4 // 4
    return tensors | {f"large.{i}": torch.randn(size, generator=generator) for i in range(4)}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def save(checkpoint: OssCheckpoint, uri: str, what: object, **options: Any) -> None:
    with checkpoint.writer(uri) as writer:
        torch.save(what, writer, **options)


def load(checkpoint: OssCheckpoint, uri: str, **options: Any) -> Any:
    with checkpoint.reader(uri) as reader:
        return torch.load(reader, **options)


@pytest.fixture
def checkpoint(ground: Ground) -> OssCheckpoint:
    ground.configure(checkpointConfig={"uploadIoSizeMB": 1, "uploadBufferSizeMB": 8})
    return OssCheckpoint(**ground.arguments)


def test_what_was_saved_is_loaded(ground: Ground, checkpoint: OssCheckpoint) -> None:
    what = state()
    save(checkpoint, ground.uri(KEY), what)
    assert are_equal(load(checkpoint, ground.uri(KEY)), what)


def test_the_guides_uri_with_an_endpoint_leads_to_the_same_object(ground: Ground, checkpoint: OssCheckpoint) -> None:
    save(checkpoint, ground.uri(KEY), {"step": 1})
    assert load(checkpoint, f"/{ground.emulator.bucket}/{KEY}") == {"step": 1}


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_both_formats_of_torch_are_saved_and_loaded(
    ground: Ground, checkpoint: OssCheckpoint, options: dict[str, bool]
) -> None:
    what = state(4)
    save(checkpoint, ground.uri(KEY), what, **options)
    assert are_equal(load(checkpoint, ground.uri(KEY)), what)


def test_an_optimizer_comes_back_as_it_was(ground: Ground, checkpoint: OssCheckpoint) -> None:
    model = torch.nn.Linear(20, 10)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(3, 20)).sum().backward()
    optimizer.step()
    save(checkpoint, ground.uri(KEY), {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    found = load(checkpoint, ground.uri(KEY))
    again = torch.optim.Adam(model.parameters())
    again.load_state_dict(found["optimizer"])
    assert str(again.state_dict()) == str(optimizer.state_dict())


def test_loading_fetches_every_byte_once(ground: Ground, checkpoint: OssCheckpoint) -> None:
    save(checkpoint, ground.uri(KEY), state())
    ground.emulator.reset_counters()
    with checkpoint.reader(ground.uri(KEY)) as reader:
        torch.load(reader)
        size = reader.size
    assert ground.emulator.count("HeadObject") == 1
    assert ground.emulator.counters()["operations"]["GetObject"]["bytes_out"] == size


def test_a_small_checkpoint_is_two_requests_to_load_and_one_to_save(ground: Ground, checkpoint: OssCheckpoint) -> None:
    save(checkpoint, ground.uri(KEY), {"step": 1})
    assert ground.emulator.counters()["requests"] == 1
    ground.emulator.reset_counters()
    assert load(checkpoint, ground.uri(KEY)) == {"step": 1}
    assert ground.emulator.counters()["requests"] == 2


def test_only_the_structure_is_fetched_when_the_tensors_stay_where_they_are(
    ground: Ground, checkpoint: OssCheckpoint
) -> None:
    """What mmap=True does for local files: storages are not read, `torch.load` makes tensors without them."""
    save(checkpoint, ground.uri(KEY), state())
    ground.emulator.reset_counters()
    found = load(checkpoint, ground.uri(KEY), map_location="meta")
    assert found["large.0"].is_meta
    assert ground.emulator.counters()["operations"]["GetObject"]["bytes_out"] < 4 * MIB


def test_arrays_of_numpy_are_written(ground: Ground, checkpoint: OssCheckpoint) -> None:
    data = numpy.arange(3_000_000, dtype=numpy.float32).reshape(1000, 3000)
    with checkpoint.writer(ground.uri(KEY)) as writer:
        assert writer.write(data) == data.nbytes
        writer.write(data[:, ::2])
    with checkpoint.reader(ground.uri(KEY)) as reader:
        assert reader.read() == data.tobytes() + data[:, ::2].tobytes()


def test_a_temporary_connection_lives_as_long_as_its_file(ground: Ground, checkpoint: OssCheckpoint) -> None:
    save(checkpoint, ground.uri(KEY), {"step": 1})
    assert torch.load(OssCheckpoint(**ground.arguments).reader(ground.uri(KEY))) == {"step": 1}


def test_it_pickles_before_and_after_use(ground: Ground, checkpoint: OssCheckpoint) -> None:
    again = pickle.loads(pickle.dumps(checkpoint))
    save(again, ground.uri(KEY), {"step": 1})
    assert load(pickle.loads(pickle.dumps(again)), ground.uri(KEY)) == {"step": 1}


# --- faults ---


def test_a_missing_checkpoint_is_told_by_its_name(ground: Ground, checkpoint: OssCheckpoint) -> None:
    with pytest.raises(ObjectNotFound, match=r"model\.pt"):
        load(checkpoint, ground.uri(KEY))


@pytest.mark.parametrize("in_block", [True, False], ids=["with", "without with"])
def test_an_object_replaced_while_it_is_loaded_is_told(
    ground: Ground, checkpoint: OssCheckpoint, *, in_block: bool
) -> None:
    save(checkpoint, ground.uri(KEY), state())
    reader = checkpoint.reader(ground.uri(KEY))
    save(checkpoint, ground.uri(KEY), state(23))
    with pytest.raises(PreconditionFailed):
        if in_block:
            with reader:
                torch.load(reader)
        else:
            torch.load(reader)
    reader.close()


def test_a_connection_cut_in_the_middle_of_a_part_is_made_again(ground: Ground, checkpoint: OssCheckpoint) -> None:
    what = state()
    ground.emulator.fault(operation="UploadPart", reset_upload_after=300_000, count=3)
    save(checkpoint, ground.uri(KEY), what)
    ground.emulator.fault(operation="GetObject", truncate_after=300_000, count=3)
    assert are_equal(load(checkpoint, ground.uri(KEY)), what)


def test_a_part_that_cannot_be_sent_ends_the_save_and_leaves_nothing(ground: Ground, checkpoint: OssCheckpoint) -> None:
    save(checkpoint, ground.uri(KEY), {"step": 1})
    ground.emulator.fault(operation="UploadPart", status=403, code="AccessDenied")
    with pytest.raises(PermissionDenied, match="UploadPart"):
        save(checkpoint, ground.uri(KEY), state())
    ground.emulator.clear_faults()
    assert load(checkpoint, ground.uri(KEY)) == {"step": 1}
    assert ground.emulator.count("AbortMultipartUpload") == 1


def end_when_written(program: Path, sent: signal.Signals, *words: str) -> None:
    """Runs `program`, which says "written" and goes on, and sends it the signal then."""
    with subprocess.Popen(
        [sys.executable, str(program), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": TREE},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(sent)
        process.wait(30)


def test_a_killed_save_leaves_the_old_checkpoint_whole(
    ground: Ground, checkpoint: OssCheckpoint, tmp_path: Path
) -> None:
    save(checkpoint, ground.uri(KEY), {"step": 1})
    program = tmp_path / "saving.py"
    program.write_text(
        textwrap.dedent("""
        import json, sys, torch
        from csi.torch import OssCheckpoint
        uri, arguments = sys.argv[1], json.loads(sys.argv[2])
        with OssCheckpoint(**arguments).writer(uri) as writer:
            torch.save({"data": torch.zeros(4_000_000)}, writer)
            print("written", flush=True)
            sys.stdin.read()
        """)
    )
    end_when_written(program, signal.SIGKILL, ground.uri(KEY), json.dumps(ground.arguments))
    assert ground.emulator.count("UploadPart") > 0
    assert load(checkpoint, ground.uri(KEY)) == {"step": 1}


def test_a_script_that_ends_in_the_middle_of_a_save_leaves_no_parts(ground: Ground, tmp_path: Path) -> None:
    program = tmp_path / "ending.py"
    program.write_text(
        textwrap.dedent("""
        import json, sys
        from csi.torch import OssCheckpoint
        uri, arguments = sys.argv[1], json.loads(sys.argv[2])
        writer = OssCheckpoint(**arguments).writer(uri)
        writer.write(bytes(20_000_000))
        sys.exit(3)
        """)
    )
    ground.configure(checkpointConfig={"uploadIoSizeMB": 1})
    done = subprocess.run(
        [sys.executable, str(program), ground.uri(KEY), json.dumps(ground.arguments)],
        env={**os.environ, "PYTHONPATH": TREE},
        check=False,
    )
    assert done.returncode == 3
    assert ground.emulator.count("InitiateMultipartUpload") == 1
    assert ground.emulator.count("AbortMultipartUpload") == 1
    assert ground.emulator.count("CompleteMultipartUpload") == 0


@pytest.mark.parametrize("how", ["with", "forgotten"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_python_handles_leaves_no_parts(
    ground: Ground, tmp_path: Path, sent: signal.Signals, how: str
) -> None:
    """SIGTERM by the handler that docs/pytorch.md recommends."""
    program = tmp_path / "signalled.py"
    program.write_text(
        textwrap.dedent("""
        import json, signal, sys, time
        from csi.torch import OssCheckpoint
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        uri, arguments, how = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
        def save(writer):
            writer.write(bytes(20_000_000))
            print("written", flush=True)
            while True:
                time.sleep(0.01)  # Python misses a signal that comes just before it begins to sleep
        writer = OssCheckpoint(**arguments).writer(uri)
        if how == "with":
            with writer:
                save(writer)
        else:
            save(writer)
        """)
    )
    ground.configure(checkpointConfig={"uploadIoSizeMB": 1})
    end_when_written(program, sent, ground.uri(KEY), json.dumps(ground.arguments), how)
    assert ground.emulator.count("InitiateMultipartUpload") == 1
    assert ground.emulator.count("AbortMultipartUpload") == 1
    assert ground.emulator.count("CompleteMultipartUpload") == 0


def test_an_archive_of_numpy_is_written_and_read(ground: Ground, checkpoint: OssCheckpoint) -> None:
    arrays = {"a": numpy.arange(1_000_000), "b": numpy.ones((300, 300))}
    with checkpoint.writer(ground.uri(KEY)) as writer:
        numpy.savez(writer, **arrays)
    with checkpoint.reader(ground.uri(KEY)) as reader, numpy.load(reader) as found:
        assert sorted(found) == ["a", "b"]
        assert all(numpy.array_equal(found[name], arrays[name]) for name in arrays)


def test_a_save_that_fails_in_a_buffer_of_the_programs_publishes_nothing(
    ground: Ground, checkpoint: OssCheckpoint
) -> None:
    save(checkpoint, ground.uri(KEY), {"step": 1})

    def buffered() -> None:
        pickle.dump([bytes(100), threading.Lock()], io.BufferedWriter(checkpoint.writer(ground.uri(KEY))))

    with pytest.warns(ResourceWarning, match="was not closed"):
        with pytest.raises(TypeError):
            buffered()
        gc.collect()
    assert load(checkpoint, ground.uri(KEY)) == {"step": 1}
