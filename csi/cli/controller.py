"""`ossfuse controller`: the CSI controller service of a cluster, and its admission webhook."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from csi.cli.options import CACHE_HOST_PATH, ENDPOINT, logging_options, start_logging
from csi.driver.server import ControllerConfig, serve_controller
from csi.errors import InvalidOption
from csi.volume.units import Seconds

if TYPE_CHECKING:
    from csi.cluster.webhook.server import WebhookServer

_LINGER = Seconds(5.0)
"""How long the webhook answers after SIGTERM: until the API server has heard that its endpoint is gone."""


@click.command()
@ENDPOINT
@click.option(
    "--webhook-port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="0, no webhook",
    help="Port of the admission webhook that adds sidecars to pods.",
)
@click.option(
    "--sidecar-image",
    default="",
    metavar="IMAGE",
    help="Image of the sidecars; a volume may name another tag of it. Needed with --webhook-port.",
)
@click.option(
    "--sidecar-pull-policy",
    type=click.Choice(["Always", "IfNotPresent", "Never"]),
    default="IfNotPresent",
    show_default=True,
    help="When kubelet pulls the sidecars' image.",
)
@click.option(
    "--webhook-service",
    default="ossfuse-csi-webhook",
    show_default=True,
    help="Service through which the API server reaches the webhook: the name its certificate is for.",
)
@click.option(
    "--webhook-configuration",
    default="ossfuse-csi",
    show_default=True,
    help="MutatingWebhookConfiguration that is told the certificate's CA.",
)
@click.option(
    "--webhook-certificates",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory with tls.crt and tls.key, such as cert-manager's Secret, in place of a certificate made here.",
)
@click.option(
    "--namespace",
    envvar="POD_NAMESPACE",
    show_envvar=True,
    default="ossfuse-csi",
    show_default=True,
    help="Namespace of this controller.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False),
    help="How to reach the API server from outside the cluster; in a pod its service account is used.",
)
@CACHE_HOST_PATH
@logging_options("json", "info")
def command(
    endpoint: str,
    webhook_port: int,
    sidecar_image: str,
    sidecar_pull_policy: str,
    webhook_service: str,
    webhook_configuration: str,
    webhook_certificates: Path | None,
    namespace: str,
    kubeconfig: str | None,
    cache_host_path: tuple[str, ...],
    log_format: str,
    log_level: str,
) -> None:
    """Serve the CSI Identity and Controller services until SIGTERM or SIGINT, and the webhook beside them."""
    start_logging(log_format, log_level)
    config = ControllerConfig(endpoint, cpu_count=os.cpu_count() or 1)
    if not webhook_port:
        serve_controller(config)
        return
    if not sidecar_image:
        raise InvalidOption("--sidecar-image", "", "the image of the sidecars, because --webhook-port is given")
    webhook = _webhook(
        webhook_port,
        sidecars=(sidecar_image, sidecar_pull_policy, cache_host_path),
        names=(namespace, webhook_service, webhook_configuration),
        certificates=webhook_certificates,
        kubeconfig=kubeconfig,
    )
    serve_controller(config, beside=webhook.running)


def _webhook(
    port: int,
    *,
    sidecars: tuple[str, str, tuple[str, ...]],
    names: tuple[str, str, str],
    certificates: Path | None,
    kubeconfig: str | None,
) -> WebhookServer:
    # a second of imports that a controller without webhook does not need
    from csi.cluster.api import KubernetesApi  # noqa: PLC0415
    from csi.cluster.webhook.certificates import (  # noqa: PLC0415
        DirectoryCertificates,
        SelfMadeCertificates,
        WebhookNames,
    )
    from csi.cluster.webhook.review import PodReviewer  # noqa: PLC0415
    from csi.cluster.webhook.server import ServerConfig, WebhookServer, utc_now  # noqa: PLC0415
    from csi.cluster.webhook.sidecar import SidecarSettings  # noqa: PLC0415
    from csi.cluster.webhook.volumes import VolumeResolver  # noqa: PLC0415

    api = KubernetesApi.from_kubeconfig(kubeconfig) if kubeconfig else KubernetesApi.in_cluster()
    webhook = WebhookNames(*names)
    return WebhookServer(
        PodReviewer(VolumeResolver(api), SidecarSettings(*sidecars)),
        DirectoryCertificates(certificates, webhook, utc_now)
        if certificates
        else SelfMadeCertificates(api, webhook, utc_now),
        ServerConfig(port, linger=_LINGER),
        utc_now,
    )
