"""The order of clients in a round, and what a run does with one that is wrong."""

from __future__ import annotations

from benchmarks.clients import CLIENTS, by_name
from benchmarks.loads import outcome, short_of
from benchmarks.model import OURS, Sizes
from benchmarks.runner import rotated
from benchmarks.works import BY_WISH, WORKS


def test_every_client_is_in_every_place_once_in_as_many_rounds() -> None:
    clients = CLIENTS[:4]
    orders = [[client.name for client in rotated(clients, turn)] for turn in range(4)]
    assert all(len({order[place] for order in orders}) == 4 for place in range(4))
    assert [client.name for client in rotated(clients, 4)] == orders[0]


def test_what_the_load_program_found_wrong_is_said() -> None:
    report = '{"seconds": 1, "bytes": 5, "operations": 1, "wrong": %d, "error": "%s"}'
    assert outcome(report % (0, ""), 0).wrong == ""
    assert outcome(report % (3, ""), 1).wrong == "3 pages hold other bytes than they should"
    assert outcome(report % (0, "Input/output error: f"), 1).wrong == "Input/output error: f"
    assert outcome("", 139).wrong == "ended with status 139 and no report"
    assert short_of(outcome(report % (0, ""), 0), 6) == "5 bytes instead of 6"


def test_every_work_has_figures_for_its_metrics_and_cases_of_different_names() -> None:
    for work in (*WORKS, *BY_WISH):
        names = [case.name for case in work.cases(Sizes())]
        assert len(set(names)) == len(names)
        assert not any(": " in name for name in names)  # results.json puts the metric there
        assert work.metrics


def test_ours_is_a_client_and_first() -> None:
    assert CLIENTS[0] is by_name(OURS)
