"""The emulator as a server: configuration, one handler for every request, start and stop.

`run` prints one line, `listening http://HOST:PORT`, once requests are answered, and returns after SIGTERM or SIGINT.
One process, one event loop; bodies move on sendfile and a few threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import socket
import sys
import traceback
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aiohttp import web

from csi.emulator.control.admin import Admin
from csi.emulator.control.faults import Faults, Plan
from csi.emulator.control.traffic import Entry, Traffic
from csi.emulator.identity.access import check_anonymous
from csi.emulator.identity.keyring import Keyring, expired_token
from csi.emulator.identity.oidc import OidcProviders, read_keys
from csi.emulator.identity.signatures import Verifier
from csi.emulator.identity.sts import STS_OPERATIONS, SecurityTokenService, is_sts, sts_operation
from csi.emulator.identity.trust import RoleTrust
from csi.emulator.operations.buckets import check_bucket_name
from csi.emulator.operations.routing import operation_name, operations
from csi.emulator.store.storage import Storage
from csi.emulator.wire.answers import Answer, refusal_answer
from csi.emulator.wire.call import Call, address, first_values, parse_query
from csi.emulator.wire.intake import Intake
from csi.emulator.wire.left import take
from csi.emulator.wire.refusals import Refusal
from csi.emulator.wire.s3 import dress, speaks_s3, translate
from csi.emulator.wire.send import ConnectionEnded, send
from csi.errors import OssFuseError

_UNKNOWN = "Unknown"
"""The operation of a request that is none."""
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_CLIENT_GONE = (ConnectionError, asyncio.IncompleteReadError, web.RequestPayloadError)


@dataclass(frozen=True, slots=True)
class EmulatorConfig:
    """How to run. `port` 0 picks a free one. `access_keys`: id → secret. `buckets` exist from the start;
    `public_buckets` too, and anybody may read and list them. `domains`: names under which `BUCKET.DOMAIN` addresses a
    bucket. `anonymous_owner`: unsigned requests may do everything. `s3`: requests that are not in the words of
    OSS are taken for S3, unsigned, and may do everything (benchmarks). `until_stdin_closes`: stop when standard input
    ends, so that the server never outlives whoever started it. `bodies_left` is where a server in front
    leaves request bodies as files (benchmarks). `oidc_provider` is the ARN of a provider that exists from the start,
    with `oidc_issuer` and the keys in the file `oidc_keys`; `role_subjects`: role → subject it trusts.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 18080
    access_keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    buckets: tuple[str, ...] = ()
    public_buckets: tuple[str, ...] = ()
    domains: tuple[str, ...] = ("oss.local",)
    region: str = "cn-hangzhou"
    sts_path: str = "/sts"
    admin_path: str = "/_emulator"
    oidc_provider: str = ""
    oidc_issuer: str = ""
    oidc_keys: Path | None = None
    role_subjects: tuple[tuple[str, str], ...] = ()
    anonymous_owner: bool = False
    s3: bool = False
    until_stdin_closes: bool = False
    bodies_left: Path | None = None


def run(config: EmulatorConfig, announce: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT. Raises OssFuseError when it cannot start (port or directory in use)."""
    asyncio.run(_serve(config, announce))


class Emulator:
    """Answers requests; owns the storage. `handle` is the only entry."""

    def __init__(self, config: EmulatorConfig) -> None:
        self._config = config
        self._storage = Storage(config.data)
        now = self._storage.now
        self._keyring = Keyring(self._storage.index, dict(config.access_keys), now)
        self._verifier = Verifier(self._keyring, now)
        self._faults = Faults()
        self._traffic = Traffic()
        reserved = frozenset(path.strip("/") for path in (config.sts_path, config.admin_path))
        self._operations = operations(self._storage, config.region, reserved)
        providers = OidcProviders(self._storage.index)
        trust = RoleTrust(self._storage.index)
        self._sts = SecurityTokenService(self._keyring, providers, trust, now)
        names = frozenset({*self._operations, *STS_OPERATIONS, _UNKNOWN})
        self._admin = Admin(self._storage, self._keyring, providers, trust, self._faults, self._traffic, names)
        if config.oidc_keys is not None or config.oidc_provider or config.oidc_issuer:
            if config.oidc_keys is None or not config.oidc_provider or not config.oidc_issuer:
                raise OssFuseError("an OIDC provider is an ARN, an issuer and keys", hint="give all three")
            keys = read_keys(config.oidc_keys)
            providers.register({"arn": config.oidc_provider, "issuer": config.oidc_issuer, "keys": keys})
        for role in {role for role, _ in config.role_subjects}:
            trust.trust(role, [subject for trusting, subject in config.role_subjects if trusting == role])
        self._connections: weakref.WeakKeyDictionary[asyncio.BaseTransport, int] = weakref.WeakKeyDictionary()
        self._connection_serial = 0
        for name in (*config.buckets, *config.public_buckets):
            self._admin.ensure_bucket(name, public=name in config.public_buckets)

    def close(self) -> None:
        self._storage.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        entry = self._entry(request)
        intake = Intake(request, entry)
        call = Call(request.method, "", "", "", {}, (), request.headers, intake, host=request.headers.get("Host", ""))
        call.request_id = entry.request_id
        started = asyncio.get_running_loop().time()
        plan = Plan()
        try:
            refusal = self._understand(request, call)
            entry.operation, entry.bucket, entry.key = call.operation, call.bucket, call.key
            if call.operation.startswith("Emulator"):
                answer = await self._answer(call, plan, refusal)
                return await send(request, answer, plan, self._storage.bodies, entry, lambda: None)
            self._traffic.enter(entry, partial(_is_connected, request))
            try:
                plan = self._faults.plan(call)
                entry.faults = plan.names
                intake.suffer(plan)
                await self._delay(request, plan)
                answer = await self._answer(call, plan, refusal)
                entry.caller = call.caller
                entry.status, entry.code = answer.status, answer.code
                return await self._send(request, answer, plan, entry)
            finally:
                entry.seconds = asyncio.get_running_loop().time() - started
                self._traffic.leave(entry)
        except ConnectionEnded:
            entry.status = 0 if entry.outcome == "reset" and not entry.bytes_out else entry.status
            return _nothing(request)
        except _CLIENT_GONE:
            entry.outcome = "gone"
            return _nothing(request)

    def _entry(self, request: web.BaseRequest) -> Entry:
        transport = request.transport
        connection = self._connections.get(transport, 0) if transport is not None else 0
        if transport is not None and not connection:
            self._connection_serial += 1
            connection = self._connections[transport] = self._connection_serial
        return Entry(
            0,
            self._storage.now(),
            uuid.uuid4().hex[:24].upper(),
            request.method,
            _UNKNOWN,
            "",
            "",
            request.headers.get("Range", ""),
            connection,
            "",
            request.headers.get("User-Agent", ""),
            _public_query(request.raw_path.partition("?")[2]),
        )

    def _understand(self, request: web.BaseRequest, call: Call) -> Refusal | None:
        """Fill in address and operation; what is wrong with them is answered later, so that it is counted too."""
        raw = request.raw_path
        if "://" in raw.partition("/")[0]:  # absolute form, as sent to proxies
            raw = "/" + raw.partition("://")[2].partition("/")[2]
        raw_path, _, raw_query = raw.partition("?")
        call.operation = _UNKNOWN
        call.pairs = parse_query(raw_query)
        call.query = first_values(call.pairs)
        try:
            if raw_path == self._config.admin_path or raw_path.startswith(self._config.admin_path + "/"):
                call.path, call.operation = raw_path[len(self._config.admin_path) :], "EmulatorAdmin"
                call.notes["peer"] = request.remote or ""
                return None
            found = address(raw_path, call.host, self._config.domains)
            call.path, call.bucket, call.key = found.path, found.bucket, found.key
            call.virtual_host = found.virtual_host
            if not found.virtual_host and is_sts(call, self._config.sts_path):
                call.bucket = call.key = ""
                call.operation = sts_operation(call)
                return None
            if self._config.bodies_left is not None:
                take(call, self._config.bodies_left)
            if self._config.s3 and speaks_s3(call):
                call.s3 = True
                translate(call)
            call.operation = operation_name(call)
        except Refusal as refusal:
            return refusal
        return None

    async def _answer(self, call: Call, plan: Plan, refusal: Refusal | None) -> Answer:
        """The whole of a request but the wire: identity, right, operation."""
        try:
            if refusal is not None:
                raise refusal  # noqa: TRY301 - answered like every other refusal, below
            if call.operation == "EmulatorAdmin":
                answer = await self._admin.answer(call)
            elif call.operation in STS_OPERATIONS:
                answer = await self._sts.answer(call, _refusal(plan))
            else:
                answer = await self._operate(call, plan)
        except Refusal as refused:
            answer = refusal_answer(refused, call)
        except (ConnectionEnded, *_CLIENT_GONE):
            raise
        except Exception:  # the last resort of a server: told to the client and on stderr
            traceback.print_exc(file=sys.stderr)
            answer = refusal_answer(Refusal(500, "InternalError", "We encountered an internal error."), call)
        answer.headers.setdefault("Server", "AliyunOSS")
        answer.headers.setdefault("x-oss-request-id", call.request_id)
        answer.headers.setdefault("x-oss-server-time", "1")
        if call.s3:
            dress(call, answer)
        return answer

    async def _operate(self, call: Call, plan: Plan) -> Answer:
        if (made := _refusal(plan)) is not None:
            raise made
        if plan.any("expire_token"):
            raise expired_token()
        call.caller = "" if call.s3 else self._verifier.caller(call)
        if not (call.caller or call.s3 or self._config.anonymous_owner):
            check_anonymous(call, self._storage)
        return await self._operations[call.operation](call)

    async def _delay(self, request: web.BaseRequest, plan: Plan) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + plan.latency
        hole = plan.any("blackhole")
        while (hole or loop.time() < due) and not self._faults.lifted(plan):
            changed = self._faults.changed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 0.1 if hole else min(0.1, due - loop.time()))
            if not _is_connected(request):
                raise ConnectionEnded("the client gave up")
        if hole:
            raise ConnectionEnded("the blackhole was lifted")

    async def _send(self, request: web.BaseRequest, answer: Answer, plan: Plan, entry: Entry) -> web.StreamResponse:
        files = [piece.file for piece in answer.pieces]
        self._storage.bodies.pin(files)
        try:
            return await send(request, answer, plan, self._storage.bodies, entry, partial(self._traffic.sent, entry))
        finally:
            self._storage.bodies.unpin(files)


def _is_connected(request: web.BaseRequest) -> bool:
    return request.transport is not None and not request.transport.is_closing()


_CODES = {
    400: "InvalidArgument",
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "FileAlreadyExists",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}


def _refusal(plan: Plan) -> Refusal | None:
    """What a fault rule answers in place of doing anything."""
    if plan.error is None:
        return None
    code = plan.error.code or _CODES.get(plan.error.status, "InternalError")
    return Refusal(plan.error.status, code, "Made by a fault rule.")


async def _serve(config: EmulatorConfig, announce: Callable[[str], None]) -> None:
    for name in (*config.buckets, *config.public_buckets):
        try:
            check_bucket_name(name)
        except Refusal as refusal:
            raise OssFuseError(f"bucket name {name!r} is not valid", hint="3-63 of a-z, 0-9 and '-'") from refusal
    _check_paths(config)
    emulator = Emulator(config)
    server = web.Server(
        emulator.handle,
        auto_decompress=False,  # Content-Encoding describes the object, not the transfer
        max_line_size=64 << 10,
        max_field_size=64 << 10,
        max_headers=2048,  # OSS bounds user metadata by bytes (8 KiB), not by their number
        read_bufsize=256 << 10,
        lingering_time=5,
    )
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, config.host, config.port, backlog=1024, reuse_address=True, shutdown_timeout=1)
    try:
        try:
            await site.start()
        except OSError as error:
            foreign = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
            hint = "give a name or address of this machine as --host" if foreign else "choose another --port"
            raise OssFuseError(f"cannot listen on {config.host}:{config.port}: {error.strerror}", hint=hint) from error
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if config.until_stdin_closes:
            loop.add_reader(0, _stop_at_end_of_input, stop)
        port = runner.addresses[0][1]
        shown = f"[{config.host}]" if ":" in config.host else config.host
        announce(f"listening http://{shown}:{port}")
        await stop.wait()
    finally:
        await runner.cleanup()
        emulator.close()


def _check_paths(config: EmulatorConfig) -> None:
    """Raises OssFuseError for a path under which nothing would ever answer."""
    for option, path in (("--admin-path", config.admin_path), ("--sts-path", config.sts_path)):
        if not _PATH.fullmatch(path):
            hint = f"write /{path.strip('/') or option.split('-')[2]}"
            raise OssFuseError(f"{option} {path!r} is no path: it begins with '/' and does not end with it", hint=hint)
    if config.admin_path == config.sts_path:
        raise OssFuseError(f"--admin-path and --sts-path are both {config.sts_path!r}", hint="give two different ones")


def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stop.set()


def _nothing(request: web.BaseRequest) -> web.StreamResponse:
    """What aiohttp gets for a connection that is over: it finds the transport closed and sends nothing."""
    if request.transport is not None and not request.transport.is_closing():
        request.transport.abort()
    return web.Response(status=500)


def _public_query(raw: str) -> str:
    """The query string without signatures and tokens."""
    secret = ("signature", "security-token", "x-oss-signature", "x-oss-security-token", "x-oss-credential")
    return "&".join(piece for piece in raw.split("&") if piece.partition("=")[0].lower() not in secret)
