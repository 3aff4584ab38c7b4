"""Random programs on a mount with timeouts, and another client, against how old an answer may be (docs/semantics.md).

Whatever a path was, the model remembers with the time at which it became that. An answer must be something the path
was within the limit of its kind, and never older than what the mount has shown of the path before. A program that is
told that a file has changed opens it again and reads what is there. Sizes tell versions apart, and only the test moves
the clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from csi.errors import FilesystemError, IsADirectory, NoSuchEntry, OssFuseError, StaleFile
from csi.fs.types import Attributes, FileKind
from csi.volume.spec import CachePolicy, MountArguments
from csi.volume.units import Seconds
from tests.support.filesystems import World
from tests.support.programs import OpenedFile
from tests.support.published_names import PublishedNames

PATHS = ("a", "d/a", "d/b")
PATH = st.sampled_from(PATHS)
FOLDER = st.sampled_from(["", "d"])
MOMENT = Seconds(0.001)
ROUNDING = 1e-6

Found = TypeVar("Found")
State = int | str | None
"""The size of a file, "directory", or that nothing is there."""


def timeouts(attr: float, entry: float, negative: float, cache: CachePolicy = CachePolicy.AUTO) -> MountArguments:
    return MountArguments(Seconds(attr), Seconds(entry), Seconds(negative), cache=cache)


ARGUMENTS = st.sampled_from(
    [
        timeouts(0, 0, 0),
        timeouts(3, 0, 0),
        timeouts(0, 3, 0),
        timeouts(0, 0, 3),
        timeouts(0, 3, 3),
        timeouts(3, 0, 3),
        timeouts(3, 3, 3),
        timeouts(3, 3, 3, CachePolicy.KERNEL),
        timeouts(3, 3, 0, CachePolicy.DIRECT),
    ]
)


@dataclass
class Past:
    """`states`: what a path was, and since when. `shown`, `listed`: the latest of them that programs are known to have
    been shown by looking at the path, and by listing its directory."""

    states: list[tuple[float, State]] = field(default_factory=lambda: [(-math.inf, None)])
    shown: int = 0
    listed: int = 0

    def within(self, limit: float, now: float, state: State) -> list[int]:
        """When within `limit` it was `state`."""
        ends = [since for since, _ in self.states[1:]] + [math.inf]
        return [
            number
            for number, ((_, was), end) in enumerate(zip(self.states, ends, strict=True))
            if was == state and end > now - limit + ROUNDING
        ]

    def changed_here(self, now: float) -> None:
        """A program changed something at `now`: if it was this path, all see it at once."""
        if self.states[-1][0] == now:
            self.shown = self.listed = len(self.states) - 1


class MachineOfAge(RuleBasedStateMachine):
    @initialize(arguments=ARGUMENTS, published=st.booleans(), full=st.booleans())
    def begin(self, arguments: MountArguments, published: bool, full: bool) -> None:
        self.world = World("memory")
        self.arguments = arguments
        for number in range(40 if full else 0):
            self.world.store.seed(f"v/d/z{number:02}", b"z")
        self.world.store.seed("v/d/")
        tables = PublishedNames(self.world.clock) if published else None
        self.program = self.world.mount(arguments, prefix="v/", published=tables)
        self.past = {path: Past() for path in PATHS}
        self.size = 0
        self.held: list[tuple[OpenedFile, str, bytes]] = []

    def teardown(self) -> None:
        if hasattr(self, "held"):
            for file, _, _ in self.held:
                file.close()
            self.world.check_rest()
            self.world.close()

    # --- the other client ---

    @rule(path=PATH)
    def put(self, path: str) -> None:
        self.wait(MOMENT)
        if self.now_there(path) != "directory":
            self.world.store.seed(f"v/{path}", self.content())
            self.remember()

    @rule(path=PATH)
    def delete(self, path: str) -> None:
        self.wait(MOMENT)
        objects = self.world.store.objects
        for key in [key for key in objects if key == f"v/{path}" or key.startswith(f"v/{path}/")]:
            del objects[key]
        self.remember()

    @rule(path=PATH)
    def make_directory(self, path: str) -> None:
        self.wait(MOMENT)
        self.world.store.objects.pop(f"v/{path}", None)
        self.world.store.seed(f"v/{path}/x", b"x")
        self.remember()

    @rule(seconds=st.sampled_from([0.5, 1.5, 2.9, 3.1, 10.0]))
    def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    # --- programs that look ---

    @rule(path=PATH)
    def stat(self, path: str) -> None:
        self.wait(MOMENT)
        try:
            found = again_if_stale(lambda: self.program.stat(path))
        except NoSuchEntry:
            self.check(path, None)
        else:
            self.check(path, state_of(found))

    @rule(folder=FOLDER, look=st.booleans())
    def list_folder(self, folder: str, look: bool) -> None:
        self.wait(MOMENT)
        found = {name.decode(): entry for name, entry in self.program.entries(folder)}
        here = [path for path in PATHS if path.rpartition("/")[0] == folder]
        for path in here:
            entry = found.get(path.rpartition("/")[2])
            state = state_of(entry.attributes) if entry is not None else None
            past = self.past[path]
            when = past.within(self.limit_of_names, self.world.clock.now, state)
            assert when and when[-1] >= past.listed, f"{path} was listed as {state}, it was {past}"
            if len(when) == 1:
                past.listed = when[0]
                past.shown = past.shown if state is None else max(past.shown, when[0])
        for path in here if look else ():
            self.stat(path)

    @rule(path=PATH, keep=st.booleans())
    def read(self, path: str, keep: bool) -> None:
        self.wait(MOMENT)
        try:
            file, content = self.opened(path)
        except NoSuchEntry:
            self.check(path, None)
        except IsADirectory:
            self.check(path, "directory")
        else:
            self.check(path, len(content))
            if keep and self.arguments.attr_timeout >= self.arguments.entry_timeout:  # else its name leads to it longer
                self.held.append((file, path, content))
            else:
                file.close()

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9), keep=st.booleans())
    def read_on(self, which: int, keep: bool) -> None:
        self.wait(MOMENT)
        held = self.held[which % len(self.held)]
        try:
            assert held[0].pread(len(held[2]) + 1) == held[2]
        except StaleFile:
            assert self.past[held[1]].states[-1][1] != len(held[2])
        if not keep:
            self.held.remove(held)
            held[0].close()

    # --- programs that change ---

    @rule(path=PATH)
    def write(self, path: str) -> None:
        self.change(lambda: self.program.write(path, self.content()), path)
        self.read(path, keep=False)

    @rule(path=PATH)
    def append(self, path: str) -> None:
        if isinstance(self.now_there(path), int):
            self.change(lambda: self.program.append(path, self.content()), path)
            self.read(path, keep=False)

    @rule(path=PATH)
    def unlink(self, path: str) -> None:
        self.change(lambda: self.program.unlink(path), path)
        self.stat(path)

    @rule(old=PATH, new=PATH)
    def rename(self, old: str, new: str) -> None:
        if old != new and "directory" not in (self.now_there(old), self.now_there(new)):
            self.change(lambda: self.program.rename(old, new), old, new)
            self.stat(old)
            self.read(new, keep=False)

    # --- private ---

    @property
    def limit_of_names(self) -> float:
        return max(self.arguments.attr_timeout, self.arguments.entry_timeout)

    def content(self) -> bytes:
        """Longer than anything before, also than what was appended to."""
        sizes = [state for past in self.past.values() for _, state in past.states if isinstance(state, int)]
        self.size = max([self.size, *sizes]) + 1
        return bytes([self.size % 251]) * self.size

    def now_there(self, path: str) -> State:
        objects = self.world.store.objects
        if any(key.startswith(f"v/{path}/") for key in objects):
            return "directory"
        return len(objects[f"v/{path}"].data) if f"v/{path}" in objects else None

    def remember(self) -> None:
        for path, past in self.past.items():
            state = self.now_there(path)
            if state != past.states[-1][1]:
                past.states.append((self.world.clock.now, state))

    def check(self, path: str, state: State) -> None:
        """A program that looked at `path` was shown `state`."""
        past = self.past[path]
        limit: float = self.arguments.attr_timeout
        if not isinstance(state, int):
            limit = self.limit_of_names if state is not None else self.arguments.negative_timeout
        when = past.within(limit, self.world.clock.now, state)
        assert when and when[-1] >= past.shown, f"{path} was shown as {state}, it was {past}"
        if len(when) == 1:
            past.shown = when[0]

    def opened(self, path: str) -> tuple[OpenedFile, bytes]:
        """The file, and all of it. Being told once that it has changed is enough to see what it is now."""
        for attempt in range(2):
            file = again_if_stale(lambda: self.program.open(path))
            try:
                content = file.pread(file.size() + 1)
            except StaleFile:
                file.close()
                since = self.past[path].states[-1][0]
                assert attempt == 0 and self.world.clock.now - since < self.arguments.attr_timeout
            else:
                assert len(content) == file.size()
                return file, content
        raise AssertionError

    def change(self, call: Callable[[], None], *paths: str) -> None:
        """What is refused, is because of something another client did a moment ago, or rightly."""
        for held in [held for held in self.held if held[1] in paths]:
            self.held.remove(held)
            held[0].close()
        self.wait(MOMENT)
        before = [self.now_there(path) for path in paths]
        limit = max(self.limit_of_names, self.arguments.negative_timeout)
        known = all(self.world.clock.now - self.past[path].states[-1][0] > limit for path in paths)
        try:
            call()
        except (FilesystemError, OssFuseError) as error:
            assert [self.now_there(path) for path in paths] == before
            rightly = isinstance(error, IsADirectory) or (isinstance(error, NoSuchEntry) and before[0] is None)
            assert rightly or not known, f"{paths} were {before}: {error}"
            return
        self.remember()
        for path in paths:
            self.past[path].changed_here(self.world.clock.now)


def state_of(attributes: Attributes) -> State:
    return "directory" if attributes.kind is FileKind.DIRECTORY else attributes.size


def again_if_stale(call: Callable[[], Found]) -> Found:
    """The kernel looks a path up once more when it is told ESTALE."""
    try:
        return call()
    except StaleFile:
        return call()


TestAge = MachineOfAge.TestCase
TestAge.settings = settings(
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
