"""The Identity service: who we are and whether we are fit to be asked. It touches nothing outside this process.

The livenessprobe container kills the pod when Probe fails, so Probe looks at two flags in memory and at nothing else:
no mount, no API server, no bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

import grpc.aio
from google.protobuf.wrappers_pb2 import BoolValue

from csi.errors import PluginNotHealthy
from csi.v1 import csi_pb2, csi_pb2_grpc
from csi.volume.naming import DRIVER_NAME

_Service = csi_pb2.PluginCapability.Service


@dataclass(slots=True)
class Readiness:
    """Set by whoever starts the services. `broken` says why a restart is needed, '' while all is well."""

    ready: bool = False
    broken: str = ""


def version() -> str:
    """The installed package's version."""
    return metadata.version("ossfuse-csi")


class IdentityService(csi_pb2_grpc.IdentityServicer):
    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._version = version()

    async def GetPluginInfo(
        self, request: csi_pb2.GetPluginInfoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> csi_pb2.GetPluginInfoResponse:
        return csi_pb2.GetPluginInfoResponse(name=DRIVER_NAME, vendor_version=self._version)

    async def GetPluginCapabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        controller = csi_pb2.PluginCapability(service=_Service(type=_Service.CONTROLLER_SERVICE))
        return csi_pb2.GetPluginCapabilitiesResponse(capabilities=[controller])

    async def Probe(
        self, request: csi_pb2.ProbeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> csi_pb2.ProbeResponse:
        if self._readiness.broken:
            raise PluginNotHealthy(self._readiness.broken)
        return csi_pb2.ProbeResponse(ready=BoolValue(value=self._readiness.ready))
