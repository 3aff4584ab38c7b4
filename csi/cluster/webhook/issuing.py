"""Certificates as bytes: making a CA with one serving certificate, reading them, bundling CAs. Pure but for randomness.

Each serving certificate has a CA of its own whose key is thrown away at once: nothing else can ever be signed by it,
and what the API server trusts is exactly one certificate for one name.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from csi.errors import OssFuseError

CA_NAME: Final = "ossfuse-csi webhook CA"
"""Common name of the CAs that are ours, by which they are told from others in a bundle."""

LIFETIME: Final = datetime.timedelta(days=365)
RENEWAL: Final = LIFETIME / 3
"""A certificate with less than this left is replaced."""
_SKEW: Final = datetime.timedelta(hours=1)
"""How far the clock of an API server may be behind ours."""


class CertificateUnusable(OssFuseError):
    """Certificate or key that cannot be read, do not belong together, or are for another name or time."""


@dataclass(frozen=True, slots=True)
class ServingCertificate:
    """PEM, the leaf first. `authorities` is the bundle that clients trust, '' bytes where somebody else cares for it.
    The key never shows in a repr."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes = b""

    def expiry(self) -> datetime.datetime:
        return _first(self.certificate).not_valid_after_utc


def make_certificate(names: Sequence[str], now: datetime.datetime) -> ServingCertificate:
    """A new CA and a certificate for the DNS names `names`, the first being its common name."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CA_NAME)])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    authority = (
        _builder(issuer, issuer, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _builder(subject, issuer, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return ServingCertificate(
        certificate.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        authority.public_bytes(pem),
    )


def check(serving: ServingCertificate, name: str, now: datetime.datetime) -> None:
    """Raises CertificateUnusable unless key and certificate fit each other, `name` and `now`, and one of the
    authorities, if any are given, has signed it."""
    certificate = _first(serving.certificate)
    try:
        key = serialization.load_pem_private_key(serving.key, None)
    except (ValueError, TypeError):
        raise CertificateUnusable("the private key cannot be read") from None
    if key.public_key() != certificate.public_key():
        raise CertificateUnusable("the private key belongs to another certificate")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise CertificateUnusable(
            f"the certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}, and it is {now:%Y-%m-%d}"
        )
    if name not in _dns_names(certificate):
        raise CertificateUnusable(f"the certificate is not for {name}, but for {', '.join(_dns_names(certificate))}")
    if serving.authorities and not any(_signed(certificate, one) for one in _read_all(serving.authorities)):
        raise CertificateUnusable("no authority in the bundle has signed the certificate")


def joined(bundles: Sequence[bytes], now: datetime.datetime) -> bytes:
    """The CAs of ours in `bundles` that are still valid, each once, in their order. What is no PEM counts as empty."""
    found: dict[bytes, None] = {}
    for bundle in bundles:
        for authority in _read_all(bundle):
            if authority.not_valid_after_utc > now and _common_name(authority) == CA_NAME:
                found[authority.public_bytes(serialization.Encoding.PEM)] = None
    return b"".join(found)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + LIFETIME)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _first(pem: bytes) -> x509.Certificate:
    found = _read_all(pem)
    if not found:
        raise CertificateUnusable("the certificate cannot be read")
    return found[0]


def _read_all(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.DNSName)


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _common_name(certificate: x509.Certificate) -> str:
    attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attributes[0].value) if attributes else ""
