"""Certificates for the tests, made when first wanted."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pem:
    """Paths of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority with a directory of what it has signed."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._sign(self._name, self._key.public_key(), [], is_ca=True)
        self.cert = directory / f"{name}.crt"
        self.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, common_name: str, hosts: Sequence[str] = (), *, expired: bool = False, stem: str = ""
    ) -> Pem:
        """A certificate for a host or a user; `hosts` become alternative names."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        cert = self._sign(name, key.public_key(), hosts, expired=expired)
        stem = stem or common_name
        pem = Pem(self._directory / f"{stem}.crt", self._directory / f"{stem}.key")
        pem.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        pem.key.touch(mode=0o600)
        pem.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pem

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        *,
        is_ca: bool = False,
        expired: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * day)
            .not_valid_after(now - day if expired else now + 10 * day)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if hosts:
            names = [_general_name(host) for host in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass(frozen=True)
class Certificates:
    """One authority that all trust, one that nobody does, and certificates of theirs."""

    ca: Path
    other_ca: Path
    #: of the proxy: localhost, 127.0.0.1 and *.tenants.test
    proxy: Pem
    #: of PostgreSQL: localhost and 127.0.0.1
    server: Pem
    #: of a server that is called otherwise
    wrong_host: Pem
    #: of users
    acme_app: Pem
    beta_app: Pem
    #: says acme_app, and is signed by the authority that nobody trusts
    forged: Pem
    expired: Pem


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("tls")
    ca, other = Authority(directory, "ca"), Authority(directory, "other-ca")
    here = ["localhost", "127.0.0.1"]
    return Certificates(
        ca=ca.cert,
        other_ca=other.cert,
        proxy=ca.issue("proxy", [*here, "*.tenants.test"]),
        server=ca.issue("server", here),
        wrong_host=ca.issue("elsewhere", ["elsewhere.test"]),
        acme_app=ca.issue("acme_app"),
        beta_app=ca.issue("beta_app"),
        forged=other.issue("acme_app", stem="forged"),
        expired=ca.issue("acme_app", expired=True, stem="expired"),
    )
