"""Serving: a process with some of the three services on a Unix socket, from start to a graceful end.

`ossfuse node` and `ossfuse controller` are these functions with their configuration. The socket appears before the slow
part of the start (finding the mounts of an earlier process), because node-driver-registrar asks for the name within a
second; until that part is over Probe says "not ready". SIGTERM lets calls finish; mounts and sidecars go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from csi.driver.calls.interceptors import CallInterceptor
from csi.driver.controller import ControllerService
from csi.driver.credentials import CredentialSupply, LoggedIncidents
from csi.driver.identity import IdentityService, Readiness, version
from csi.driver.node import NodeService
from csi.driver.starting import MountsFactory, StartingMounts
from csi.driver.stores import StoreFactory, check_volume, open_store
from csi.errors import InvalidOption, MountError
from csi.handover.cache_places import CachePlaces
from csi.handover.local import local_mounts
from csi.handover.types import IncidentReporter, VolumeMounts
from csi.oss.assume_role import RoleExchange
from csi.oss.transport import CurlTransport
from csi.v1 import csi_pb2_grpc
from csi.volume.naming import DRIVER_NAME
from csi.volume.units import Seconds

log = logging.getLogger(__name__)

Companion = Callable[[], AbstractAsyncContextManager[None]]
"""What else the process serves."""

_LONGEST_SOCKET_PATH = 107
"""Bytes; sun_path of unix(7) without its final zero."""
_LARGEST_REQUEST = 16 * 2**20
"""Bytes. A request with absurd attributes gets an answer that says so, not a transport error."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """`endpoint` as in CSI_ENDPOINT (`unix:///csi/csi.sock`); `grace` for calls under way when the process ends;
    `state_directory` holds what sidecars need while they run, and is best on a tmpfs; `in_pods`: they run in the pods;
    `sts_endpoint` is where roles are taken on, '' for the STS of a volume's region; below `cache_host_paths` volumes
    may have disk caches."""

    endpoint: str
    node_id: str
    cpu_count: int
    state_directory: Path = Path("/run/ossfuse")
    grace: Seconds = Seconds(10.0)
    in_pods: bool = False
    sts_endpoint: str = ""
    cache_host_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """`endpoint` as in CSI_ENDPOINT; `grace` for calls under way when the process ends."""

    endpoint: str
    cpu_count: int = 1
    grace: Seconds = Seconds(10.0)


def serve_node(
    config: NodeConfig,
    *,
    open_mounts: MountsFactory | None = None,
    incidents: IncidentReporter | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve Identity and Node until SIGTERM or SIGINT; mounts and sidecars go on afterwards.

    Blocks; call it on the main thread. `open_mounts` is called on another thread once the socket is there; by default
    it finds the volumes that an earlier process published from `state_directory`. `incidents` is told when the
    credentials of a published volume cannot be renewed, by default the log. `on_ready` is called once, when volumes
    can be published, and must not wait. Raises InvalidOption for a bad endpoint or node id, MountError when the socket
    or the state directory cannot be used.
    """
    opened = open_mounts or (lambda: open_local_mounts(config.state_directory))
    asyncio.run(_serve_node(config, opened, incidents or LoggedIncidents(), on_ready))


def serve_controller(
    config: ControllerConfig, *, stores: StoreFactory = open_store, beside: Companion = contextlib.nullcontext
) -> None:
    """Serve Identity and Controller until SIGTERM or SIGINT. Blocks; call it on the main thread.

    `beside` is entered on the same event loop once the socket is there, and left before calls are refused.
    """
    asyncio.run(_serve_controller(config, stores, beside))


def open_local_mounts(state_directory: Path) -> VolumeMounts:
    """Volumes served by sidecar processes of this machine, those of an earlier process found again."""
    mounts = local_mounts(state_directory, check_volume)
    mounts.open()
    return mounts


class Server:
    """One gRPC server on one Unix socket; services are what `start` is given.

    Use from one event loop. The socket belongs to root alone: whoever may speak to it may mount on this node.
    """

    def __init__(self, endpoint: str, grace: Seconds) -> None:
        self._path = socket_path(endpoint)
        self._grace = grace
        self.readiness = Readiness()
        self.calls = CallInterceptor()
        self._server = grpc.aio.server(
            interceptors=[self.calls],
            options=[
                ("grpc.max_receive_message_length", _LARGEST_REQUEST),
                # one process, one socket: a second server on it must fail, not share
                ("grpc.so_reuseport", 0),
            ],
        )

    async def start(self, *, node: NodeService | None = None, controller: ControllerService | None = None) -> None:
        """Listen. Raises MountError when the socket cannot be made."""
        csi_pb2_grpc.add_IdentityServicer_to_server(IdentityService(self.readiness), self._server)  # type: ignore[no-untyped-call]  # generated
        if node is not None:
            csi_pb2_grpc.add_NodeServicer_to_server(node, self._server)  # type: ignore[no-untyped-call]  # generated
        if controller is not None:
            csi_pb2_grpc.add_ControllerServicer_to_server(controller, self._server)  # type: ignore[no-untyped-call]  # generated
        _make_way(self._path)
        before = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError as error:
            raise MountError(
                f"cannot listen on {self._path}: {error}", hint="is the directory there and writable?"
            ) from error
        finally:
            os.umask(before)
        await self._server.start()
        log.info("%s %s listens on %s", DRIVER_NAME, version(), self._path)

    async def stop(self) -> None:
        """Finish what is under way, at most for the grace period, and remove the socket."""
        await self._server.stop(self._grace)
        self._path.unlink(missing_ok=True)


def socket_path(endpoint: str) -> Path:
    """The path in `unix:///csi/csi.sock`, `unix:/csi/csi.sock` or `/csi/csi.sock`; raises InvalidOption."""
    text = endpoint.removeprefix("unix://").removeprefix("unix:")
    if not text.startswith("/"):
        raise InvalidOption(
            "endpoint", endpoint, "a Unix socket such as unix:///csi/csi.sock", hint="CSI is not served over TCP"
        )
    if len(os.fsencode(text)) > _LONGEST_SOCKET_PATH:
        raise InvalidOption("endpoint", endpoint, f"a socket path of at most {_LONGEST_SOCKET_PATH} bytes")
    return Path(os.path.normpath(text))


def _make_way(path: Path) -> None:
    """Make the socket's directory, remove the socket of a process that is gone; never that of one that answers."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise MountError(f"{path} exists and is not a socket", hint="remove it or choose another endpoint")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise MountError(f"cannot tell who listens on {path}: {error}", errno=error.errno or 0) from error
    raise MountError(f"another process listens on {path}", hint="stop it first, or choose another endpoint")


async def _serve_node(
    config: NodeConfig, open_mounts: MountsFactory, incidents: IncidentReporter, on_ready: Callable[[], None]
) -> None:
    mounts = StartingMounts()
    node = NodeService(
        mounts,
        node_id=config.node_id,
        cpu_count=config.cpu_count,
        supply=CredentialSupply(RoleExchange(CurlTransport()), incidents, endpoint=config.sts_endpoint),
        in_pods=config.in_pods,
        caches=CachePlaces(config.cache_host_paths, in_pods=config.in_pods),
    )
    server = Server(config.endpoint, config.grace)
    ended = _end_signals()
    await server.start(node=node)
    try:
        mounts.started(await asyncio.get_running_loop().run_in_executor(None, open_mounts))
        server.readiness.ready = True
        log.info("node %s is ready", config.node_id)
        on_ready()
        await ended.wait()
    finally:
        await server.stop()
        await node.close()
        mounts.close()


async def _serve_controller(config: ControllerConfig, stores: StoreFactory, beside: Companion) -> None:
    controller = ControllerService(stores, cpu_count=config.cpu_count)
    server = Server(config.endpoint, config.grace)
    ended = _end_signals()
    await server.start(controller=controller)
    server.readiness.ready = True
    try:
        async with beside():
            await ended.wait()
    finally:
        await server.stop()
        await controller.close()


def _end_signals() -> asyncio.Event:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    return ended
