"""Names looked up after the listing of their directory grew old: few requests, and no answer older than allowed."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from csi.errors import NoSuchEntry, ServerFailure
from csi.fs.metadata import Facts
from csi.fs.page_sizes import FIRST, LARGEST, LEAST, NAME
from csi.fs.renewal import AT_ONCE, Flight, Page, Renewal
from csi.fs.types import FileKind
from csi.volume.spec import MountArguments
from csi.volume.units import InodeNumber, Seconds
from tests.support.filesystems import CONSISTENT, FAST, READONLY, World
from tests.support.programs import Program

LISTED = 600


@contextmanager
def listed(world: World, arguments: MountArguments = FAST) -> Iterator[tuple[Program, InodeNumber]]:
    """A mount, and its directory d, which was listed a moment longer ago than the timeouts allow."""
    for number in range(LISTED):
        world.store.seed(f"d/{number:04d}", b"data")
    program = world.mount(arguments)
    with program.walk("d") as inode:
        assert len(program.list("d")) >= LISTED
        world.clock.advance(arguments.attr_timeout + 0.1)
        if arguments.attr_timeout:
            program.stat("d")
        world.store.requests.clear()
        yield program, inode


def look_up(program: Program, inode: InodeNumber, name: bytes) -> int:
    """What LOOKUP tells: the size."""
    filesystem = program.filesystem
    entry = filesystem.lookup_cached(inode, name) or filesystem.lookup(inode, name)
    filesystem.forget(entry.attributes.inode, 1)
    return entry.attributes.size


@pytest.mark.parametrize("arguments", [FAST, READONLY], ids=["fast", "readonly"])
def test_a_directory_listed_too_long_ago_is_read_with_a_few_listings(world: World, arguments: MountArguments) -> None:
    with listed(world, arguments) as (program, _):
        for number in range(LISTED):
            assert program.read(f"d/{number:04d}") == b"data"
        assert world.store.requests["GetObject"] == LISTED
        assert world.store.requests["ListObjectsV2"] <= 7


def test_a_directory_read_in_any_order_needs_fewer_listings_than_files(world: World) -> None:
    with listed(world) as (program, inode):
        numbers = list(range(LISTED))
        random.Random(1).shuffle(numbers)
        for number in numbers:
            assert look_up(program, inode, b"%04d" % number) == 4
        assert world.store.requests["ListObjectsV2"] <= LISTED // 10


def test_with_all_timeouts_zero_every_lookup_asks(world: World) -> None:
    with listed(world, CONSISTENT) as (program, inode):
        for number in range(10):
            look_up(program, inode, b"%04d" % number)
        assert world.store.requests == {"ListObjectsV2": 10}


def test_an_answer_from_a_page_is_as_old_as_its_request(world: World) -> None:
    with listed(world) as (program, inode):
        look_up(program, inode, b"0000")
        world.store.seed("d/0001", b"changed")
        world.clock.advance(2.9)
        entry = program.filesystem.lookup_cached(inode, b"0001")
        assert entry is not None
        assert entry.attributes.size == 4
        assert 0 < entry.attr_timeout < 0.11
        program.filesystem.forget(entry.attributes.inode, 1)
        world.clock.advance(0.2)
        assert look_up(program, inode, b"0001") == 7


def test_a_removed_name_and_a_new_one_are_asked_for(world: World) -> None:
    with listed(world) as (program, inode):
        del world.store.objects["d/0001"]
        world.store.seed("d/0001a", b"new")
        look_up(program, inode, b"0000")
        with pytest.raises(NoSuchEntry):
            look_up(program, inode, b"0001")
        assert look_up(program, inode, b"0001a") == 3


def test_names_that_another_client_removed_cost_a_request_each_and_those_beside_them_none(world: World) -> None:
    with listed(world) as (program, inode):
        names = [b"%04d" % number for number in range(LISTED)]
        gone = names[::10]
        for name in gone:
            del world.store.objects[f"d/{name.decode()}"]
        for _ in range(2):
            for name in gone:
                with pytest.raises(NoSuchEntry):
                    look_up(program, inode, name)
        assert world.store.requests["ListObjectsV2"] <= 2 * len(gone) + 8
        world.store.seed("d/0010", b"again")
        assert look_up(program, inode, b"0010") == 5
        for name in set(names) - set(gone):
            assert look_up(program, inode, name) == 4
        assert world.store.requests["ListObjectsV2"] <= 2 * len(gone) + 16


def test_what_this_mount_changes_after_a_page_is_seen_at_once(world: World) -> None:
    with listed(world) as (program, inode):
        look_up(program, inode, b"0000")
        program.write("d/0001", b"longer")
        program.unlink("d/0002")
        assert look_up(program, inode, b"0001") == 6
        with pytest.raises(NoSuchEntry):
            look_up(program, inode, b"0002")


def test_a_file_that_became_a_directory_is_one(world: World) -> None:
    with listed(world) as (program, inode):
        world.store.seed("d/0001/x", b"below")  # hides the file d/0001
        look_up(program, inode, b"0000")
        with program.walk("d/0001") as found:
            assert program.filesystem.getattr(found).attributes.kind is FileKind.DIRECTORY


def test_directories_are_renewed_with_the_files_between_them(world: World) -> None:
    for name in ("d/a", "d/b/x", "d/b-c", "d/c/y", "d/d"):
        world.store.seed(name, b"data")
    with listed(world) as (program, _):
        kinds = {}
        for name in ("a", "b-c", "b", "c", "d"):
            with program.walk(f"d/{name}") as found:
                kinds[name] = program.filesystem.getattr(found).attributes.kind
        assert [name for name, kind in kinds.items() if kind is FileKind.DIRECTORY] == ["b", "c"]
        assert world.store.requests["ListObjectsV2"] == 1


def test_neighbours_looked_up_at_once_share_a_request(world: World) -> None:
    with listed(world) as (program, inode):
        look_up_neighbours_at_once(world, program, inode)


def look_up_neighbours_at_once(world: World, program: Program, inode: InodeNumber) -> None:
    """Eight names by one request that takes until all of them wait."""
    asked, go_on = threading.Event(), threading.Event()

    def hold(_operation: str, _key: str) -> None:
        asked.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(8) as pool:
        world.store.before = hold
        first = pool.submit(look_up, program, inode, b"0100")
        assert asked.wait(10)
        others = [pool.submit(look_up, program, inode, b"%04d" % number) for number in range(101, 108)]
        go_on.set()
        assert [each.result(10) for each in (first, *others)] == [4] * 8
        assert world.store.requests == {"ListObjectsV2": 1}


def test_a_page_that_fails_is_told_to_who_asked_and_asked_for_again(world: World) -> None:
    with listed(world) as (program, inode):
        look_up_after_a_failure(world, program, inode)


def look_up_after_a_failure(world: World, program: Program, inode: InodeNumber) -> None:
    def fail(_operation: str, _key: str) -> None:
        raise ServerFailure("no", status=503)

    world.store.before = fail
    with pytest.raises(ServerFailure):
        look_up(program, inode, b"0100")
    world.store.before = None
    assert look_up(program, inode, b"0100") == 4
    assert program.filesystem.statistics().knowledge.renewed == 0


# --- csi/fs/renewal.py by itself ---

NAMES = {b"%05d" % number: Facts(FileKind.FILE, number) for number in range(5000)}


def fly(renewal: Renewal, name: bytes, request: float = 0.0) -> Flight:
    """Have the page that begins with `name` come, with everything in it, by a request that takes so long."""
    found = renewal.join(name)
    assert found is not None
    flight, is_new = found
    assert is_new
    wanted = [each for each in NAMES if each > flight.after][: flight.size]
    flight.page = Page({each: NAMES[each] for each in wanted}, 1, 0.0)
    flight.seconds = Seconds(request + flight.size * NAME)
    renewal.land(flight)
    return flight


def looked_up(request: float, names: int) -> int:
    """How many requests it takes to look up `names` of NAMES in random order."""
    renewal, requests = Renewal(NAMES), 0
    for name in random.Random(1).sample(list(NAMES), names):
        if renewal.page(name) is not None:
            renewal.sizes.used += 1
        else:
            fly(renewal, name, request)
            requests += 1
    return requests


def test_pages_double_while_their_names_are_used() -> None:
    renewal = Renewal(NAMES)
    sizes: list[int] = []
    while len(sizes) < 8:
        sizes.append(fly(renewal, b"%05d" % sum(sizes)).size)
        renewal.sizes.used += sizes[-1]
    assert sizes == [FIRST, 32, 64, 128, 256, 512, LARGEST, LARGEST]


def test_pages_shrink_when_their_names_are_not_used_and_grow_again_when_they_are() -> None:
    renewal = Renewal(NAMES)
    sizes = [fly(renewal, b"00000").size for _ in range(30)]
    assert sum(sizes) < 30 * 40
    assert sizes[-1] == LEAST
    renewal.sizes.used += 100
    assert fly(renewal, b"00000").size == 2 * LEAST


def test_far_from_the_store_a_few_names_in_random_order_are_worth_pages() -> None:
    assert looked_up(0.0005, 60) > 30
    assert looked_up(0.020, 60) <= 12
    assert looked_up(20.0, 60) <= 12


def test_far_from_the_store_too_pages_that_are_not_used_are_not_asked_for_again() -> None:
    renewal = Renewal(NAMES)
    sizes = [fly(renewal, b"00000", 0.020).size for _ in range(60)]
    assert sum(sizes) < 15 * LARGEST
    assert sizes[-1] == LEAST


def test_a_flight_covers_its_names_and_no_others() -> None:
    renewal = Renewal(NAMES)
    first = renewal.join(b"00100")
    assert first is not None
    covered = [renewal.join(b"%05d" % number) == (first[0], False) for number in (99, 100, 115, 116)]
    assert covered == [False, True, True, False]
    assert renewal.join(b"unlisted") is None


def test_unchanged_facts_are_kept_once_and_new_names_not_at_all() -> None:
    renewal = Renewal(NAMES)
    found = renewal.join(b"00000")
    assert found is not None
    found[0].page = Page({b"00000": Facts(FileKind.FILE, 0), b"new": Facts(FileKind.FILE, 1)}, 1, 0.0)
    renewal.land(found[0])
    page = renewal.page(b"00000")
    assert page is not None
    assert page.names[b"00000"] is NAMES[b"00000"]
    assert renewal.page(b"new") is None


def test_names_in_any_order_are_told_by_pages_that_do_not_overlap(world: World) -> None:
    count = 4 * LARGEST
    for number in range(count):
        world.store.seed(f"d/{number:05d}", b"data")
    program = world.mount(FAST)
    with program.walk("d") as inode:
        program.list("d")
        names = [f"{number:05d}".encode() for number in range(count)]
        order = random.Random(1).sample(names, 2_000)
        for name in names[:4_000:4]:  # its pages have grown by then
            world.clock.advance(0.01)
            look_up(program, inode, name)
        world.clock.advance(FAST.attr_timeout + 0.1)
        for name in order:
            look_up(program, inode, name)
        world.clock.advance(FAST.attr_timeout + 0.1)
        world.store.requests.clear()
        for name in order:
            look_up(program, inode, name)
    assert world.store.requests["ListObjectsV2"] <= 5


def test_the_pages_of_a_directory_that_is_looked_up_all_over_are_asked_for_together(world: World) -> None:
    count = (AT_ONCE + 2) * LARGEST
    for number in range(count):
        world.store.seed(f"d/{number:05d}", b"data")
    program = world.mount(FAST)
    names = [f"{number:05d}".encode() for number in range(count)]
    enough, waiting = threading.Event(), itertools.count(1)

    def hold(_operation: str, _key: str) -> None:
        if next(waiting) == AT_ONCE:
            enough.set()
        assert enough.wait(10), "the pages are asked for one after the other"

    with program.walk("d") as inode:
        program.list("d")
        for name in names[:4_000:4]:  # its pages have grown by then
            world.clock.advance(0.01)
            look_up(program, inode, name)
        for _ in range(3):
            world.clock.advance(FAST.attr_timeout + 0.1)
            for name in random.Random(1).sample(names, 4_000):
                look_up(program, inode, name)
            assert program.filesystem._workers.drain(Seconds(10.0))
        world.clock.advance(FAST.attr_timeout + 0.1)
        world.store.requests.clear()
        world.store.before = hold
        assert look_up(program, inode, names[1_500]) == 4
        assert program.filesystem._workers.drain(Seconds(10.0))
        assert world.store.requests == {"ListObjectsV2": AT_ONCE}
        for name in names[999 : 999 * AT_ONCE]:
            look_up(program, inode, name)
        assert world.store.requests == {"ListObjectsV2": AT_ONCE}, "what came is not used"
    assert program.filesystem.statistics().knowledge.renewed == 0
