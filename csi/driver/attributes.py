"""From what kubelet and the provisioner send to what a volume is: attributes, secrets, access mode, checked together.

`csi/volume` parses attributes and knows nothing of CSI; here its result meets the request around it. Whatever
contradicts (a read-only argument on a writing access mode, a Secret with one half) is refused before anything is
touched, and the effective options are logged, which is how a user finds out what a mode really meant.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from csi.driver.calls.redaction import redact_value
from csi.driver.capabilities import Access
from csi.errors import CredentialsMissing, InvalidOption
from csi.oss.credentials import credentials_from_secret
from csi.volume.parse import ParsedVolume, parse_volume
from csi.volume.spec import AuthType, CredentialOptions, Mode

KUBERNETES_CONTEXT = "csi.storage.k8s.io/"
"""Prefix of the keys that kubelet and the provisioner add to attributes and parameters: never options."""


def without_kubernetes_context(attributes: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in attributes.items() if not key.startswith(KUBERNETES_CONTEXT)}


def parse_published(attributes: Mapping[str, str], access: Access, *, cpu_count: int) -> ParsedVolume:
    """The volume as it shall be mounted for `access`; raises InvalidOption, UnsupportedVolume."""
    parsed = parse_volume(
        without_kubernetes_context(attributes),
        cpu_count=cpu_count,
        read_only=access.read_only,
        mount_group=access.mount_group,
        mount_flags=access.mount_flags,
    )
    refuse_contradiction(parsed, access)
    return parsed


def refuse_contradiction(parsed: ParsedVolume, access: Access) -> None:
    """A read-only argument on a writing access mode is refused. `mode: readonly` is not: that nothing is written is
    what the mode promises, whatever the claim was bound with."""
    origin = parsed.read_only_origin
    if access.read_only or not origin or parsed.spec.mode is Mode.READONLY:
        return
    raise InvalidOption(
        origin,
        "-oro",
        f"arguments that allow writing, because the access mode is {access.mode}",
        hint="use accessModes: [ReadOnlyMany] or readOnly: true, or mode: readonly, or remove -oro",
    )


def check_secrets(
    options: CredentialOptions,
    secrets: Mapping[str, str],
    *,
    reference: str = "name one in nodePublishSecretRef of the PersistentVolume",
) -> dict[str, str]:
    """The Secret's pairs that credentials are made of, empty where the volume takes them from elsewhere.

    Raises CredentialsMissing that names the missing half and never a value; `reference` says where Secrets are named.
    """
    if options.auth_type not in {AuthType.SECRET, AuthType.ENVIRONMENT}:
        return {}
    if not secrets:
        # a sidecar's environment is empty by design: what it would hold is handed over like a Secret
        raise CredentialsMissing(
            f"secrets: the volume needs a Secret (authType: {options.auth_type.value}) and none was given",
            hint=f"{reference}, or set authType: public for a public bucket",
        )
    credentials_from_secret(secrets)
    return dict(secrets)


def log_effective(log: logging.Logger, volume_id: str, target: Path, parsed: ParsedVolume) -> None:
    """One line with the options in force and where each came from, one line for each warning."""
    if not log.isEnabledFor(logging.INFO):
        return
    settings = ", ".join(
        f"{setting.key}={redact_value(setting.key, str(setting.value))} ({setting.origin})"
        for setting in parsed.settings
    )
    log.info("volume %s at %s: %s", volume_id, target, settings)
    for setting in parsed.settings:
        if setting.note:
            log.info("volume %s: %s: %s", volume_id, setting.key, setting.note)
    for warning in parsed.warnings:
        log.warning("volume %s: %s", volume_id, warning)
