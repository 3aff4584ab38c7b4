"""The checks of a machine are shown machines made of files; those of an endpoint, real servers."""

import datetime
import email.utils
import http.server
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from csi.cli.endpoint_check import check_endpoint, speaks_instead
from csi.cli.machine_checks import Finding, Level, Machine, check_machine
from csi.volume.uri import Endpoint

V1 = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V2 = "30 25 0:26 / {root}/cg rw - cgroup2 cgroup rw\n"
FUSECTL = "40 25 0:30 / /sys/fs/fuse/connections rw - fusectl fusectl rw\n"
GOOD = {
    "proc/filesystems": "nodev\tproc\n\text4\nnodev\tfuse\n",
    "proc/self/status": "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
    "proc/self/mountinfo": V1 + FUSECTL,
    "proc/self/cgroup": "5:memory:/\n",
}


def machine(
    root: Path, files: dict[str, str] | None = None, release: str = "6.18.0", library: str | None = "f"
) -> Machine:
    for name, text in {**GOOD, **(files or {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.format(root=root))
    (root / "dev").mkdir(exist_ok=True)
    if not (root / "dev/fuse").exists():
        os.symlink("/dev/null", root / "dev/fuse")
    return Machine(root, release, lambda name: library)


def found(machine: Machine, check: str) -> Finding:
    return next(finding for finding in check_machine(machine) if finding.check == check)


def test_a_good_machine_has_nothing_to_fix(tmp_path: Path) -> None:
    findings = check_machine(machine(tmp_path))
    assert [finding.level for finding in findings] == [Level.OK] * len(findings)
    assert {finding.fix for finding in findings} == {""}


@pytest.mark.parametrize(
    ("release", "level"),
    [
        ("3.10.0-1160", Level.FAIL),
        ("4.19.0", Level.WARN),
        ("5.4.0", Level.OK),
        ("6.9.1", Level.OK),
        ("odd", Level.FAIL),
    ],
)
def test_old_kernels_are_told(tmp_path: Path, release: str, level: Level) -> None:
    assert found(machine(tmp_path, release=release), "kernel").level is level


def test_a_missing_or_wrong_device_fails(tmp_path: Path) -> None:
    there = machine(tmp_path)
    (tmp_path / "dev/fuse").unlink()
    assert found(there, "/dev/fuse").found == "missing"
    (tmp_path / "dev/fuse").write_text("")
    assert found(there, "/dev/fuse").found == "not a device"


@pytest.mark.parametrize(
    ("file", "text", "check", "level"),
    [
        ("proc/filesystems", "nodev\tproc\nnodev\tfuseblk\n", "FUSE", Level.FAIL),
        ("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n", "rights", Level.FAIL),
        ("proc/self/status", "", "rights", Level.FAIL),
        ("proc/self/mountinfo", FUSECTL, "memory cgroup", Level.FAIL),
        ("proc/self/mountinfo", V1.replace(" rw -", " ro -"), "memory cgroup", Level.FAIL),
        ("proc/self/mountinfo", V1, "fusectl", Level.WARN),
    ],
)
def test_each_lack_is_found_and_has_a_fix(tmp_path: Path, file: str, text: str, check: str, level: Level) -> None:
    finding = found(machine(tmp_path, {file: text}), check)
    assert finding.level is level
    assert finding.fix


def test_memory_cgroups_of_version_2_are_found(tmp_path: Path) -> None:
    files = {"proc/self/mountinfo": V2, "proc/self/cgroup": "0::/\n", "cg/cgroup.controllers": "cpu memory\n"}
    finding = found(machine(tmp_path, files), "memory cgroup")
    assert (finding.level, finding.found) == (Level.OK, f"version 2 at {tmp_path}/cg")


def test_a_missing_libfuse_fails(tmp_path: Path) -> None:
    assert found(machine(tmp_path, library=None), "libfuse").level is Level.FAIL


@contextmanager
def answering(date: str | None) -> Iterator[Endpoint]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(403)
            self.send_header("Server", "AliyunOSS")
            if date is not None:
                self.send_header("Date", date)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Endpoint("http", "127.0.0.1", str(server.server_port))
        finally:
            server.shutdown()
            thread.join()


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("skew", "level", "said"),
    [
        (0, Level.OK, "0 s behind"),
        (30, Level.OK, "30 s ahead of"),
        (-120, Level.WARN, "120 s behind"),
        (901, Level.FAIL, "901 s ahead of"),
        (-86400, Level.FAIL, "86400 s behind"),
    ],
)
def test_a_clock_is_compared_with_the_endpoint_s(skew: int, level: Level, said: str) -> None:
    with answering(email.utils.formatdate(NOW, usegmt=True)) as endpoint:
        reached, clock = check_endpoint(endpoint, timeout=10, clock=lambda: NOW + skew)
    assert reached.level is Level.OK
    assert "HTTP 403 from AliyunOSS" in reached.found
    assert (clock.check, clock.level) == ("clock", level)
    assert said in clock.found


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_an_endpoint_without_a_clock_is_a_warning(date: str | None) -> None:
    with answering(date) as endpoint:
        assert check_endpoint(endpoint, timeout=10, clock=lambda: NOW)[1].level is Level.WARN


def test_a_refused_connection_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (finding,) = check_endpoint(Endpoint("http", "127.0.0.1", str(port)), timeout=10, clock=lambda: NOW)
    assert (finding.level, finding.found) == (Level.FAIL, "Connection refused")


def test_an_endpoint_that_never_answers_fails_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("http", "127.0.0.1", str(listener.getsockname()[1]))
        (finding,) = check_endpoint(endpoint, timeout=0.2, clock=lambda: NOW)
    assert (finding.level, finding.found) == (Level.FAIL, "no answer within 0.2 s")


def test_https_to_a_plain_port_is_told_as_such() -> None:
    with answering(None) as endpoint:
        secure = Endpoint("https", endpoint.host, endpoint.port)
        (finding,) = check_endpoint(secure, timeout=10, clock=lambda: NOW)
    assert finding.level is Level.FAIL
    assert "http://" in finding.fix


def test_an_unknown_name_fails() -> None:
    (finding,) = check_endpoint(Endpoint("https", "no-such-host.invalid"), timeout=10, clock=lambda: NOW)
    assert finding.level is Level.FAIL
    assert finding.found.startswith("name not found")


def test_a_port_that_speaks_the_other_scheme_is_told_as_its_url() -> None:
    with answering(None) as endpoint:
        secure = Endpoint("https", endpoint.host, endpoint.port)
        assert speaks_instead(secure, timeout=10) == endpoint.url
        assert speaks_instead(endpoint, timeout=10) == ""


def test_a_certificate_that_nobody_trusts_is_tls_all_the_same(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "both.pem"))

    def shake_hands() -> None:
        with listener.accept()[0] as connection, suppress(ssl.SSLError, ConnectionError):
            context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=shake_hands)
        thread.start()
        endpoint = Endpoint("http", "127.0.0.1", str(listener.getsockname()[1]))
        found = speaks_instead(endpoint, timeout=10)
        thread.join()
    assert found == f"https://127.0.0.1:{endpoint.port}"


def self_signed(path: Path) -> Path:
    """A key and a certificate by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "oss.test")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = builder.serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.write_bytes(private + dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path
