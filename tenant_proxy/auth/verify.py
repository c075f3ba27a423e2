"""Passwords that come in the clear, and PostgreSQL's md5 method."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from tenant_proxy.auth import scram
from tenant_proxy.auth.scram import ScramKeys
from tenant_proxy.auth.secret import Secret, SecretKind


def md5_hash(password: bytes, user: str) -> bytes:
    """As in pg_authid.rolpassword: `md5` and 32 hex digits; the user's name is the salt."""
    return b"md5" + _md5(password + user.encode("utf-8", "surrogateescape"))


def md5_response(stored: bytes, salt: bytes) -> bytes:
    """A client's answer to AuthenticationMD5Password, from the stored hash and the challenge's 4 bytes."""
    return b"md5" + _md5(stored[3:] + salt)


def stored_md5(secret: Secret | None, user: str) -> bytes | None:
    """The stored hash of a secret; None where none can be had of it (a SCRAM verifier, no secret)."""
    if secret is None:
        return None
    return secret.md5 or (md5_hash(secret.password, user) if secret.password else None)


def check_md5(response: bytes, salt: bytes, secret: Secret | None, user: str) -> bool:
    """`user` is the name that the client's side hashes: that of its startup packet."""
    stored = stored_md5(secret, user)
    expected = md5_response(stored or md5_hash(b"", user), salt)
    return hmac.compare_digest(response, expected) and stored is not None


@dataclass(frozen=True, slots=True)
class Checked:
    """Outcome of `check_cleartext`; `keys` is what a SCRAM verifier left for pass-through."""

    ok: bool
    keys: ScramKeys | None = None
    #: it is the password that is being replaced
    by_previous: bool = False


def check_cleartext_fast(password: bytes, secret: Secret | None, user: str) -> bool:
    """True if the password is right and that can be told without PBKDF2."""
    if secret is None or secret.kind is SecretKind.SCRAM:
        return False
    if secret.kind is SecretKind.MD5:
        return hmac.compare_digest(md5_hash(password, user), secret.md5 or b"")
    return hmac.compare_digest(password, secret.password or b"")


def check_cleartext(
    password: bytes,
    secret: Secret | None,
    user: str,
    *,
    salt: bytes,
    iterations: int,
    previous: Secret | None = None,
) -> Checked:
    """Whether a password fits a secret of any kind; a wrong one takes one PBKDF2 run always.

    So the time of a refusal does not tell an unknown user from a known one.  `salt` and
    `iterations` are those of the mock verifier.  Slow: meant for a thread.  `previous` is a
    verifier that is being replaced, with the salt and iterations of `secret`'s.
    """
    if check_cleartext_fast(password, secret, user):
        return Checked(ok=True)
    verifier = secret.verifier if secret is not None else None
    if verifier is None:
        scram.derive_keys(password, salt, iterations)
        return Checked(ok=False)
    keys = scram.derive_keys(password, verifier.salt, verifier.iterations)
    stored_key = hashlib.sha256(keys.client_key).digest()
    if hmac.compare_digest(stored_key, verifier.stored_key):
        return Checked(ok=True, keys=keys)
    before = previous.verifier if previous is not None else None
    if before is None or not hmac.compare_digest(stored_key, before.stored_key):
        return Checked(ok=False)
    return Checked(ok=True, keys=keys, by_previous=True)


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()
