"""Who is who in a cluster of the tests: a certificate authority, the API server's certificate, the key of service
accounts, a token for each component and kubeconfigs with those tokens. Made anew for every cluster."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.harness.places import NODE, SERVICE_ADDRESS

_USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
_ADDRESSES = ("127.0.0.1", SERVICE_ADDRESS)
_VALID = datetime.timedelta(days=30)


def make_identities(directory: Path, address: str) -> None:
    """Write ca.crt, server.crt, server.key, accounts.key, accounts.pub, tokens.csv and NAME.kubeconfig.

    `address` is where the API server will be.
    """
    directory.mkdir(mode=0o700, parents=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("ossfuse-csi test cluster", authority_key, None, authority_key, ())
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = _certificate("kube-apiserver", server_key, authority, authority_key, (*_ADDRESSES, address))
    accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (directory / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (directory / "server.crt").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    _write_secret(directory / "server.key", _private(server_key))
    _write_secret(directory / "accounts.key", _private(accounts))
    (directory / "accounts.pub").write_bytes(
        accounts.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    lines = []
    for name, (user, group) in _USERS.items():
        token = secrets.token_hex(16)
        lines.append(f'{token},{user},{user},"{group}"\n')
        _write_secret(
            directory / f"{name}.kubeconfig", json.dumps(_kubeconfig(directory, address, user, token)).encode()
        )
    _write_secret(directory / "tokens.csv", "".join(lines).encode())


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    addresses: tuple[str, ...],
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        reached = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        names = [x509.DNSName(alternative) for alternative in _NAMES]
        builder = builder.add_extension(x509.SubjectAlternativeName([*names, *reached]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _kubeconfig(directory: Path, address: str, user: str, token: str) -> dict[str, object]:
    """JSON is YAML. The authority is inlined, so that the file may be copied."""
    authority = base64.b64encode((directory / "ca.crt").read_bytes()).decode()
    cluster = {"server": f"https://{address}:443", "certificate-authority-data": authority}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
        "current-context": "tests",
    }


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
