"""A Transport that plays a script, and a client on a clock that moves only when it waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from csi.oss.cancellation import Cancellation
from csi.oss.client import OssClient
from csi.oss.credentials import Credentials, CredentialsProvider, StaticCredentials
from csi.oss.exchange import ConnectionStatistics, HttpAnswer, HttpRequest
from csi.volume.spec import HttpOptions, Location, WriteOptions

KEY_ID = "LTAI5tSCRIPTEDKEY"
KEY_SECRET = "scripted-secret-0123456789"
LOCATION = Location("bkt", "https://oss-cn-hangzhou.aliyuncs.com", region="cn-hangzhou")

Step = HttpAnswer | Exception | Callable[[HttpRequest], HttpAnswer]


class Time:
    """A clock, and a sleep that moves it."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self.during_sleep: Callable[[], None] = lambda: None

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.during_sleep()


@dataclass
class ScriptedTransport:
    """Answers each request with the next step: an answer, an exception to raise, or a function of the request."""

    steps: list[Step]
    requests: list[HttpRequest] = field(default_factory=list)
    closed: bool = False

    def send(self, request: HttpRequest, *, timeout: float, stall: float, patience: float) -> HttpAnswer:
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, HttpAnswer) else step(request)

    def send_plain(
        self,
        endpoint: str,
        head: bytes,
        target: memoryview,
        *,
        timeout: float,
        stall: float,
        cancellation: Cancellation | None = None,
    ) -> HttpAnswer | None:
        return None

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics()

    def close(self) -> None:
        self.closed = True


def scripted_client(
    *steps: Step,
    http: HttpOptions | None = None,
    write: WriteOptions | None = None,
    credentials: CredentialsProvider | None = None,
    time: Time | None = None,
    location: Location = LOCATION,
) -> tuple[OssClient, ScriptedTransport]:
    transport = ScriptedTransport(list(steps))
    time = time or Time()
    client = OssClient(
        location,
        http or HttpOptions(),
        write or WriteOptions(),
        credentials or StaticCredentials(Credentials(KEY_ID, KEY_SECRET)),
        transport=transport,
        clock=time.clock,
        monotonic=time.clock,
        sleep=time.sleep,
        random=lambda: 0.5,
    )
    return client, transport


def refusal(status: int, code: str, message: str = "", **headers: str) -> HttpAnswer:
    """An XML error as OSS writes it; header names have '_' for '-'."""
    document = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>65A0</RequestId></Error>"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status, {"x-oss-request-id": "65A0", **named}, document.encode())
