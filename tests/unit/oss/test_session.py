import logging
import threading

import pytest

from csi import errors
from csi.oss.cancellation import Cancellation
from csi.oss.credentials import Credentials, StaticCredentials
from csi.oss.exchange import HttpAnswer
from csi.oss.preflight import POLICY
from csi.oss.requests import Call
from csi.volume.spec import HttpOptions
from tests.support.scripted_transport import KEY_SECRET, Time, refusal, scripted_client

FOUND = HttpAnswer(200, {"content-length": "5", "etag": '"E"', "x-oss-hash-crc64ecma": "3"})
RESET = errors.EndpointUnreachable("connection reset")


class RotatingCredentials:
    """`current` gives the newest of those that `refresh` has found."""

    def __init__(self, *found):
        self.found = list(found)
        self.refreshes = 0

    def current(self):
        return self.found[0]

    def refresh(self):
        self.refreshes += 1
        if len(self.found) > 1:
            self.found.pop(0)


class LateCredentials(RotatingCredentials):
    """The next are there `after` seconds, by the clock."""

    def __init__(self, time, after, *found):
        super().__init__(*found)
        self.time = time
        self.due = time.now + after

    def refresh(self):
        if self.time.now >= self.due:
            super().refresh()
        else:
            self.refreshes += 1


class Together:
    """A clock for threads that sleep equally long, all at once."""

    def __init__(self, time, crowd):
        self.clock = time.clock
        self._time = time
        self._seconds = 0.0
        self._barrier = threading.Barrier(crowd, self._pass)

    def sleep(self, seconds):
        self._seconds = seconds
        self._barrier.wait(20)

    def _pass(self):
        self._time.sleep(self._seconds)


def temporary(name, expiration=None):
    return Credentials(f"STS.{name}", "s", f"token of {name}", expiration)


def silence(time, seconds):
    """A step of a script: so long nothing comes, by the clock."""

    def wait(_request):
        time.now += seconds
        raise errors.DeadlineExceeded("no answer within 30 s")

    return wait


def test_an_attempt_that_was_lost_is_made_again():
    client, transport = scripted_client(RESET, refusal(503, "ServiceUnavailable"), FOUND)

    assert client.head("k").size == 5
    assert len(transport.requests) == 3


def test_retries_are_counted():
    client, _ = scripted_client(RESET, FOUND, refusal(404, "NoSuchKey"))
    client.head("k")
    with pytest.raises(errors.ObjectNotFound):
        client.head("absent")

    statistics = client.statistics()

    assert (statistics.requests, statistics.retries, statistics.errors) == (3, 1, 1)


def test_when_retries_are_used_up_the_last_error_is_raised():
    client, transport = scripted_client(*[refusal(503, "ServiceUnavailable")] * 3, http=HttpOptions(retries=2))

    with pytest.raises(errors.ServerFailure, match="HeadObject"):
        client.head("k")

    assert transport.steps == []


def test_a_verdict_is_raised_at_once():
    time = Time()
    client, _ = scripted_client(refusal(404, "NoSuchKey"), time=time)

    with pytest.raises(errors.ObjectNotFound):
        client.head("k")

    assert time.slept == []


def test_the_deadline_of_an_operation_covers_its_retries():
    time = Time()
    client, transport = scripted_client(*[silence(time, 30.0)] * 6, time=time)

    with pytest.raises(errors.DeadlineExceeded, match=r"not done within 60\.0 s and 2 attempts"):
        client.head("k")

    assert len(transport.requests) == 2


def test_an_operation_that_a_paused_machine_overslept_is_tried_again():
    time = Time()
    paused = silence(time, 100.0)
    client, transport = scripted_client(paused, paused, FOUND, time=time)

    assert client.head("k").size == 5
    assert len(transport.requests) == 3


def test_a_machine_that_is_paused_again_and_again_ends_with_the_retries():
    time = Time()
    client, transport = scripted_client(*[silence(time, 100.0)] * 9, time=time, http=HttpOptions(retries=4))

    with pytest.raises(errors.DeadlineExceeded):
        client.head("k")

    assert len(transport.requests) == 5


def test_a_server_that_asks_for_more_time_than_there_is_ends_in_the_deadline():
    time = Time()
    client, _ = scripted_client(refusal(503, "ServiceUnavailable", retry_after="3600"), time=time)

    with pytest.raises(errors.DeadlineExceeded, match="503 ServiceUnavailable"):
        client.head("k")

    assert time.slept == []


def test_a_large_body_gets_more_time():
    time = Time()

    def slow(_request):
        time.now += 80.0
        raise RESET

    client, transport = scripted_client(slow, HttpAnswer(200, {"x-oss-request-id": "65A0"}), time=time)

    client.put("k", [bytes(32 * 1024 * 1024)])

    assert len(transport.requests) == 2


def test_each_attempt_is_signed_anew():
    time = Time()
    client, transport = scripted_client(RESET, FOUND, time=time, http=HttpOptions(retry_interval=4.0))

    client.head("k")

    first, second = ([h for h in r.headers if h.startswith(b"x-oss-date")] for r in transport.requests)
    assert first != second


@pytest.mark.parametrize("code", ["SecurityTokenExpired", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_refused_credentials_are_refreshed_once_and_the_request_repeated(code):
    credentials = RotatingCredentials(Credentials("old", "s1"), Credentials("new", "s2"), Credentials("newer", "s3"))
    client, transport = scripted_client(refusal(403, code), FOUND, credentials=credentials)

    client.head("k")

    assert credentials.refreshes == 1
    assert any(b"Credential=new/" in header for header in transport.requests[1].headers)


def test_a_head_refused_without_a_code_refreshes_credentials_too():
    credentials = RotatingCredentials(Credentials("old", "s1"), Credentials("new", "s2"))
    client, _ = scripted_client(HttpAnswer(403, {}), FOUND, credentials=credentials)

    assert client.head("k").size == 5


def test_credentials_that_do_not_change_are_not_tried_again():
    credentials = RotatingCredentials(Credentials("same", "s1"))
    client, transport = scripted_client(refusal(403, "InvalidAccessKeyId"), credentials=credentials)

    with pytest.raises(errors.AuthenticationFailed):
        client.head("k")

    assert len(transport.requests) == 1


def test_credentials_are_refreshed_only_once_for_a_request():
    credentials = RotatingCredentials(*(Credentials(f"id{n}", "s") for n in range(5)))
    client, transport = scripted_client(*[refusal(403, "InvalidAccessKeyId")] * 2, credentials=credentials)

    with pytest.raises(errors.AuthenticationFailed):
        client.head("k")

    assert transport.steps == []


@pytest.mark.parametrize("code", ["SecurityTokenExpired", "InvalidAccessKeyId"])
def test_a_request_waits_for_the_successor_of_an_expired_token(code):
    time = Time()
    credentials = LateCredentials(time, 1.2, temporary("old"), temporary("new"))
    client, transport = scripted_client(*[refusal(403, code)] * 2, FOUND, credentials=credentials, time=time)

    assert client.head("k").size == 5
    assert any(b"Credential=STS.new/" in header for header in transport.requests[2].headers)
    assert sum(time.slept) == 1.5


def test_new_credentials_are_noticed_within_a_long_wait():
    time = Time()
    credentials = LateCredentials(time, 2.5, temporary("old"), temporary("new"))
    http = HttpOptions(retries=1, retry_interval=10.0)
    client, _ = scripted_client(
        refusal(403, "SecurityTokenExpired"), FOUND, credentials=credentials, time=time, http=http
    )

    client.head("k")

    assert sum(time.slept) == 3.0


def test_an_expired_token_without_a_successor_is_told_after_all_retries():
    time = Time()
    client, transport = scripted_client(
        *[refusal(403, "SecurityTokenExpired")] * 6, credentials=RotatingCredentials(temporary("old")), time=time
    )

    with pytest.raises(errors.AuthenticationFailed, match="SecurityTokenExpired"):
        client.head("k")

    assert transport.steps == []
    assert sum(time.slept) == 15.5


@pytest.mark.parametrize("answer", [HttpAnswer(403, {}), refusal(403, "InvalidSecurityToken")], ids=["HEAD", "code"])
def test_a_refusal_that_does_not_say_why_waits_if_the_expiration_is_past(answer):
    time = Time()
    credentials = LateCredentials(time, 0.3, temporary("old", time.now), temporary("new"))
    client, _ = scripted_client(answer, FOUND, credentials=credentials, time=time)

    assert client.head("k").size == 5


@pytest.mark.parametrize(
    ("code", "credentials"),
    [
        ("InvalidAccessKeyId", RotatingCredentials(Credentials("LTAI", "s"))),
        ("SignatureDoesNotMatch", RotatingCredentials(temporary("wrong", 1.0))),
        ("RequestTimeTooSkewed", RotatingCredentials(temporary("early", 1.0))),
        ("AccessDenied", RotatingCredentials(temporary("poor", 1.0))),
        ("InvalidSecurityToken", RotatingCredentials(temporary("torn", 4e9))),
        ("SecurityTokenExpired", StaticCredentials(temporary("alone"))),
    ],
    ids=["a permanent key", "a wrong secret", "a wrong clock", "no right", "another key's token", "nobody renews"],
)
def test_what_no_renewal_cures_is_told_at_once(code, credentials):
    time = Time()
    client, transport = scripted_client(refusal(403, code), credentials=credentials, time=time)

    with pytest.raises(errors.StoreError, match=code):
        client.head("k")

    assert time.slept == []
    assert len(transport.requests) == 1


@pytest.mark.parametrize("ending", ["close", "cancel"])
def test_an_end_ends_the_wait_for_new_credentials(ending):
    time = Time()
    cancellation = Cancellation()
    client, _ = scripted_client(
        *[refusal(403, "SecurityTokenExpired")] * 2,
        credentials=RotatingCredentials(temporary("old")),
        time=time,
        http=HttpOptions(retry_interval=10.0),
    )
    time.during_sleep = client.close if ending == "close" else cancellation.request

    with pytest.raises(errors.AuthenticationFailed):
        client.session.call(Call("ListObjects", "GET"), cancellation=cancellation)

    assert len(time.slept) == 1


def test_the_source_is_looked_at_for_all_who_wait():
    crowd, rounds = 8, 16  # of the latter each may have one look
    time = Time()
    credentials = RotatingCredentials(temporary("old"))
    client, _ = scripted_client(
        *[refusal(403, "SecurityTokenExpired")] * (6 * crowd), credentials=credentials, time=Together(time, crowd)
    )
    told = []

    def ask():
        with pytest.raises(errors.AuthenticationFailed) as failure:
            client.head("k")
        told.append(failure.value)

    threads = [threading.Thread(target=ask) for _ in range(crowd)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(told) == crowd
    assert credentials.refreshes < crowd + 2 * rounds


def test_lack_of_rights_does_not_touch_the_credentials():
    credentials = RotatingCredentials(Credentials("old", "s1"), Credentials("new", "s2"))
    client, _ = scripted_client(refusal(403, "AccessDenied"), credentials=credentials)

    with pytest.raises(errors.PermissionDenied):
        client.head("k")

    assert credentials.refreshes == 0


def test_anonymous_requests_are_not_signed():
    client, transport = scripted_client(FOUND, credentials=RotatingCredentials(None))

    client.head("k")

    assert not any(header.lower().startswith(b"authorization") for header in transport.requests[0].headers)


def test_no_secret_is_in_a_message_or_a_log(caplog):
    client, _ = scripted_client(RESET, refusal(403, "SignatureDoesNotMatch", KEY_SECRET))

    with caplog.at_level(logging.DEBUG), pytest.raises(errors.AuthenticationFailed) as failure:
        client.head("k")

    assert KEY_SECRET not in caplog.text + str(failure.value) + repr(failure.value)


def test_a_closed_client_does_not_try_again():
    client, transport = scripted_client(RESET, FOUND)
    client.close()

    with pytest.raises(errors.EndpointUnreachable):
        client.head("k")

    assert len(transport.requests) == 1
    assert transport.closed


def test_a_page_of_a_passing_proxy_is_asked_for_again():
    listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    client, _ = scripted_client(HttpAnswer(200, {}, b"<html>busy</html>"), HttpAnswer(200, {}, listing))

    assert list(client.list_page("").objects) == []


def test_a_continuation_that_goes_in_circles_ends():
    listing = (
        b"<ListBucketResult><IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>same</NextContinuationToken></ListBucketResult>"
    )
    client, _ = scripted_client(*[HttpAnswer(200, {}, listing)] * 3)

    with pytest.raises(errors.ServerFailure, match="repeats"):
        list(client.list_all("p/"))


def test_what_every_thread_did_is_counted():
    client, _ = scripted_client(*[FOUND] * 8)
    threads = [threading.Thread(target=client.head, args=("k",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert client.statistics().requests == 8


@pytest.mark.parametrize(
    ("deadline", "policy", "hint"),
    [
        (60.0, None, "check the network to the endpoint, or raise fs.oss.timeout.millisecond"),
        (10.0, None, "check the network to the endpoint"),
        (60.0, POLICY, "check the network to the endpoint"),
    ],
    ids=["the option's timeout", "a shorter deadline", "a timeout of its own"],
)
def test_the_option_is_named_only_where_it_is_what_bounded_the_attempt(deadline, policy, hint):
    def late(_request):
        raise errors.DeadlineExceeded("late")

    http = HttpOptions(retries=0, timeout=30.0, deadline=deadline)
    client, _ = scripted_client(late, late, http=http)

    with pytest.raises(errors.DeadlineExceeded) as failure:
        client.session.call(Call("ListObjects", "GET"), policy=policy)

    assert failure.value.hint == hint


def test_a_hint_of_those_who_know_more_is_kept():
    def late(_request):
        raise errors.DeadlineExceeded("late", hint="raise fs.oss.connection.timeout.millisecond")

    client, _ = scripted_client(late, http=HttpOptions(retries=0))

    with pytest.raises(errors.DeadlineExceeded) as failure:
        client.head("k")

    assert failure.value.hint == "raise fs.oss.connection.timeout.millisecond"
