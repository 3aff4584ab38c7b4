"""CSI services of this process behind a real Unix socket, and the stubs of a client that we did not write (grpc)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from csi.driver.controller import ControllerService
from csi.driver.credentials import CredentialSupply, LoggedIncidents
from csi.driver.node import NodeService
from csi.driver.server import Server
from csi.driver.stores import StoreFactory, open_store
from csi.handover.cache_places import CachePlaces
from csi.handover.types import IncidentReporter, VolumeMounts
from csi.oss.assume_role import RoleExchange
from csi.oss.transport import CurlTransport
from csi.v1 import csi_pb2, csi_pb2_grpc
from csi.volume.units import Seconds

SECRETS = {"akId": "LTAI-test-access-key", "akSecret": "test-secret-0123456789"}
ATTRIBUTES = {"bucket": "training-data", "url": "http://127.0.0.1:18080", "path": "/"}
Mode = csi_pb2.VolumeCapability.AccessMode


@dataclass
class Services:
    """Stubs of everything served at `socket`; `server` for its statistics and readiness."""

    socket: Path
    channel: grpc.Channel
    server: Server

    def __post_init__(self) -> None:
        self.identity = csi_pb2_grpc.IdentityStub(self.channel)
        self.controller = csi_pb2_grpc.ControllerStub(self.channel)
        self.node = csi_pb2_grpc.NodeStub(self.channel)


@contextlib.contextmanager
def csi_services(
    directory: Path,
    mounts: VolumeMounts | None = None,
    *,
    stores: StoreFactory = open_store,
    grace: float = 10.0,
    supply: CredentialSupply | None = None,
    in_pods: bool = False,
    caches: CachePlaces | None = None,
) -> Iterator[Services]:
    """Serve all three services (Node where there are `mounts`) on a thread of their own until the block ends."""
    socket = directory / "csi.sock"
    credentials = supply or credential_supply()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, Server]] = Future()

    async def serve() -> None:
        node = (
            NodeService(mounts, node_id="node-1", cpu_count=4, supply=credentials, in_pods=in_pods, caches=caches)
            if mounts is not None
            else None
        )
        controller = ControllerService(stores, cpu_count=4)
        server = Server(f"unix://{socket}", Seconds(grace))
        ended = asyncio.Event()
        await server.start(node=node, controller=controller)
        server.readiness.ready = True
        started.set_result((asyncio.get_running_loop(), ended, server))
        await ended.wait()
        await server.stop()
        await controller.close()
        if node is not None:
            await node.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="csi-services")
    thread.start()
    loop, ended, server = started.result(30)
    try:
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            yield Services(socket, channel, server)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(60)
        assert not thread.is_alive()


def credential_supply(incidents: IncidentReporter | None = None, *, endpoint: str = "") -> CredentialSupply:
    """Credentials as a node plugin has them, with STS at `endpoint`."""
    return CredentialSupply(RoleExchange(CurlTransport()), incidents or LoggedIncidents(), endpoint=endpoint)


def capability(mode: str = "MULTI_NODE_MULTI_WRITER", **mount: Any) -> csi_pb2.VolumeCapability:
    """A filesystem capability of the access mode with this name."""
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(**mount), access_mode=Mode(mode=Mode.Mode.Value(mode))
    )


def publish_request(
    target: Path,
    *,
    volume_id: str = "pv-1",
    attributes: Mapping[str, str] = ATTRIBUTES,
    secrets: Mapping[str, str] = SECRETS,
    mode: str = "MULTI_NODE_MULTI_WRITER",
    readonly: bool = False,
    **mount: Any,
) -> csi_pb2.NodePublishVolumeRequest:
    """What kubelet sends for a static PersistentVolume."""
    return csi_pb2.NodePublishVolumeRequest(
        volume_id=volume_id,
        target_path=str(target),
        volume_capability=capability(mode, **mount),
        readonly=readonly,
        volume_context=attributes,
        secrets=secrets,
    )


def create_request(
    name: str, *, required: int = 0, limit: int = 0, mode: str = "SINGLE_NODE_WRITER", **parameters: str
) -> csi_pb2.CreateVolumeRequest:
    """What external-provisioner sends; a parameter's '__' stands for a '.', which Python names cannot hold."""
    capacity = csi_pb2.CapacityRange(required_bytes=required, limit_bytes=limit) if required or limit else None
    return csi_pb2.CreateVolumeRequest(
        name=name,
        capacity_range=capacity,
        volume_capabilities=[capability(mode)],
        parameters={**ATTRIBUTES, **{key.replace("__", "."): value for key, value in parameters.items()}},
        secrets=SECRETS,
    )


def unpublish_request(target: Path, *, volume_id: str = "pv-1") -> csi_pb2.NodeUnpublishVolumeRequest:
    return csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target))


@contextlib.contextmanager
def refused(code: grpc.StatusCode, *words: str) -> Iterator[list[str]]:
    """The block's call is answered with `code` and a message that holds all `words`; yields the message afterwards."""
    said: list[str] = []
    try:
        yield said
    except grpc.RpcError as error:
        said.append(error.details())
        assert error.code() is code, f"{error.code()}: {error.details()}"
        missing = [word for word in words if word not in error.details()]
        assert not missing, f"{missing} not in: {error.details()}"
        assert not [key for key, _ in error.trailing_metadata() if key == "grpc-status-details-bin"]
        return
    raise AssertionError(f"the call succeeded; {code} was expected")
