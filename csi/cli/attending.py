"""A mount in the foreground while it is served: what goes wrong is told, changed credentials are handed on, and a
sidecar that ended is followed by another one, which goes on with what programs have open.

Where it cannot, and until it serves, the dead mount stays where it is as far as possible: programs are told ENOTCONN,
and do not find the directory below, where what they write would be lost to the bucket.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

import click

from csi.cli.ending import Ending
from csi.cli.words import on_a_host
from csi.errors import OssFuseError
from csi.handover.types import PublishRequest, VolumeCondition, VolumeMounts
from csi.volume.units import Seconds

DEADLINE = Seconds(60.0)
"""Of making the mount, and of handing credentials on."""
GLANCE = Seconds(0.25)
"""Programs wait while nobody has seen that a sidecar has died."""
_CALM = Seconds(10.0)
"""A sidecar that served for so long is followed at once; others after a pause, which doubles with each."""
_FIRST_PAUSE = Seconds(1.0)
_LONGEST_PAUSE = Seconds(30.0)
"""Less than programs wait for a sidecar that goes on (`csi/handover/inheritance.py`)."""
_NUMBER = re.compile(r"\d+")


class Attending:
    """For the main thread, which signals interrupt."""

    def __init__(
        self,
        mounts: VolumeMounts,
        served: PublishRequest,
        request: Callable[[], PublishRequest],
        changed: Callable[[], bool],
        ending: Ending,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`served` is what was mounted; `request` says it with the credentials of now, and `changed` whether there are
        others than it said last."""
        self._mounts = mounts
        self._served = served
        self._request = request
        self._changed = changed
        self._ending = ending
        self._clock = clock
        self._since = clock()
        self._pause = Seconds(0.0)
        self._told = ""

    def attend(self) -> None:
        """Until the end is asked for, or somebody else has unmounted."""
        target = self._served.target
        while not self._ending.wait(GLANCE):
            condition = self._mounts.condition(self._served.volume_id, target)
            if condition is None:
                click.echo(f"{target} was unmounted by somebody else")
                return
            if condition.abnormal:
                self._warn(condition.message)
            if not _has_sidecar(condition):
                self._mount_again()
            elif self._changed():
                self._hand_on()

    def _mount_again(self) -> None:
        """Until it is served, the end is asked for, or somebody else has unmounted what is dead."""
        if self._clock() - self._since >= _CALM:
            self._pause = Seconds(0.0)
        target = self._served.target
        while not self._ending.wait(self._pause):
            if self._pause and self._mounts.condition(self._served.volume_id, target) is None:
                return
            self._pause = min(max(Seconds(2 * self._pause), _FIRST_PAUSE), _LONGEST_PAUSE)
            try:
                self._mounts.publish(self._renewed(), DEADLINE)
            except OssFuseError as error:
                if not self._ending.signal:
                    self._warn(f"{target} cannot be mounted again, which is tried on: {error}")
                continue
            self._ending.serving()
            self._since = self._clock()
            condition = self._mounts.condition(self._served.volume_id, target)
            pid = condition.sidecar_pid if condition else None
            self._told = ""
            if condition is not None and condition.went_on:
                click.echo(f"served again on {target} (sidecar {pid}); what was open is open still")
            else:
                click.echo(f"mounted again on {target} (sidecar {pid}); files that were open answer ENOTCONN")
            return

    def _renewed(self) -> PublishRequest:
        """With the credentials of now, or while they cannot be read with those of before."""
        try:
            self._served = self._request()
        except OssFuseError as error:
            self._warn(f"the changed credentials are not used: {error}")
        return self._served

    def _hand_on(self) -> None:
        """Give changed credentials to the sidecar; what cannot be read now is tried again when it changes."""
        try:
            request = self._request()
            self._mounts.publish(request, DEADLINE)
        except OssFuseError as error:
            click.echo(f"Warning: the changed credentials are not used: {on_a_host(str(error))}", err=True)
        else:
            self._served = request
            click.echo("changed credentials are in use")

    def _warn(self, text: str) -> None:
        """Once, however the numbers in it change."""
        kind = _NUMBER.sub("", text)
        if kind != self._told:
            self._told = kind
            click.echo(f"Warning: {on_a_host(text)}", err=True)


def _has_sidecar(condition: VolumeCondition) -> bool:
    return condition.sidecar_pid is not None and os.path.exists(f"/proc/{condition.sidecar_pid}")
