"""The Node service: validation, idempotency and words for what kubelet asks; the mounting itself is `csi/handover`'s.

It promises that a refused request has touched nothing, that a call which runs out of time leaves work that the retry
will find, and that no call ever touches a mount: what is known about one comes from mountinfo and from the sidecar.
It knows nothing of FUSE, sockets or cgroups.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio

from csi.driver.attributes import log_effective, parse_published
from csi.driver.calls.interceptors import patience
from csi.driver.calls.locks import KeyedLocks
from csi.driver.calls.redaction import secret_values
from csi.driver.calls.workers import Workers
from csi.driver.capabilities import parse_access
from csi.driver.credentials import CredentialSupply, Offer
from csi.driver.pods import digest_of_call, pod_reference, required_pod
from csi.errors import CredentialsMissing, InvalidOption, OssFuseError, VolumeInUse, VolumeNotFound
from csi.handover.cache_places import CachePlaces
from csi.handover.target import resolved_target
from csi.handover.types import PublishRequest, VolumeMounts
from csi.v1 import csi_pb2, csi_pb2_grpc
from csi.volume.spec import VolumeSpec
from csi.volume.units import Seconds

log = logging.getLogger(__name__)

_LONGEST_ID = 512
"""Bytes of a volume id. CSI says 128, but a static PersistentVolume's handle is the user's and works all the same."""
_LONGEST_NODE_ID = 256
_LONGEST_PATH = 4095

_Rpc = csi_pb2.NodeServiceCapability.RPC
_CAPABILITIES = (
    _Rpc.GET_VOLUME_STATS,
    _Rpc.VOLUME_CONDITION,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
    _Rpc.VOLUME_MOUNT_GROUP,
)

_Context = grpc.aio.ServicerContext[Any, Any]


class NodeService(csi_pb2_grpc.NodeServicer):
    """`node_id` is the node's name; `cpu_count` what the modes' thread counts multiply; `in_pods`: sidecars run in the
    pods, so that kubelet has to name the pod; `caches` says where volumes may have disk caches on this host, nowhere
    without it. `close` waits for its work."""

    def __init__(
        self,
        mounts: VolumeMounts,
        *,
        node_id: str,
        cpu_count: int,
        supply: CredentialSupply,
        in_pods: bool = False,
        caches: CachePlaces | None = None,
    ) -> None:
        if not 0 < len(node_id.encode()) <= _LONGEST_NODE_ID:
            raise InvalidOption("node-id", node_id, f"1 to {_LONGEST_NODE_ID} bytes", hint="pass the node's name")
        self._mounts = mounts
        self._node_id = node_id
        self._cpu_count = cpu_count
        self._supply = supply
        self._in_pods = in_pods
        self._caches = caches if caches is not None else CachePlaces((), in_pods=in_pods)
        # three pools, so that a node full of slow mounts can still unmount and still say how its volumes are
        targets = KeyedLocks()
        self._publishing = Workers("publish", 16, targets)
        self._unpublishing = Workers("unpublish", 16, targets)
        self._asking = Workers("ask", 4, KeyedLocks())
        self._shown: dict[Path, VolumeSpec] = {}  # whose options are in the log: republishing says nothing new

    async def close(self) -> None:
        for workers in (self._publishing, self._unpublishing, self._asking):
            await workers.close()
        self._supply.close()

    async def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: _Context
    ) -> csi_pb2.NodePublishVolumeResponse:
        volume_id = _volume_id(request.volume_id)
        target = _path("target_path", request.target_path)
        capability = request.volume_capability if request.HasField("volume_capability") else None
        access = parse_access(capability, readonly=request.readonly)
        attributes = dict(request.volume_context)
        given = digest_of_call(volume_id, attributes, access)
        try:
            parsed = parse_published(attributes, access, cpu_count=self._cpu_count)
        except OssFuseError as refused:
            if await self._is_published(volume_id, target, given):
                log.warning("volume %s at %s goes on as an earlier version took it: %s", volume_id, target, refused)
                return csi_pb2.NodePublishVolumeResponse()
            raise
        pod = pod_reference(attributes)
        order = PublishRequest(
            volume_id=volume_id,
            target=target,
            spec=parsed.spec,
            read_only=access.read_only or parsed.spec.arguments.read_only,
            mount_group=access.mount_group,
            credentials=None,
            pod=required_pod(pod) if self._in_pods else pod,
            given=given,
        )
        offer = Offer(dict(request.secrets), attributes, secret_values(request))
        if self._shown.get(target) != parsed.spec:
            log_effective(log, volume_id, target, parsed)
            self._shown[target] = parsed.spec
        deadline = patience()

        def publish() -> None:
            if access.one_target:
                self._refuse_second_target(volume_id, target, access.mode)
            self._publish(order, offer, deadline)

        await self._publishing.run(
            publish,
            # per target, not per volume: two pods may start with one volume at the same moment
            keys=(("target", target), ("volume", volume_id)) if access.one_target else (("target", target),),
            what=f"publishing {volume_id} at {target}",
            patience=deadline,
        )
        return csi_pb2.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: _Context
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        volume_id = _volume_id(request.volume_id)
        target = _path("target_path", request.target_path)
        await self._unpublishing.run(
            lambda: self._mounts.unpublish(volume_id, target),
            keys=(("target", target),),
            what=f"unpublishing {volume_id} from {target}",
            patience=patience(),
        )
        self._shown.pop(target, None)
        self._supply.forget(target)
        return csi_pb2.NodeUnpublishVolumeResponse()

    async def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest, context: _Context
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        volume_id = _volume_id(request.volume_id)
        if not request.volume_path:
            raise InvalidOption("volume_path", "", "the path the volume is published at")
        path = Path(os.path.normpath(request.volume_path))
        found = None
        if path.is_absolute():  # nothing is ever published at a relative path
            found = await self._asking.run(
                lambda: self._mounts.condition(volume_id, path),
                what=f"asking for the condition of {volume_id}",
                patience=patience(),
            )
        if found is None:
            raise VolumeNotFound(
                f"volume {volume_id!r} is not published at {request.volume_path!r} on node {self._node_id}"
            )
        return csi_pb2.NodeGetVolumeStatsResponse(
            # OSS has no capacity and counting what is used would mean listing it all: known to be unknown
            usage=[csi_pb2.VolumeUsage(unit=csi_pb2.VolumeUsage.BYTES, total=0, used=0, available=0)],
            volume_condition=csi_pb2.VolumeCondition(abnormal=found.abnormal, message=found.message),
        )

    async def NodeGetCapabilities(
        self, request: csi_pb2.NodeGetCapabilitiesRequest, context: _Context
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[csi_pb2.NodeServiceCapability(rpc=_Rpc(type=kind)) for kind in _CAPABILITIES]
        )

    async def NodeGetInfo(self, request: csi_pb2.NodeGetInfoRequest, context: _Context) -> csi_pb2.NodeGetInfoResponse:
        # no topology: a bucket is reachable from every node; no limit: the scheduler counts the sidecars' memory
        return csi_pb2.NodeGetInfoResponse(node_id=self._node_id)

    def _publish(self, order: PublishRequest, offer: Offer, deadline: Seconds) -> None:
        """A volume that is published already keeps its credentials when there are no better ones, and its peace."""
        ends = time.monotonic() + deadline
        trouble: OssFuseError | None = None
        credentials: Mapping[str, str] | None
        if self._mounts.condition(order.volume_id, order.target) is None:
            self._caches.prepare(order.spec.cache)
            credentials = self._supply.obtain(order, offer, deadline)
        else:
            credentials, trouble = self._supply.renew(order, offer, deadline)
        remaining = Seconds(max(0.1, ends - time.monotonic()))
        try:
            self._mounts.publish(replace(order, credentials=credentials), remaining)
        except CredentialsMissing:
            if trouble is not None:  # it had to be mounted anew and there was nothing to mount it with
                raise trouble from None
            raise

    async def _is_published(self, volume_id: str, target: Path, given: str) -> bool:
        """Whether the call repeats one that succeeded, perhaps with a version that knew other options. A failure could
        make kubelet remove the mount under the pod."""
        if not self._in_pods:
            return False
        found: str | None = await self._asking.run(
            lambda: self._mounts.given(volume_id, target),
            what=f"asking what {volume_id} was published with",
            patience=patience(),
        )
        return found == given

    def _refuse_second_target(self, volume_id: str, target: Path, mode: str) -> None:
        here = Path(resolved_target(target))
        others = [found.target for found in self._mounts.published() if found.volume_id == volume_id]
        other = next((path for path in others if path != here), None)
        if other is not None:
            raise VolumeInUse(
                f"volume {volume_id!r} is already published at {str(other)!r} and its access mode {mode} allows one "
                f"target path, not also {str(target)!r}",
                hint="wait until the other pod is gone, or use ReadWriteMany",
            )


def _volume_id(text: str) -> str:
    if not text:
        raise InvalidOption("volume_id", "", "the volume's handle")
    if len(text.encode()) > _LONGEST_ID or not text.isprintable():
        raise InvalidOption("volume_id", text, f"at most {_LONGEST_ID} bytes of printable text")
    return text


def _path(key: str, text: str) -> Path:
    if not text:
        raise InvalidOption(key, "", "an absolute path")
    if not text.startswith("/") or "\0" in text or ".." in text.split("/"):
        raise InvalidOption(key, text, "an absolute path without '..'")
    if len(text.encode()) > _LONGEST_PATH:
        raise InvalidOption(key, text, f"a path of at most {_LONGEST_PATH} bytes")
    path = Path(os.path.normpath(text))
    if path == Path("/"):
        raise InvalidOption(key, text, "a path below the root directory")
    return path
