"""A sidecar that is stopped, and so silent: the node plugin says so, unpublish is bounded, and programs are freed."""

from __future__ import annotations

import os
import signal
import threading

from csi.handover.removal import Patience
from csi.volume.units import Seconds
from tests.support.emulator import RunningEmulator
from tests.support.journal import Expected
from tests.support.node import Node
from tests.support.published_volume import program, published_volume, until

IMPATIENT = Patience(grace=Seconds(2.0), silence=Seconds(3.0))  # a sidecar reports every two seconds


def test_a_stopped_sidecar_is_reported_and_taken_away_with_its_programs_freed(
    node: Node, emulator: RunningEmulator
) -> None:
    expected = Expected()
    with published_volume(node, emulator, patience=IMPATIENT, mode="consistent") as volume:
        assert not volume.is_abnormal()
        with program("writing_program", "overwrite", str(volume.path), "stopped", "1000") as writing:
            for _ in range(20):
                expected.take(writing.line() or "")
            pid = volume.sidecar
            os.kill(pid, signal.SIGSTOP)
            until(volume.is_abnormal)
            message = volume.plugin.condition(volume.request.volume_id, volume.path).message
            assert f"sidecar {pid} of volume {volume.request.volume_id} has not answered for" in message
            volume.publish()  # kubelet repeats it; the mount is not touched
            unpublish = threading.Thread(target=volume.unpublish, daemon=True)
            unpublish.start()
            unpublish.join(30)
            assert not unpublish.is_alive()
            for said in writing.lines():
                expected.take(said)
            assert writing.wait() == 0
        assert expected.errors in (["ENOTCONN"], ["ECONNABORTED"])
        assert volume.remains() == []
        assert expected.violations(volume.bucket.get) == []


def test_a_sidecar_that_goes_on_after_a_pause_is_well_again(node: Node, emulator: RunningEmulator) -> None:
    expected = Expected()
    with published_volume(node, emulator, patience=IMPATIENT, mode="consistent") as volume:
        with program("writing_program", "save", str(volume.path), "paused", "8") as writing:
            expected.take(writing.line() or "")
            os.kill(volume.sidecar, signal.SIGSTOP)
            until(volume.is_abnormal)
            os.kill(volume.sidecar, signal.SIGCONT)
            for said in writing.lines():
                expected.take(said)
            assert writing.wait() == 0
        until(lambda: not volume.is_abnormal())
        assert expected.errors == []
        assert expected.violations(volume.bucket.get) == []
