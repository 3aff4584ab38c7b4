"""The Controller service: a volume made from a StorageClass is a prefix of a bucket and a record of it.

Creating is idempotent by the volume's name, across restarts and between replicas, because the id is computed and the
record lies in the bucket (`records`). Deleting takes back what creating made, and the data only where the record proves
that it is this volume's alone and the class asked for it. Everything a volume needs to be mounted later is in its
attributes; there is nothing to attach.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import grpc.aio

from csi.driver.attributes import check_secrets, refuse_contradiction, without_kubernetes_context
from csi.driver.calls.interceptors import patience
from csi.driver.calls.locks import KeyedLocks
from csi.driver.calls.workers import Workers
from csi.driver.capabilities import parse_access
from csi.driver.provisioning.creation import first_difference, parse_wanted, refuse_difference
from csi.driver.provisioning.records import VolumeRecord, VolumeRecords
from csi.driver.provisioning.volume_id import VolumeId, parse_volume_id
from csi.driver.stores import StoreFactory
from csi.errors import BucketNotFound, InvalidOption, UnsupportedVolume, VolumeNotFound
from csi.v1 import csi_pb2, csi_pb2_grpc
from csi.volume.parse import parse_volume
from csi.volume.spec import CredentialOptions, HttpOptions, VolumeSpec
from csi.volume.uri import locate

log = logging.getLogger(__name__)

_PROVISIONER_SECRET = (
    "name one in csi.storage.k8s.io/provisioner-secret-name and -namespace of the StorageClass: "  # noqa: S105 - words
    "the controller writes a record of the volume into the bucket"
)

_Rpc = csi_pb2.ControllerServiceCapability.RPC
_CAPABILITIES = (_Rpc.CREATE_DELETE_VOLUME, _Rpc.SINGLE_NODE_MULTI_WRITER)

_Context = grpc.aio.ServicerContext[Any, Any]
Result = TypeVar("Result")


class ControllerService(csi_pb2_grpc.ControllerServicer):
    """`stores` opens buckets; `cpu_count` only lets attributes be parsed as on a node. `close` waits for its work."""

    def __init__(self, stores: StoreFactory, *, cpu_count: int) -> None:
        self._stores = stores
        self._cpu_count = cpu_count
        self._workers = Workers("control", 32, KeyedLocks())

    async def close(self) -> None:
        await self._workers.close()

    async def CreateVolume(
        self, request: csi_pb2.CreateVolumeRequest, context: _Context
    ) -> csi_pb2.CreateVolumeResponse:
        wanted = parse_wanted(request, cpu_count=self._cpu_count)
        spec, secrets = wanted.spec, _provisioner_secrets(request.secrets)

        def create() -> VolumeRecord:
            with self._records(spec, secrets) as records:
                return records.find(wanted.id.digest) or records.create(wanted.id.digest, wanted.record)

        record = await self._work(create, wanted.id, f"creating volume {wanted.record.name}")
        refuse_difference(wanted, record)
        return csi_pb2.CreateVolumeResponse(
            volume=csi_pb2.Volume(
                volume_id=record.volume_id, capacity_bytes=record.capacity, volume_context=record.attributes
            )
        )

    async def DeleteVolume(
        self, request: csi_pb2.DeleteVolumeRequest, context: _Context
    ) -> csi_pb2.DeleteVolumeResponse:
        if not request.volume_id:
            raise InvalidOption("volume_id", "", "the volume's handle")
        found = parse_volume_id(request.volume_id)
        if found is None:
            log.info("volume %r was not created by this driver; nothing to delete", request.volume_id)
            return csi_pb2.DeleteVolumeResponse()
        spec = _spec_of(found)
        secrets = _provisioner_secrets(request.secrets)
        ends = time.monotonic() + patience()

        def delete() -> None:
            with self._records(spec, secrets) as records:
                record = records.find(found.digest)
                if record is None:
                    return
                deleted = records.delete(found.digest, record, time_left=lambda: ends - time.monotonic())
                kept = "deleted" if deleted else "kept"
                log.info("volume %s: record deleted, data below %r %s", record.name, record.prefix, kept)

        with contextlib.suppress(BucketNotFound):  # with the bucket the volume is gone
            await self._work(delete, found, f"deleting volume {request.volume_id}")
        return csi_pb2.DeleteVolumeResponse()

    async def ValidateVolumeCapabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest, context: _Context
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        if not request.volume_id:
            raise InvalidOption("volume_id", "", "the volume's handle")
        if not request.volume_capabilities:
            raise InvalidOption("volume_capabilities", "", "at least one capability")
        attributes = await self._attributes_of(request)
        try:
            self._refuse_unusable(attributes, request)
        except (UnsupportedVolume, InvalidOption) as reason:
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message=str(reason))
        return csi_pb2.ValidateVolumeCapabilitiesResponse(
            confirmed=csi_pb2.ValidateVolumeCapabilitiesResponse.Confirmed(
                volume_context=request.volume_context,
                volume_capabilities=request.volume_capabilities,
                parameters=request.parameters,
            )
        )

    async def ControllerGetCapabilities(
        self, request: csi_pb2.ControllerGetCapabilitiesRequest, context: _Context
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        return csi_pb2.ControllerGetCapabilitiesResponse(
            capabilities=[csi_pb2.ControllerServiceCapability(rpc=_Rpc(type=kind)) for kind in _CAPABILITIES]
        )

    async def _attributes_of(self, request: csi_pb2.ValidateVolumeCapabilitiesRequest) -> Mapping[str, str]:
        """What the volume is; raises VolumeNotFound when there is no such volume."""
        context = without_kubernetes_context(dict(request.volume_context))
        found = parse_volume_id(request.volume_id)
        if found is None:
            if not context:
                raise VolumeNotFound(f"volume {request.volume_id!r} was not created by this driver")
            return context  # a PersistentVolume written by hand is what its attributes say
        spec = _spec_of(found)
        secrets = _provisioner_secrets(request.secrets)

        def look() -> VolumeRecord | None:
            with self._records(spec, secrets) as records:
                return records.find(found.digest)

        record = None
        with contextlib.suppress(BucketNotFound):
            record = await self._workers.run(look, what=f"looking for volume {request.volume_id}", patience=patience())
        if record is None:
            raise VolumeNotFound(f"volume {request.volume_id!r} does not exist", hint="it was deleted")
        return record.attributes

    def _refuse_unusable(
        self, attributes: Mapping[str, str], request: csi_pb2.ValidateVolumeCapabilitiesRequest
    ) -> None:
        context = without_kubernetes_context(dict(request.volume_context))
        if context and context != dict(attributes):
            key = first_difference(context, attributes)
            raise InvalidOption(
                f"volume_context.{key}", context.get(key, ""), f"{attributes.get(key, 'no such key')!r}"
            )
        if request.mutable_parameters:
            raise UnsupportedVolume("mutable_parameters: volumes cannot be modified")
        parsed = parse_volume(attributes, cpu_count=self._cpu_count)
        for capability in request.volume_capabilities:
            refuse_contradiction(parsed, parse_access(capability, readonly=False))

    @contextlib.contextmanager
    def _records(self, spec: VolumeSpec, secrets: Mapping[str, str]) -> Iterator[VolumeRecords]:
        # whatever the volume's pods will use: records are written with the provisioner's own Secret
        store = self._stores(replace(spec, credentials=CredentialOptions()), secrets)
        try:
            yield VolumeRecords(store)
        finally:
            store.close()

    async def _work(self, work: Callable[[], Result], volume: VolumeId, what: str) -> Result:
        return await self._workers.run(work, keys=(("volume", volume.digest),), what=what, patience=patience())


def _provisioner_secrets(secrets: Mapping[str, str]) -> dict[str, str]:
    return check_secrets(CredentialOptions(), secrets, reference=_PROVISIONER_SECRET)


def _spec_of(volume: VolumeId) -> VolumeSpec:
    """All that is needed to read the record of a volume."""
    location = locate(
        bucket=volume.bucket, endpoint=volume.endpoint, region=volume.region, path_style=volume.path_style
    )
    return VolumeSpec(location, http=HttpOptions(signature_version=volume.signer))
