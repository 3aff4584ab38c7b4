"""docs/troubleshooting.md has a heading for every message and a message for every heading: the real ones, made here."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest

from csi.cluster.incident_words import OUT_OF_MEMORY, Termination, told
from csi.cluster.pods import PodSidecars
from csi.cluster.webhook.injection import inject, wants_sidecars
from csi.cluster.webhook.resources import ContainerResources
from csi.cluster.webhook.sidecar import SidecarSettings, sidecar_container
from csi.cluster.webhook.volumes import OurVolume
from csi.driver.credentials import Offer
from csi.driver.starting import StartingMounts
from csi.driver.stores import check_volume
from csi.errors import OssFuseError, StoreError
from csi.fuse.errno_map import ERRNO_BY_CLASS
from csi.handover.cache_places import CachePlaces
from csi.handover.credentials_files import CredentialFiles
from csi.handover.kernel import LinuxKernel
from csi.handover.mountinfo import MountEntry
from csi.handover.occupancy import conflict
from csi.handover.pods.incidents import Incidents
from csi.handover.pods.shared_directory import SharedDirectory
from csi.handover.types import Incident, IncidentKind, PublishRequest, SidecarPlace
from csi.handover.wire import Failed, Health
from csi.v1 import csi_pb2
from csi.volume.naming import CACHE_FOLDER
from csi.volume.parse import parse_volume
from csi.volume.spec import CacheOptions
from csi.volume.units import MIB, Bytes, Seconds
from tests.support.cluster_pods import POD, POD_PATH, claimed, pod_object, put_claim
from tests.support.csi_services import (
    SECRETS,
    create_request,
    credential_supply,
    csi_services,
    publish_request,
)
from tests.support.emulator import RunningEmulator
from tests.support.recording_mounts import Gate, RecordingMounts
from tests.support.service_accounts import PROVIDER, ROLE, TokenIssuer, pod_context
from tests.support.stand_in_cluster import StandInCluster, api_of, stand_in_cluster

DOCUMENT = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
_PUBLISHING = (
    "The pod is refused",
    "The volume is not mounted: credentials",
    "The volume is not mounted: roles of service accounts (RRSA)",
    "The volume is not mounted: bucket and endpoint",
    "The volume is not mounted: options",
    "The volume is not mounted: the pod has no sidecar",
    "The volume is not mounted: the node",
    "The pod does not start although the volume is mounted",
    "The claim stays Pending",
)
_EVENTS = "Events of this driver on a running pod"
_PROGRAMS = "What programs see"
_NOT_OURS = frozenset(
    {
        "waiting for a volume to be created",
        'failed calling webhook "inject.ossfuse.csi.dev"',
        'violates PodSecurity "<level>": restricted volume types (volume "ossdisk-<volume>" uses restricted volume '
        'type "hostPath")',
    }
)
"""Kubernetes says them."""


@dataclass(frozen=True)
class Entry:
    """One heading with the words below it."""

    section: str
    heading: str
    text: str


def entries() -> list[Entry]:
    found, section = [], ""
    for block in re.split(r"^(?=##)", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE):
        title, _, text = block.partition("\n")
        if title.startswith("## "):
            section = title.removeprefix("## ")
        elif title.startswith("### "):
            found.append(Entry(section, title.removeprefix("### ").strip("`"), text.strip()))
    return found


ENTRIES = entries()
HEADINGS = [entry.heading for entry in ENTRIES if entry.section in _PUBLISHING and entry.heading not in _NOT_OURS]


def fits(heading: str, message: str) -> bool:
    """Whether `message` holds the words of `heading`, anything standing for what is in angle brackets."""
    pattern = ".+".join(re.escape(words) for words in re.split(r"<[^>]+>", heading))
    return re.search(pattern, message, re.DOTALL) is not None


# --- how each message comes about ---


@dataclass
class Scene:
    """What messages are made with."""

    emulator: RunningEmulator
    issuer: TokenIssuer
    cluster: StandInCluster
    home: Path

    @property
    def attributes(self) -> dict[str, str]:
        return {"bucket": self.emulator.bucket, "url": self.emulator.endpoint}

    def publish(
        self,
        secrets: Mapping[str, str] | None = None,
        *,
        context: Mapping[str, str] = MappingProxyType({}),
        patience: float = 5.0,
        capability: Any = None,
        **attributes: str,
    ) -> str:
        """The words of a publish that must fail, through the CSI services, preflight and all."""
        good = {"akId": self.emulator.access_key_id, "akSecret": self.emulator.access_key_secret}
        request = publish_request(
            self.home / "target",
            attributes={**self.attributes, **(context or pod_context()), **attributes},
            secrets=good if secrets is None else secrets,
        )
        if capability is not None:
            request.volume_capability.CopyFrom(capability)
        supply = credential_supply(endpoint=self.emulator.sts_endpoint)
        with csi_services(self.home, Preflighting(patience), supply=supply, in_pods=True) as services:
            return words_of(lambda: services.node.NodePublishVolume(request, timeout=60))

    def role(self, context: Mapping[str, str] | None = None, **attributes: str) -> str:
        arns = {"authType": "rrsa", "roleArn": ROLE, "oidcProviderArn": PROVIDER}
        context = pod_context(token=self.issuer.token()) if context is None else context
        return self.publish({}, context=context, **{**arns, **attributes})

    def sts(self, **fault: Any) -> str:
        self.emulator.fault(operation="AssumeRoleWithOIDC", **fault)
        return self.role()

    def refused(self, code: str) -> str:
        self.emulator.fault(operation="*", status=403, code=code)
        return self.publish()

    def token(self, *, expired: bool = False, other: bool = False) -> str:
        token = self.emulator.issue_token()
        security = self.emulator.issue_token().security_token if other else token.security_token
        if expired:
            self.emulator.expire_tokens()
        return self.publish(
            {
                "AccessKeyId": token.access_key_id,
                "AccessKeySecret": token.access_key_secret,
                "SecurityToken": security,
            }
        )

    def locate(self, pod: dict[str, Any] | None, *, namespace: str = "team", ephemeral: bool = True) -> str:
        """The words of the search for a sidecar in `pod`."""
        if pod is not None:
            self.cluster.put(POD_PATH.replace("/team/", f"/{namespace}/"), pod)
        sidecars = PodSidecars(api_of(self.cluster, self.home, timeout=0.5), self.home, excluded=["kube-system"])
        reference = replace(POD, namespace=namespace, ephemeral=ephemeral)
        target = self.home / "kubernetes.io~csi" / "data" / "mount"
        return words_of(lambda: sidecars.locate(reference, "pv-1", target))

    def altered(self, **changes: Any) -> str:
        pod = pod_object([INLINE], injected=("data",))
        pod["spec"]["initContainers"][0].update(changes)
        return self.locate(pod)


class Preflighting(RecordingMounts):
    """Asks the bucket before it pretends to mount, as the real ones do."""

    def __init__(self, patience: float = 5.0) -> None:
        super().__init__()
        self._patience = patience

    def publish(self, request: PublishRequest, deadline: Seconds) -> None:
        check_volume(request, Seconds(min(self._patience, deadline)))
        super().publish(request, deadline)


INLINE = {"name": "data", "csi": {}}
OURS = {"name": "data", "csi": {"driver": "ossfuse.csi.dev"}}


def words_of(act: Callable[[], object]) -> str:
    """What `act`, which must fail, says."""
    try:
        act()
    except grpc.RpcError as error:
        return str(error.details())
    except OssFuseError as error:
        return str(error)
    raise AssertionError("it did not fail")


def annotated(**annotations: str) -> dict[str, Any]:
    return pod_object([INLINE], injected=(), annotations=annotations)


def block_capability() -> csi_pb2.VolumeCapability:
    found = publish_request(Path("/t")).volume_capability
    found.block.SetInParent()
    return found


def without_tmpfs(scene: Scene) -> str:
    pod = pod_object([INLINE], injected=("data",))
    del pod["spec"]["volumes"][-1]
    return scene.locate(pod)


def bound_elsewhere(scene: Scene) -> str:
    put_claim(scene.cluster, "corpus", "pv-other")
    return scene.locate(pod_object([claimed("data", "corpus")], injected=("data",)), ephemeral=False)


def silent_api_server(scene: Scene) -> str:
    scene.cluster.silent.set()
    return scene.locate(None)


def forbidden(scene: Scene) -> str:
    scene.cluster.order("GET", POD_PATH, 403, reason="Forbidden", message="no")
    return scene.locate(None)


def no_permission(scene: Scene) -> str:
    scene.emulator.admin("PUT", "/roles", {"arn": f"{ROLE}-of-others", "subjects": ["system:serviceaccount:x:y"]})
    return scene.role(roleArn=f"{ROLE}-of-others")


def under_way(scene: Scene) -> str:
    gate = Gate("publish")
    with csi_services(scene.home, RecordingMounts(before=gate)) as services:
        request = publish_request(scene.home / "target")
        first = services.node.NodePublishVolume.future(request, timeout=60)
        gate.wait_for(1)
        try:
            return words_of(lambda: services.node.NodePublishVolume(request, timeout=60))
        finally:
            gate.open()
            first.result()


def second_target(scene: Scene) -> str:
    with csi_services(scene.home, RecordingMounts()) as services:
        one, other = (publish_request(scene.home / name, mode="SINGLE_NODE_SINGLE_WRITER") for name in ("one", "other"))
        services.node.NodePublishVolume(one, timeout=60)
        return words_of(lambda: services.node.NodePublishVolume(other, timeout=60))


def other_options(_: Scene) -> str:
    entry = MountEntry(1, 0, 0, 9, "/", "/t", ("rw",), (), "fuse.ossfuse", "ossfuse:pv-1#0123", ())
    return str(conflict("/t", entry, "pv-1"))


def full_tmpfs(scene: Scene) -> str:
    kernel, place = LinuxKernel(), scene.home / "tmpfs"
    place.mkdir()
    kernel.mount("tmpfs", str(place), "tmpfs", 0, "size=4096,nr_inodes=6")
    try:
        (place / "filler").write_bytes(b"x" * 4096)
        files = CredentialFiles(place / "credentials", 65534, 65534)
        return words_of(lambda: files.write(SECRETS))
    finally:
        kernel.umount2(str(place), 0)


def no_tmpfs(scene: Scene) -> str:
    place = SidecarPlace("ossfuse-data", scene.home / "nowhere", Bytes(512 * MIB), Seconds(30.0))
    return words_of(lambda: SharedDirectory(place, LinuxKernel(), lambda: []).wait(Seconds(0.0)))


def no_provisioner_secret(scene: Scene) -> str:
    request = create_request("pvc-1")
    request.secrets.clear()
    with csi_services(scene.home) as services:
        return words_of(lambda: services.controller.CreateVolume(request, timeout=60))


def closed_gate(_: Scene) -> str:
    """What the postStart script of a sidecar says at the end of its patience, which is cut short here."""
    container = sidecar_container("ossfuse-data", RESOURCES, SidecarSettings("image:1"))
    script = container["lifecycle"]["postStart"]["exec"]["command"][2]
    hurried = re.sub(r"-gt \d+", "-gt 0", script).replace("/run/ossfuse", "/nowhere")
    return subprocess.run(["sh", "-c", hurried], capture_output=True, text=True, timeout=20, check=False).stderr


def cache_place(scene: Scene, change: Callable[[Path], object]) -> str:
    """What is said of a host path below the allowed one after somebody was there."""
    place = scene.home / "a"
    change(place)
    return words_of(lambda: CachePlaces((str(scene.home),), in_pods=True).prepare(CacheOptions(str(place))))


IN_EMPTY_DIR = MappingProxyType({"cache": "emptyDir"})


def admission(
    change: Callable[[dict[str, Any]], object],
    attributes: Mapping[str, str] = MappingProxyType({}),
    **annotations: str,
) -> str:
    """What the webhook says to a pod with one volume of ours that was changed."""
    pod = pod_object([OURS], injected=(), annotations=annotations)
    change(pod["spec"])
    ours = OurVolume(
        "data", "volume/data", "the pod's own volume", {"bucket": "data", "url": "http://h:1", **attributes}
    )
    return words_of(lambda: (wants_sidecars(pod), inject(pod, [ours], SidecarSettings("image:1"))))


def unknown_pretender(_: Scene) -> str:
    pod = pod_object([OURS], injected=(), annotations={"ossfuse.csi.dev/inject": "false"})
    pod["spec"]["containers"].append({"name": "ossfuse-data"})
    return words_of(lambda: wants_sidecars(pod))


RESOURCES = ContainerResources(Bytes(512 * MIB), Bytes(512 * MIB), 100)
NOT_ACCEPTED = "<option>: '<value>' is not accepted, expected <what>"
HAS_NONE = "has no sidecar for volume '<volume>'"
SIDECAR = "sidecar <name> of pod <pod>"

CASES: dict[str, Callable[[Scene], str]] = {
    # the pod
    "the pod's annotation ossfuse.csi.dev/<name>: '<value>' is not known": lambda _: admission(
        lambda _: None, **{"ossfuse.csi.dev/memroy-limit": "1Gi"}
    ),
    "ossfuse.csi.dev/memory-limit: '<value>' is not accepted, expected <what>": lambda _: admission(
        lambda _: None, **{"ossfuse.csi.dev/memory-limit": "1Mi"}
    ),
    "container '<name>' has the name of a sidecar": lambda _: admission(
        lambda spec: spec["containers"].append({"name": "ossfuse-data"})
    ),
    "container '<name>' has the name of the sidecar of volume '<volume>', which the webhook alone adds and does not "
    "add here": unknown_pretender,
    "volume '<name>' has the name of a sidecar's directory": lambda _: admission(
        lambda spec: spec["volumes"].append({"name": "ossfuse-data", "configMap": {}})
    ),
    "container '<name>' mounts '<volume>', the directory in which a sidecar receives its credentials": lambda _: (
        admission(lambda spec: spec["containers"][0]["volumeMounts"].append({"name": "ossfuse-data"}))
    ),
    "container '<name>' mounts '<volume>', the directory of a sidecar's disk cache": lambda _: admission(
        lambda spec: spec["containers"][0]["volumeMounts"].append({"name": "ossdisk-data"}), attributes=IN_EMPTY_DIR
    ),
    "cache: the host path '<path>' is not one that this cluster's administrator allows for caches": lambda _: admission(
        lambda _: None, attributes={"cache": "/etc"}
    ),
    # credentials
    "secrets: the volume needs a Secret (authType: <type>) and none was given": lambda scene: scene.publish({}),
    "the Secret holds no access key": lambda scene: scene.publish({"password": "something-else"}),
    "the Secret lacks <key>": lambda scene: scene.publish({"akId": "LTAI-an-access-key"}),
    "<key> in the Secret contains a character that no access key has": lambda scene: scene.publish(
        {"akId": "LTAI-an-access-key", "akSecret": "with a space"}
    ),
    "Expiration in the Secret is not a time": lambda scene: scene.publish({**SECRETS, "Expiration": "soon"}),
    "403 InvalidAccessKeyId": lambda scene: scene.publish(SECRETS),
    "403 SignatureDoesNotMatch": lambda scene: scene.publish(
        {"akId": scene.emulator.access_key_id, "akSecret": "another-secret"}
    ),
    "403 InvalidSecurityToken": lambda scene: scene.token(other=True),
    "403 SecurityTokenExpired": lambda scene: scene.token(expired=True),
    "403 RequestTimeTooSkewed": lambda scene: scene.refused("RequestTimeTooSkewed"),
    "403 AccessDenied": lambda scene: scene.publish({}, authType="public"),
    # roles
    "podInfoOnMount is off": lambda scene: scene.publish(context={"mode": "fast"}),
    "kubelet sent no service account token for audience sts.aliyuncs.com: tokenRequests lacks it": lambda scene: (
        scene.role(pod_context())
    ),
    "serviceAccountName: '<account>' is not accepted, expected '<another>', the service account of pod <pod>": (
        lambda scene: scene.role(serviceAccountName="analyst")
    ),
    "AuthenticationFail.OIDCToken.Invalid": lambda scene: scene.role(pod_context(token=TokenIssuer().token())),
    "AuthenticationFail.OIDCToken.Expired": lambda scene: scene.role(pod_context(token=scene.issuer.token(exp=1))),
    "EntityNotExist.OIDCProvider": lambda scene: scene.role(oidcProviderArn=f"{PROVIDER}-of-others"),
    "EntityNotExist.Role": lambda scene: scene.sts(status=404, code="EntityNotExist.Role"),
    "NoPermission: You are not authorized to do this action": no_permission,
    "AssumeRoleWithOIDC at <endpoint>: service account <account> did not get role <role> through <provider>: "
    "<reason>; check that this node reaches STS": lambda scene: scene.sts(blackhole=True),
    "roleArn: '<value>' is not accepted, expected a role such as <example>, because authType is rrsa": lambda scene: (
        scene.role(roleArn="training")
    ),
    # bucket and endpoint
    "404 NoSuchBucket": lambda scene: scene.publish(bucket="no-such-bucket"),
    "Could not resolve host": lambda scene: scene.publish(url="http://no-such-host.invalid"),
    "Failed to connect": lambda scene: scene.publish(url="http://127.0.0.1:1"),
    "Operation timed out": lambda scene: (scene.emulator.fault(blackhole=True), scene.publish(patience=0.5))[1],
    # options
    "<option>: there is no such option": lambda scene: scene.publish(modee="fast"),
    NOT_ACCEPTED: lambda scene: scene.publish(mode="fastest"),
    "cache: emptyDir is part of a pod, and this volume is served by a process of the machine": lambda _: words_of(
        lambda: CachePlaces(None, in_pods=False).prepare(CacheOptions("emptyDir"))
    ),
    "cache: '<path>' is inside a directory of another volume's cache": lambda scene: cache_place(
        scene, lambda place: (place.mkdir(), os.chown(place, 65534, 65534))
    ),
    "cache: '<name>' in '<path>' is a symbolic link or a file": lambda scene: cache_place(
        scene, lambda place: place.symlink_to("/etc")
    ),
    "cache: ossfuse-cache-1 in '<path>' belongs to user <user>, not to sidecars (<uid>)": lambda scene: cache_place(
        scene, lambda place: ((place / CACHE_FOLDER).mkdir(parents=True), os.chown(place / CACHE_FOLDER, 1, 1))
    ),
    "<option>: this option is not accepted here": lambda scene: scene.publish(akSecret="pasted-here"),
    "is OSS-HDFS, which speaks a protocol of its own": lambda scene: scene.publish(
        url="https://cn-hangzhou.oss-dls.aliyuncs.com"
    ),
    "volume_capability.block: OSS holds objects, not block devices": lambda scene: scene.publish(
        capability=block_capability()
    ),
    # no sidecar
    f'{HAS_NONE}: its annotation ossfuse.csi.dev/inject: "false" keeps it away': lambda scene: scene.locate(
        annotated(**{"ossfuse.csi.dev/inject": "false"})
    ),
    f"{HAS_NONE}: the webhook did not add one: <reason>": lambda scene: scene.locate(
        annotated(**{"ossfuse.csi.dev/not-injected": "volume data: no claim"})
    ),
    f"{HAS_NONE}: namespace <namespace> is excluded from injection": lambda scene: scene.locate(
        annotated(), namespace="kube-system"
    ),
    f"{HAS_NONE}: static pods do not pass the API server": lambda scene: scene.locate(
        annotated(**{"kubernetes.io/config.mirror": "x"})
    ),
    f"{HAS_NONE}: the webhook did not see this pod": lambda scene: scene.locate(annotated()),
    f"{SIDECAR} has no restartPolicy: Always": lambda scene: scene.altered(restartPolicy=None),
    f"{SIDECAR} does not mount volume <name> at /run/ossfuse": lambda scene: scene.altered(volumeMounts=[]),
    f"{SIDECAR} lacks its emptyDir volume <name>": without_tmpfs,
    f"{SIDECAR} has no memory limit": lambda scene: scene.altered(resources={}),
    "no volume of pod <pod> is bound to PersistentVolume <volume>": bound_elsewhere,
    "pod <pod> with UID <uid> is gone": lambda scene: scene.locate(None),
    # the node
    "another call for <what> is still under way": under_way,
    "the node plugin is still starting": lambda _: words_of(lambda: StartingMounts().published()),
    "no answer of the API server": silent_api_server,
    "the API server refused (403 Forbidden)": forbidden,
    "is published already with different <what>": other_options,
    "volume '<volume>' is already published at <path> and its access mode <mode> allows one target path": second_target,
    "credentials could not be written to <directory>: No space left on device": full_tmpfs,
    "the tmpfs of container <name> is not mounted": no_tmpfs,
    "/dev/fuse": lambda scene: words_of(LinuxKernel(str(scene.home / "dev/fuse")).open_fuse_device),
    # the start of the pod, the claim
    "the volume was not served within <seconds> s; the events of the pod say why": closed_gate,
    "name one in csi.storage.k8s.io/provisioner-secret-name and -namespace of the StorageClass": no_provisioner_secret,
}


@pytest.fixture(scope="module")
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
def scene(emulator: RunningEmulator, issuer: TokenIssuer, tmp_path: Path) -> Iterator[Scene]:
    issuer.register(emulator)
    with stand_in_cluster() as cluster:
        yield Scene(emulator, issuer, cluster, tmp_path)


def test_every_heading_has_a_message_and_every_message_a_heading() -> None:
    assert sorted(HEADINGS) == sorted(CASES)


@pytest.mark.parametrize("heading", CASES)
def test_the_real_message_is_found_under_its_heading(scene: Scene, heading: str) -> None:
    message = CASES[heading](scene)

    assert fits(heading, message), f"{heading!r} is not what is said: {message!r}"


@pytest.mark.parametrize("heading", CASES)
def test_every_heading_is_followed_by_what_it_means(heading: str) -> None:
    (entry,) = [entry for entry in ENTRIES if entry.heading == heading]

    assert entry.text


# --- events ---


def incidents() -> dict[str, str]:
    """Reason → message of every event that a pod can be given, in the words of the product."""
    place = SidecarPlace("ossfuse-data", Path("/t"), Bytes(512 * MIB), Seconds(30.0))
    pod = pod_object([INLINE], injected=("data",))
    makers = [Incidents("pv-1", place) for _ in range(6)]
    high = makers[0].memory(Health(0, 0, 0, 0.0, working_set=500 * MIB, memory_limit=512 * MIB))
    silent = makers[1].silent(7, 30.0, stopped=False)
    assert high is not None and silent is not None
    made = [
        told(makers[2].ended(waits=True), pod, Termination("2", 139, "Error", "", "Segmentation fault")),
        told(makers[2].ended(waits=True), pod, Termination("1", 137, "OOMKilled", "", "")),
        told(makers[3].restarted(went_on=True), pod, None),
        told(makers[4].failed(Failed("SidecarFailed", "it cannot be served")), pod, None),
        told(high, pod, None),
        told(silent, pod, None),
        told(Incident(IncidentKind.CREDENTIALS_NOT_RENEWED, "pv-1", "", credentials_not_renewed()), pod, None),
    ]
    return {event.reason: event.message for event in made}


def credentials_not_renewed() -> str:
    """What a pod is told when its Secret was broken."""
    heard: list[Incident] = []

    class Heard:
        def report(self, _: object, incident: Incident) -> None:
            heard.append(incident)

    parsed = parse_volume({"bucket": "data", "url": "http://h:1"}, cpu_count=1)
    order = PublishRequest("pv-1", Path("/t"), parsed.spec, False, None, None, pod=POD)
    credential_supply(Heard()).renew(order, Offer({"akId": "LTAI-an-access-key"}, {}, ()), Seconds(1.0))
    return heard[0].message


EVENTS = [entry for entry in ENTRIES if entry.section == _EVENTS]


def test_every_reason_of_an_event_has_a_heading() -> None:
    reasons = {OUT_OF_MEMORY, *(kind.value for kind in IncidentKind)}

    assert {entry.heading for entry in EVENTS} == reasons == set(incidents())


@pytest.mark.parametrize("entry", EVENTS, ids=lambda entry: entry.heading)
def test_the_words_of_an_event_are_quoted_as_they_are(entry: Entry) -> None:
    (quoted,) = re.findall(r"^\*(.+)\*$", entry.text, flags=re.MULTILINE)
    stable = [words for words in re.split(r"…|\d+Mi|until", quoted) if words.strip()]
    message = incidents()[entry.heading]

    positions = [message.find(words.strip(" ;")) for words in stable]

    assert -1 not in positions, f"{quoted!r} is not what is said: {message!r}"
    assert positions == sorted(positions)


# --- what programs see ---


def test_every_errno_of_the_store_has_a_heading() -> None:
    found = {entry.heading for entry in ENTRIES if entry.section == _PROGRAMS}
    of_the_store = {number for kind, number in ERRNO_BY_CLASS.items() if issubclass(kind, StoreError)}

    expected = {os.strerror(number) for number in (*of_the_store, errno.ENOTCONN, errno.EROFS, errno.EPERM)}

    assert found == expected
