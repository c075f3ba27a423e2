"""The signed record of an erasure: what was removed, when, for whom, and that a scan found nothing left.

A file of JSON, `{"record": …, "signature": …, "public_key": …}`.  The signature is Ed25519's over the
record's canonical form: keys sorted, no spaces, UTF-8.  Who checks it needs the public key from somewhere
that the file's giver can't change.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

FORMAT: Final = "tenant_proxy erasure 1"


class CertificateError(Exception):
    """The key or the file can't be read, or the signature is not of this record."""


def new_key() -> tuple[str, str]:
    """A private key and its public one, as PEM."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private.decode(), _public_pem(key.public_key())


def read_private_key(pem: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"the signing key can't be read: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CertificateError("the signing key must be an Ed25519 key")
    return key


def read_public_key(pem: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError as error:
        raise CertificateError(f"the public key can't be read: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("the public key must be an Ed25519 key")
    return key


def canonical(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def signed(record: Mapping[str, Any], key: Ed25519PrivateKey | None) -> dict[str, Any]:
    """Without a key: the record alone, which proves nothing."""
    if key is None:
        return {"record": dict(record)}
    return {
        "record": dict(record),
        "signature": base64.b64encode(key.sign(canonical(record))).decode(),
        "public_key": _public_pem(key.public_key()),
    }


def verify(text: str, trusted: Ed25519PublicKey | None = None) -> dict[str, Any]:
    """The record, if its signature is good and, where `trusted` is given, made with that key."""
    try:
        known = json.loads(text)
        record = known["record"]
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise CertificateError("this is no record of an erasure")
        if "signature" not in known:
            raise CertificateError("the record is not signed")
        signature = base64.b64decode(known["signature"], validate=True)
        key = read_public_key(known["public_key"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CertificateError(f"this is no record of an erasure: {error}") from None
    try:
        key.verify(signature, canonical(record))
    except InvalidSignature:
        raise CertificateError("the record is not what was signed") from None
    if trusted is not None and _raw(trusted) != _raw(key):
        raise CertificateError("the record is signed with another key than yours")
    return dict(record)


def _public_pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
