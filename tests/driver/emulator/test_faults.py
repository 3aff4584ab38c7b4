"""Faults made by admin call strike the requests they name, the way they say, and nothing else."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable
from pathlib import Path

import oss2
import pytest
from fastcrc.crc64 import xz as crc64

from tests.driver.emulator.conftest import RawAnswer, RawClient, eventually, make_bucket
from tests.support.emulator import RunningEmulator

DATA = bytes(i % 251 for i in range(300_000))


def test_an_error_strikes_the_next_requests_only(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", DATA)
    emulator.fault(operation="GetObject", status=503, count=2)

    statuses = [raw("GET", "k").status for _ in range(3)]

    assert statuses == [503, 503, 200]
    assert raw("HEAD", "k").status == 200


def test_skip_lets_the_first_requests_pass(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", b"x")
    emulator.fault(operation="GetObject", skip=1, count=1, status=500, code="InternalError")

    answers = [raw("GET", "k") for _ in range(3)]

    assert [(answer.status, answer.code) for answer in answers if answer.status != 200] == [(500, "InternalError")]
    assert [answer.status for answer in answers] == [200, 500, 200]


def test_a_key_pattern_selects(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("a/k", b"x")
    emulator.seed("b/k", b"x")
    emulator.fault(key="a/*", status=403, code="AccessDenied")

    assert raw("GET", "a/k").code == "AccessDenied"
    assert raw("GET", "b/k").status == 200


def test_probability_is_repeatable_with_a_seed(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", b"x")

    def statuses() -> list[int]:
        rule = emulator.fault(status=500, probability=0.5, seed=7)
        found = [raw("GET", "k").status for _ in range(20)]
        emulator.admin("DELETE", f"/faults?id={rule}")
        return found

    first, second = statuses(), statuses()

    assert first == second
    assert set(first) == {200, 500}


def in_background(work: Callable[[], RawAnswer]) -> tuple[threading.Thread, list[RawAnswer | Exception]]:
    outcome: list[RawAnswer | Exception] = []

    def run() -> None:
        try:
            outcome.append(work())
        except (OSError, http.client.HTTPException) as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_latency_delays_the_answer_until_the_rule_is_cleared(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", b"x")
    emulator.fault(operation="GetObject", latency=600.0)
    asking, outcome = in_background(lambda: raw("GET", "k"))
    eventually(lambda: len(emulator.requests("GetObject")) == 1)

    assert raw("HEAD", "k").status == 200
    assert not outcome
    emulator.clear_faults()
    asking.join(timeout=20)

    assert isinstance(outcome[0], RawAnswer)
    assert outcome[0].body == b"x"


def test_a_short_latency_passes_by_itself(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", b"x")
    emulator.fault(operation="GetObject", latency=0.05)

    assert raw("GET", "k").body == b"x"


def test_bandwidth_limits_downloads(emulator: RunningEmulator) -> None:
    emulator.seed("k", DATA)
    emulator.fault(bandwidth=100.0)
    url = make_bucket(emulator, "V4").sign_url("GET", "k", 60)
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=20)
    connection.request("GET", url.removeprefix(emulator.endpoint))
    first = connection.getresponse().read(16 << 10)

    (entry,) = emulator.requests("GetObject")

    assert first == DATA[: 16 << 10]
    assert (entry["bytes_out"], entry["done"]) == (16 << 10, False)
    connection.close()


def test_bandwidth_limits_uploads(emulator: RunningEmulator) -> None:
    emulator.fault(bandwidth=100.0)
    url = make_bucket(emulator, "V4").sign_url("PUT", "k", 60)
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=20)
    connection.putrequest("PUT", url.removeprefix(emulator.endpoint))
    connection.putheader("Content-Length", str(len(DATA) * 100))
    connection.endheaders(DATA)
    eventually(lambda: bool(emulator.requests("PutObject")) and emulator.requests("PutObject")[0]["bytes_in"] > 0)

    (entry,) = emulator.requests("PutObject")

    assert entry["bytes_in"] < len(DATA) * 100
    assert not entry["done"]
    connection.close()


def test_an_ample_bandwidth_changes_no_byte(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.fault(bandwidth=1e9)

    assert raw("PUT", "k", body=DATA).status == 200
    assert raw("GET", "k").body == DATA


def test_a_reset_ends_the_connection_within_the_body(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", DATA)
    emulator.fault(operation="GetObject", reset_after=100_000, count=1)

    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        raw("GET", "k")

    assert emulator.requests("GetObject")[0]["outcome"] == "reset"
    assert emulator.requests("GetObject")[0]["bytes_out"] == 100_000
    assert raw("GET", "k").body == DATA


def test_a_truncated_body_is_exactly_as_long_as_asked(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", DATA)
    emulator.fault(operation="GetObject", truncate_after=123_456)

    with pytest.raises(http.client.IncompleteRead) as cut:
        raw("GET", "k")

    assert cut.value.partial == DATA[:123_456]
    assert cut.value.expected == len(DATA) - 123_456


def test_a_reset_upload_leaves_nothing(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.fault(operation="PutObject", reset_upload_after=100_000, count=1)

    with pytest.raises(ConnectionError):
        raw("PUT", "k", body=DATA * 10)

    assert raw("GET", "k").status == 404
    assert raw("PUT", "k", body=DATA).status == 200


def test_a_dropped_answer_hides_an_operation_that_happened(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.fault(operation="PutObject", drop_answer=True, count=1)

    with pytest.raises((ConnectionError, http.client.HTTPException)):
        raw("PUT", "k", body=DATA)

    assert raw("GET", "k").body == DATA


def test_a_wrong_crc_is_announced(emulator: RunningEmulator, tmp_path: Path) -> None:
    bucket = make_bucket(emulator, "V4")
    emulator.seed("k", DATA)
    emulator.fault(wrong_crc64=True)

    with pytest.raises(oss2.exceptions.InconsistentError):
        bucket.put_object("up", DATA)
    with pytest.raises(oss2.exceptions.InconsistentError):
        bucket.get_object_to_file("k", str(tmp_path / "k"))


def test_a_corrupt_body_has_the_right_length_and_crc_header(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", DATA)
    emulator.fault(corrupt_body=True)

    answer = raw("GET", "k")

    assert len(answer.body) == len(DATA)
    assert answer.body != DATA
    assert answer.headers["x-oss-hash-crc64ecma"] == str(crc64(DATA))


def test_an_expired_token_is_reported_as_such(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.fault(expire_token=True, count=1)

    answer = raw("GET", "k")

    assert (answer.status, answer.code) == (403, "SecurityTokenExpired")


def test_a_blackhole_never_answers_until_it_is_lifted(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.seed("k", DATA)
    emulator.fault(operation="GetObject", blackhole=True)
    asking, outcome = in_background(lambda: raw("GET", "k"))
    eventually(lambda: len(emulator.requests("GetObject")) == 1)
    assert not outcome
    assert raw("HEAD", "k").status == 200

    emulator.clear_faults()
    asking.join(timeout=20)

    assert isinstance(outcome[0], Exception)
    assert emulator.requests("GetObject")[0]["status"] == 0
    assert raw("GET", "k").body == DATA


@pytest.mark.parametrize("rule", [{"operatoin": "GetObject"}, {"status": "503"}, {"count": True}, {"latency": "1s"}])
def test_a_rule_with_a_mistake_is_refused(emulator: RunningEmulator, rule: dict[str, object]) -> None:
    with pytest.raises(AssertionError, match="400"):
        emulator.fault(**rule)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"kind": "latency"}, "Unknown fault setting 'kind'"),
        ({"operation": "GetObjekt", "status": 503}, "there is no 'GetObjekt'; did you mean GetObject?"),
        ({"operation": "PutObject, Xyz*", "status": 503}, "there is no 'Xyz*'; known are AbortMultipartUpload"),
        ({"status": 503, "probability": 7}, "probability is '7.0', expected a number from 0 to 1"),
        ({"status": 503, "probability": -0.5}, "probability is '-0.5'"),
        ({"status": 503, "skip": -1}, "skip is '-1', expected a number from 0"),
        ({"status": 503, "count": -2}, "count is '-2', expected a number from -1"),
        ({"latency": -1}, "latency is '-1.0'"),
        ({"latency": float("nan")}, "latency is 'nan'"),
        ({"bandwidth": float("inf")}, "bandwidth is 'inf'"),
        ({"latency": 10**400}, "latency is 'inf'"),
        ({"truncate_after": -5}, "truncate_after is '-5'"),
        ({"status": 200}, "status is '200', expected an HTTP error, 400 to 599"),
        ({"status": -1}, "status is '-1'"),
        ({"code": "Busy"}, "code is 'Busy', expected this only together with status"),
        ({"operation": "GetObject"}, "The rule has no effect; give one of latency"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_with_what_is_accepted(
    emulator: RunningEmulator, rule: dict[str, object], said: str
) -> None:
    with pytest.raises(AssertionError, match=rf"(?s) 400 .*{re.escape(said)}"):
        emulator.fault(**rule)
    assert emulator.admin("GET", "/faults") == []


@pytest.mark.parametrize("operation", ["Get*", "AssumeRole", "Unknown", "PutObject,GetObject", "PutObject, GetObject"])
def test_a_rule_may_name_operations_by_pattern_or_list(emulator: RunningEmulator, operation: str) -> None:
    emulator.fault(operation=operation, status=503)

    assert [rule["operation"] for rule in emulator.admin("GET", "/faults")] == [operation]


def test_rules_tell_how_often_they_struck(emulator: RunningEmulator, raw: RawClient) -> None:
    emulator.fault(operation="GetObject", status=500, count=1)
    raw("GET", "k")
    raw("GET", "k")

    (rule,) = emulator.admin("GET", "/faults")

    assert (rule["seen"], rule["struck"], rule["operation"]) == (2, 1, "GetObject")
