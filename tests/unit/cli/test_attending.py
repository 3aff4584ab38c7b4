"""A mount that is served in the foreground: another sidecar after one that ended, told once, tried on, given up at the
end."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from csi.cli.attending import GLANCE, Attending
from csi.cli.ending import Ending
from csi.errors import CredentialsMissing, EndpointUnreachable, OssFuseError
from csi.handover.types import PublishRequest, VolumeCondition, VolumeMounts
from csi.volume.spec import Location, VolumeSpec
from csi.volume.units import Seconds

REQUEST = PublishRequest("v", Path("/nowhere"), VolumeSpec(Location("bkt", "http://127.0.0.1:1")), False, None, {})
WELL = VolumeCondition(False, "well", os.getpid())
DEAD = VolumeCondition(True, "the sidecar ended; restart the pod to mount it again", None)


class Clock:
    """An `Ending` too, whose waits take their time of this clock; the end is asked for once `signal` is set."""

    signal = 0

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.served = 0

    def __call__(self) -> float:
        return self.now

    def wait(self, timeout: Seconds) -> bool:
        self.waits.append(timeout)
        self.now += timeout
        return self.signal != 0

    def serving(self) -> None:
        self.served += 1


class Mounts:
    """Answers in turn: conditions, None at last; failures of publishing before it succeeds."""

    def __init__(self, conditions: list[VolumeCondition], failures: list[OssFuseError]) -> None:
        self._conditions = conditions
        self._failures = failures
        self.published: list[PublishRequest] = []

    def condition(self, _volume_id: str, _target: Path) -> VolumeCondition | None:
        return self._conditions.pop(0) if self._conditions else None

    def publish(self, request: PublishRequest, _deadline: Seconds) -> None:
        self.published.append(request)
        if self._failures:
            raise self._failures.pop(0)


def attend(
    clock: Clock,
    conditions: list[VolumeCondition],
    failures: list[OssFuseError] | None = None,
    request: Callable[[], PublishRequest] = lambda: REQUEST,
    *,
    changed: bool = False,
) -> Mounts:
    mounts = Mounts(conditions, failures or [])
    Attending(
        cast("VolumeMounts", mounts), REQUEST, request, lambda: changed, cast("Ending", clock), clock=clock
    ).attend()
    return mounts


def test_a_sidecar_that_served_for_long_is_followed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    mounts = attend(clock, [WELL] * 60 + [DEAD, WELL])
    assert mounts.published == [REQUEST]
    assert clock.waits == [GLANCE] * 61 + [0.0] + [GLANCE]
    assert clock.served == 1
    said = capsys.readouterr()
    assert "mounted again on /nowhere (sidecar" in said.out
    assert said.err == "Warning: the sidecar ended; another one is started\n"


def test_sidecars_that_end_soon_are_followed_after_longer_and_longer_pauses() -> None:
    clock = Clock()
    attend(clock, [DEAD, WELL] + [DEAD, DEAD, WELL] * 8)
    assert [wait for wait in clock.waits if wait != GLANCE] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_what_fails_is_tried_on_and_told_once_for_each_reason(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    failures: list[OssFuseError] = [*[EndpointUnreachable("nobody")] * 3, CredentialsMissing("none")]
    mounts = attend(clock, [DEAD] * 5 + [WELL], failures)
    assert len(mounts.published) == 5
    assert clock.waits == [GLANCE, 0.0, 1.0, 2.0, 4.0, 8.0, GLANCE]
    assert capsys.readouterr().err.splitlines()[1:] == [
        "Warning: /nowhere cannot be mounted again, which is tried on: nobody",
        "Warning: /nowhere cannot be mounted again, which is tried on: none",
    ]


def test_a_dead_mount_that_somebody_else_takes_away_is_not_made_anew(capsys: pytest.CaptureFixture[str]) -> None:
    mounts = attend(Clock(), [DEAD, DEAD], [EndpointUnreachable("nobody")] * 9)
    assert len(mounts.published) == 2
    assert "was unmounted by somebody else" in capsys.readouterr().out


def test_a_sidecar_that_goes_on_saying_nothing_is_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    silent = [VolumeCondition(True, f"has not answered for {seconds} s", os.getpid()) for seconds in range(15, 120)]
    mounts = attend(Clock(), silent)
    assert mounts.published == []
    assert capsys.readouterr().err == "Warning: has not answered for 15 s\n"


def test_the_end_is_not_waited_for_while_nothing_can_be_mounted(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()

    def asked_for_the_end() -> PublishRequest:
        clock.signal = 2
        return REQUEST

    mounts = attend(clock, [DEAD] * 9, [EndpointUnreachable("nobody")] * 9, asked_for_the_end)
    assert len(mounts.published) == 1
    assert "nobody" not in capsys.readouterr().err


def test_with_credentials_that_cannot_be_read_now_those_of_before_are_used() -> None:
    def unreadable() -> PublishRequest:
        raise CredentialsMissing("half a file")

    assert attend(Clock(), [DEAD, WELL], request=unreadable).published == [REQUEST]


def test_changed_credentials_are_handed_on_and_kept_for_the_next_sidecar(capsys: pytest.CaptureFixture[str]) -> None:
    mounts = attend(Clock(), [WELL], changed=True)
    assert mounts.published == [REQUEST]
    assert "changed credentials are in use" in capsys.readouterr().out
