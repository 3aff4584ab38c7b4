"""The webhook's HTTPS server: it answers in time, whatever the API server does, and changes its certificate in flight.

The event loop only moves bytes; reviews run on a few threads, each within a deadline below the API server's own, after
which the call ends as an error and failurePolicy decides. The port opens at once, with a certificate that nobody
trusts until there is a real one, so that probes can tell starting from dead: `/healthz` is 200 while the process
answers, `/readyz` once reviews do.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from csi.cluster.api import JsonObject
from csi.cluster.webhook.certificates import CertificateSource, Clock
from csi.cluster.webhook.issuing import ServingCertificate, make_certificate
from csi.cluster.webhook.review import MalformedReview, PodReviewer
from csi.errors import OssFuseError, PluginNotHealthy
from csi.volume.units import Seconds

log = logging.getLogger(__name__)

_LARGEST_REVIEW: Final = 8 * 2**20
"""Bytes; the API server takes objects of 3 MiB."""
_THREADS: Final = 16
_DURATION: Final = re.compile(r"([0-9]{1,2})s")
_SHARE: Final = 0.8
"""Of somebody's patience: what may be used of it by what they wait for."""
_WAITING: Final = 256
"""Reviews under way or waiting for a thread; more are turned away at once, and tried again by whoever asked."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """`patience` bounds a review where the API server does not tell its own, `look` is how often the certificate is
    looked at, `retry` how soon while there is none. `linger` is how long it goes on at the end, not ready, until the
    Service sends nobody here any more. `port` 0 picks a free one."""

    port: int
    host: str | None = None
    patience: Seconds = Seconds(8.0)
    look: Seconds = Seconds(30.0)
    retry: Seconds = Seconds(2.0)
    linger: Seconds = Seconds(0.0)


class WebhookServer:
    """Use from one event loop: `async with server.running(): …`. `port` is the one in use meanwhile."""

    def __init__(
        self,
        reviewer: PodReviewer,
        certificates: CertificateSource,
        config: ServerConfig,
        clock: Clock,
        *,
        linger: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._reviewer = reviewer
        self._certificates = certificates
        self._config = config
        self._clock = clock
        self._linger = linger
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="review")
        self._under_way = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._serving: ServingCertificate | None = None
        self._problem = "starting"
        self._ending = False
        self.port = config.port

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve meanwhile; what is under way at the end is finished. Raises PluginNotHealthy when the port is taken."""
        load(self._context, make_certificate(("starting.invalid",), self._clock()))
        runner = web.AppRunner(self._application(), access_log=None, handle_signals=False)
        await runner.setup()
        looking = asyncio.create_task(self._look_after_certificate(), name="certificate")
        try:
            site = web.TCPSite(runner, self._config.host, self._config.port, ssl_context=self._context)
            try:
                await site.start()
            except OSError as error:
                raise PluginNotHealthy(
                    f"the webhook cannot listen on port {self._config.port}: {error.strerror}",
                    hint="choose another --webhook-port",
                ) from error
            self.port = runner.addresses[0][1]
            log.info("the webhook listens on port %d", self.port)
            yield
            self._ending = True
            await self._linger(self._config.linger)
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
            await runner.cleanup()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_LARGEST_REVIEW)
        application.add_routes(
            [
                web.post("/mutate", self._mutate),
                web.get("/healthz", self._healthy),
                web.get("/readyz", self._ready),
            ]
        )
        return application

    async def _healthy(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        problem = "ending" if self._ending else self._problem
        if not problem and self._serving is not None and self._serving.expiry() <= self._clock():
            problem = f"the certificate ended on {self._serving.expiry():%Y-%m-%d}"
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    async def _mutate(self, request: web.Request) -> web.Response:
        """An answer is 200; everything else is an error that the API server shows as it is."""
        patience = self._patience(request)
        try:
            body = json.loads(await request.read())
        except ValueError:
            return _error(400, "the body is not JSON")
        try:
            return web.json_response(await self._reviewed(body, patience))
        except MalformedReview as error:
            return _error(400, str(error))
        except TimeoutError:
            return _error(504, f"the review of the pod did not end within {patience:g} s; try again")
        except OssFuseError as error:
            log.warning("a pod could not be reviewed: %s", error)
            return _error(503 if isinstance(error, PluginNotHealthy) else 500, str(error))
        except Exception:
            log.exception("a pod could not be reviewed")
            return _error(500, "unexpected failure; the log of the Deployment ossfuse-csi-controller has the details")

    def _patience(self, request: web.Request) -> Seconds:
        """Less than the API server's own, which it tells: so it hears why, and not only that it was too late."""
        told = _DURATION.fullmatch(request.query.get("timeout", ""))
        return Seconds(int(told[1]) * _SHARE) if told else self._config.patience

    async def _reviewed(self, body: object, patience: Seconds) -> JsonObject:
        if self._under_way >= _WAITING:
            raise PluginNotHealthy(f"{self._under_way} pods are being reviewed already", hint="try again")
        looking = Seconds(patience * _SHARE)
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._reviewer.review, body, looking)
        self._under_way += 1
        future.add_done_callback(self._ended)
        return await asyncio.wait_for(asyncio.shield(future), patience)

    def _ended(self, future: asyncio.Future[JsonObject]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()  # seen, also when nobody waits any longer

    async def _look_after_certificate(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                found = await loop.run_in_executor(None, self._certificates.current)
                if found != self._serving:
                    load(self._context, found)
                    log.info("the webhook serves a certificate that ends on %s", f"{found.expiry():%Y-%m-%d}")
                    self._serving = found
                self._problem = ""
            except Exception as error:
                self._told(error)
            await asyncio.sleep(self._config.look if self._serving is not None else self._config.retry)

    def _told(self, error: Exception) -> None:
        """The last certificate goes on; without one the webhook is not ready, and says why."""
        text = str(error) if isinstance(error, OssFuseError) else f"unexpected {type(error).__name__}"
        if self._serving is None:
            if self._problem != text:
                log.warning("the webhook has no certificate yet: %s", text)
            self._problem = text
        else:
            log.warning("the webhook's certificate could not be looked at: %s", text)


def load(context: ssl.SSLContext, serving: ServingCertificate) -> None:
    """Serve `serving` to connections from now on. The key passes through memory only, no file."""
    with _in_memory(serving.certificate) as certificate, _in_memory(serving.key) as key:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)  # a bad pair must not get halfway
        context.load_cert_chain(certificate, key)


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path at which OpenSSL reads `content`."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _error(status: int, text: str) -> web.Response:
    """The API server repeats plain text in what it tells the user."""
    return web.Response(status=status, text=text)
