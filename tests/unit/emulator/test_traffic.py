"""How many requests are under way at a time, as a client would count them; csi/emulator/control/traffic.py."""

from __future__ import annotations

from csi.emulator.control.traffic import Entry, Traffic


def entry(operation: str = "GetObject") -> Entry:
    return Entry(0, 0.0, "id", "GET", operation, "bucket", "key", "", 1, "", "", "")


def peak(traffic: Traffic) -> object:
    return traffic.counters()["peak_in_flight"]


def test_requests_under_way_at_the_same_time_are_counted() -> None:
    traffic = Traffic()
    first, second = entry(), entry("PutObject")
    traffic.enter(first, lambda: True)
    traffic.enter(second, lambda: True)
    traffic.leave(first)
    traffic.leave(second)
    assert peak(traffic) == 2
    operations = traffic.counters()["operations"]
    assert isinstance(operations, dict)
    assert operations["GetObject"]["peak_in_flight"] == operations["PutObject"]["peak_in_flight"] == 1


def test_a_client_that_has_its_answer_may_ask_for_the_next_thing() -> None:
    traffic = Traffic()
    first = entry()
    traffic.enter(first, lambda: True)
    traffic.sent(first)
    traffic.enter(entry(), lambda: True)
    assert peak(traffic) == 1


def test_a_client_that_hung_up_asks_for_nothing() -> None:
    traffic = Traffic()
    connected = True
    traffic.enter(entry(), lambda: connected)
    connected = False
    traffic.enter(entry(), lambda: True)
    assert peak(traffic) == 1


def test_what_is_under_way_when_counting_begins_anew_counts() -> None:
    traffic = Traffic()
    traffic.enter(entry(), lambda: True)
    traffic.reset()
    traffic.enter(entry(), lambda: True)
    assert peak(traffic) == 2
