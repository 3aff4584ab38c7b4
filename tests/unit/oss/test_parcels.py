"""Objects left with couriers: they come, or they are handed to who asks in the ordinary way; nobody waits for ever."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import pytest

from csi.oss.getting import Stamp
from csi.oss.heads import GetHeads
from csi.oss.parcels import Parcel, Parcels
from csi.oss.signing import signer_for
from csi.volume.spec import Location
from tests.support.raw_server import RawServer, raw_server, read_request
from tests.unit.oss.test_getting import BODY, ETAG, good, stamp_of

ENDED, CLOSED, STALE, LOST, SLOW, SHORT = range(6)
NEVER_SLOW = 1e9

Play = Callable[[RawServer, socket.socket], None]


def stamp_for(server: RawServer, lasts: float = 60.0) -> Stamp:
    heads = GetHeads(Location(bucket="bucket", endpoint=server.url), signer_for(1, ""))
    return stamp_of(heads, 1, None, timeout=5.0, stall=5.0, lasts=lasts)


def serve(parcels: Parcels, server: RawServer, *, lasts: float = 60.0, slow: float = NEVER_SLOW) -> tuple[int, object]:
    """What comes of one courier's turn."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        why, _, of = parcels.serve(connection.fileno(), stamp_for(server, lasts), slow)
    return why, of


def answering(*answers: bytes) -> Play:
    """These answers on each connection, then its end."""

    def play(server: RawServer, connection: socket.socket) -> None:
        for answer in answers:
            if not read_request(server, connection):
                return
            connection.sendall(answer)

    return play


def forgetting(parcels: Parcels, parcel: Parcel, answer: bytes = b"") -> Play:
    """`parcel` is forgotten while it is asked for."""

    def play(server: RawServer, connection: socket.socket) -> None:
        read_request(server, connection)
        parcels.forget(parcel)
        connection.sendall(answer)

    return play


def test_what_was_put_comes_and_a_courier_leaves_when_all_is_closed() -> None:
    parcels = Parcels(4)
    parcels.hired = 4
    first, needed = parcels.put(b"a", ETAG.encode(), len(BODY), "a")
    second, needed_then = parcels.put(b"b", ETAG.encode(), len(BODY), "b")
    parcels.close()
    with raw_server(answering(good(), good())) as server:
        assert serve(parcels, server) == (ENDED, None)
    assert (needed, needed_then) == (1, 2)
    assert [parcels.wait(second), parcels.wait(first)] == [BODY, BODY]
    assert (parcels.gets, parcels.waiting) == (2, 0)


def test_what_is_answered_otherwise_is_handed_on_with_what_was_left_for_it() -> None:
    parcels = Parcels(4)
    parcel, _ = parcels.put(b"a", ETAG.encode(), len(BODY), "slot")
    with raw_server(answering(good(etag='"4567"'))) as server:
        assert serve(parcels, server) == (LOST, "slot")
    assert parcels.wait(parcel) is None


def test_what_is_forgotten_is_not_asked_for() -> None:
    parcels = Parcels(4)
    parcel, _ = parcels.put(b"a", ETAG.encode(), len(BODY), "slot")
    parcels.forget(parcel)
    parcels.close()
    with raw_server(answering()) as server:
        assert serve(parcels, server) == (ENDED, None)
    assert parcels.gets == 0


def test_what_was_forgotten_while_it_was_fetched_is_handed_to_nobody() -> None:
    parcels = Parcels(4)
    parcel, _ = parcels.put(b"a", ETAG.encode(), len(BODY), "slot")
    with raw_server(forgetting(parcels, parcel, good(crc="1"))) as server:
        assert serve(parcels, server) == (LOST, None)


def test_what_was_forgotten_while_it_was_fetched_is_not_asked_for_again_when_its_connection_had_ended() -> None:
    parcels = Parcels(4)
    parcel, _ = parcels.put(b"a", ETAG.encode(), len(BODY), "slot")
    with raw_server(forgetting(parcels, parcel)) as server:
        assert serve(parcels, server) == (CLOSED, None)
    assert parcels.waiting == 0


def test_one_too_many_leaves_when_all_is_closed_although_something_waits() -> None:
    parcels = Parcels(1)
    first, _ = parcels.put(b"a", ETAG.encode(), len(BODY), "a")
    asked, go_on = threading.Event(), threading.Event()

    def play(server: RawServer, connection: socket.socket) -> None:
        read_request(server, connection)
        asked.set()
        go_on.wait(10)
        connection.sendall(good())
        read_request(server, connection)
        connection.sendall(good())

    with raw_server(play, answering()) as server:
        outcomes: list[tuple[int, object]] = []
        couriers = [threading.Thread(target=lambda: outcomes.append(serve(parcels, server)), daemon=True) for _ in "12"]
        couriers[0].start()
        assert asked.wait(10)
        second, _ = parcels.put(b"b", ETAG.encode(), len(BODY), "b")
        parcels.close()
        couriers[1].start()
        couriers[1].join(10)
        left = [*outcomes]
        go_on.set()
        assert [parcels.wait(first), parcels.wait(second)] == [BODY, BODY]
        couriers[0].join(10)
    assert left == [(ENDED, None)]
    assert outcomes == [(ENDED, None)] * 2


def test_a_connection_that_had_ended_costs_nothing_but_another_one() -> None:
    parcels = Parcels(4)
    parcel, _ = parcels.put(b"a", ETAG.encode(), len(BODY), "slot")
    parcels.close()
    with raw_server(answering()) as server:
        assert serve(parcels, server) == (CLOSED, None)
    assert parcels.waiting == 1
    with raw_server(answering(good())) as server:
        assert serve(parcels, server) == (ENDED, None)
    assert parcels.wait(parcel) == BODY


def test_connections_that_end_again_and_again_are_left_to_the_ordinary_way() -> None:
    parcels = Parcels(4)
    parcel, _ = parcels.put(b"a", ETAG.encode(), len(BODY), "slot")
    with raw_server(answering()) as server:
        assert [serve(parcels, server)[0] for _ in range(2)] == [CLOSED, LOST]
    assert parcels.wait(parcel) is None


def test_who_has_no_connection_takes_what_waits() -> None:
    parcels = Parcels(4)
    parcel, _ = parcels.put(b"a", ETAG.encode(), len(BODY), "slot")
    assert [parcels.take(), parcels.take()] == ["slot", None]
    assert parcels.wait(parcel) is None


def test_nothing_is_signed_with_what_is_old() -> None:
    parcels = Parcels(4)
    parcels.put(b"a", ETAG.encode(), len(BODY), "slot")
    with raw_server(answering(good())) as server:
        assert serve(parcels, server, lasts=-1.0) == (STALE, None)
    assert (parcels.gets, parcels.waiting) == (0, 1)


def test_what_takes_long_is_told() -> None:
    parcels = Parcels(4)
    parcel, _ = parcels.put("ü".encode(), ETAG.encode(), len(BODY), "slot")
    with raw_server(answering(good())) as server:
        why, of = serve(parcels, server, slow=0.0)
    assert why == SLOW
    assert isinstance(of, tuple)
    key, size, seconds = of
    assert (key, size) == ("ü".encode(), len(BODY))
    assert seconds >= 0
    assert parcels.wait(parcel) == BODY


def test_as_many_are_at_work_as_there_are_where_answers_take_long() -> None:
    count = 6
    parcels = Parcels(count)
    parcels.put(b"first", ETAG.encode(), len(BODY), "first")
    all_there = threading.Barrier(count)

    def late(server: RawServer, connection: socket.socket) -> None:
        read_request(server, connection)
        time.sleep(0.01)
        connection.sendall(good(more="Connection: close\r\n"))

    with raw_server(late) as server:
        assert serve(parcels, server) == (CLOSED, None)

    def play(server: RawServer, connection: socket.socket) -> None:
        read_request(server, connection)
        all_there.wait(20)
        connection.sendall(good(more="Connection: close\r\n"))

    with raw_server(play) as server:
        put_so_far = [parcels.put(b"%d" % number, ETAG.encode(), len(BODY), number) for number in range(count)]
        couriers = [threading.Thread(target=serve, args=(parcels, server)) for _ in range(count)]
        for courier in couriers:
            courier.start()
        found = [parcels.wait(parcel) for parcel, _ in put_so_far]
        for courier in couriers:
            courier.join()
    assert found == [BODY] * count
    assert [needed for _, needed in put_so_far] == list(range(1, count + 1))


def test_more_couriers_are_asked_for_where_answers_turn_out_to_take_long() -> None:
    parcels = Parcels(8)
    for number in range(8):
        parcels.put(b"%d" % number, ETAG.encode(), len(BODY), number)
    before = parcels.needed
    parcels.hired = 1

    def late(server: RawServer, connection: socket.socket) -> None:
        read_request(server, connection)
        time.sleep(0.02)
        connection.sendall(good())

    with raw_server(late) as server:
        assert serve(parcels, server) == (SHORT, None)
    assert before < parcels.needed == 7


def test_who_rests_is_woken_by_what_is_put_and_by_the_end() -> None:
    parcels = Parcels(1)
    ends: list[tuple[int, object]] = []
    with raw_server(answering(good(), good())) as server:
        courier = threading.Thread(target=lambda: ends.append(serve(parcels, server)))
        courier.start()
        for name in (b"a", b"b"):  # the second one finds it at rest
            parcel, _ = parcels.put(name, ETAG.encode(), len(BODY), name)
            assert parcels.wait(parcel) == BODY
        parcels.close()
        courier.join()
    assert ends == [(ENDED, None)]


class Interrupted(Exception):
    pass


def test_a_signal_ends_the_wait() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    parcels = Parcels(1)
    parcel, _ = parcels.put(b"a", ETAG.encode(), len(BODY), "slot")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            parcels.wait(parcel)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert parcels.waiting == 0
