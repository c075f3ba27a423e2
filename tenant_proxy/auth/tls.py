"""What authentication has to know of a TLS connection."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """A client's TLS connection, as the proxy sees it; there is none for a plain one."""

    #: `server_end_point` of the certificate that the proxy showed; None: channel binding is not offered
    end_point: bytes | None = None
    #: subject common name of the client's certificate, if it sent one and the CA verified it
    cert_cn: str | None = None
    #: its DNS, URI and mail alternative names
    cert_names: tuple[str, ...] = ()


def server_end_point(der_cert: bytes) -> bytes | None:
    """tls-server-end-point channel binding data of a certificate (RFC 5929, section 4.1).

    The certificate's hash by its signature's hash function, with SHA-256 for MD5 and
    SHA-1.  None where the signature has no such function (Ed25519, Ed448): the RFC
    leaves these undefined, PostgreSQL and libpq fail on them, and so it must neither
    be offered nor used.  ValueError if it is no certificate.
    """
    certificate = x509.load_der_x509_certificate(der_cert)
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        return None
    name = algorithm.name.replace("-", "_")
    if name in ("md5", "sha1"):
        name = "sha256"
    return hashlib.new(name, der_cert).digest()
