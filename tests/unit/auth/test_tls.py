"""tls-server-end-point of certificates (RFC 5929, section 4.1)."""

import datetime
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from tenant_proxy.auth.tls import server_end_point

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(key, algorithm, **more) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .sign(key, algorithm, **more)
    )
    return built.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY], ids=["rsa", "ec"])
@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        (hashes.SHA224(), "sha224"),
        (hashes.SHA256(), "sha256"),
        (hashes.SHA384(), "sha384"),
        (hashes.SHA512(), "sha512"),
        (hashes.SHA3_256(), "sha3_256"),
        (hashes.SHA3_512(), "sha3_512"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_hash_of_the_signature(key, algorithm, name):
    der = certificate(key, algorithm)
    assert server_end_point(der) == hashlib.new(name, der).digest()


def test_rsa_pss_has_its_hash_in_the_parameters():
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH)
    der = certificate(RSA_KEY, hashes.SHA384(), rsa_padding=pss)
    assert server_end_point(der) == hashlib.sha384(der).digest()


@pytest.mark.parametrize("oid", ["2a864886f70d010104", "2a864886f70d010105"], ids=["md5", "sha1"])
def test_weak_hashes_count_as_sha256(oid):
    """Nothing signs such certificates any more, so another one's algorithm (sha256WithRSA) is overwritten."""
    der = certificate(RSA_KEY, hashes.SHA256()).replace(
        bytes.fromhex("2a864886f70d01010b"), bytes.fromhex(oid)
    )
    assert server_end_point(der) == hashlib.sha256(der).digest()


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()])
def test_undefined_for_eddsa(key):
    assert server_end_point(certificate(key, None)) is None


def test_undefined_for_an_unknown_algorithm():
    der = certificate(RSA_KEY, hashes.SHA256()).replace(
        bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d01017f")
    )
    assert server_end_point(der) is None


@pytest.mark.parametrize("der", [b"", b"-----BEGIN CERTIFICATE-----", b"\x30\x03\x02\x01\x01"])
def test_no_certificate(der):
    with pytest.raises(ValueError):
        server_end_point(der)
