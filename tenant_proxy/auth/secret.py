"""What is kept of a user's password.  No repr, str or error of it shows any of it."""

from __future__ import annotations

import enum
import re
from typing import final

from tenant_proxy.auth import scram
from tenant_proxy.auth.scram import ScramKeys, Verifier

#: derived keys kept per plain password: the proxy's own salt and those of a few servers
_MAX_KEYS = 8
_MD5 = re.compile(r"md5[0-9a-f]{32}\Z")


class SecretKind(enum.Enum):
    PLAIN = "plain"
    SCRAM = "scram-sha-256"
    MD5 = "md5"


@final
class Secret:
    """A password, a SCRAM verifier or an md5 hash.

    Keep one object per login for as long as its password lasts: the keys that PBKDF2
    makes of a plain password are cached in it.  May be used from several threads.
    """

    __slots__ = ("_keys", "_md5", "_plain", "_verifiers", "kind", "verifier")

    def __init__(
        self, kind: SecretKind, *, plain: bytes = b"", md5: bytes = b"", verifier: Verifier | None = None
    ) -> None:
        """Use `plain`, `parse`, `parse_verifier` or `of`."""
        self.kind = kind
        self._plain = plain
        self._md5 = md5
        #: of kind SCRAM only
        self.verifier = verifier
        self._keys: dict[tuple[bytes, int], ScramKeys] = {}
        self._verifiers: dict[tuple[bytes, int], Verifier] = {}

    @classmethod
    def plain(cls, password: str) -> Secret:
        """Of a password's text, whatever it looks like; ValueError if it is empty."""
        if not password:
            raise ValueError("empty password")
        return cls(SecretKind.PLAIN, plain=password.encode("utf-8", "surrogateescape"))

    @classmethod
    def parse(cls, text: str | None) -> Secret | None:
        """Of a text as in pg_authid.rolpassword: verifier, md5 hash, or else plain; None if it is empty."""
        if not text:
            return None
        if _MD5.match(text):
            return cls(SecretKind.MD5, md5=text.encode())
        try:
            return cls(SecretKind.SCRAM, verifier=scram.parse_verifier(text))
        except ValueError:
            return cls.plain(text)

    @classmethod
    def parse_verifier(cls, text: str) -> Secret:
        """Of a SCRAM verifier or md5 hash; ValueError if it is neither."""
        if _MD5.match(text):
            return cls(SecretKind.MD5, md5=text.encode())
        return cls(SecretKind.SCRAM, verifier=scram.parse_verifier(text))

    @classmethod
    def of(cls, password: str | None = None, verifier: str | None = None) -> Secret | None:
        """Of the two keys of a configured login; None if both are None.  ValueError as the others."""
        if verifier is not None:
            return cls.parse_verifier(verifier)
        return None if password is None else cls.plain(password)

    def __repr__(self) -> str:
        return f"Secret({self.kind.value})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not to be pickled")

    @property
    def password(self) -> bytes | None:
        """The password itself, if it is known."""
        return self._plain or None

    @property
    def md5(self) -> bytes | None:
        """`md5` and 32 hex digits, if it is of that kind."""
        return self._md5 or None

    def cached_verifier(self, salt: bytes, iterations: int) -> Verifier | None:
        """The verifier to check a SCRAM login with; None if it must be derived first (`derive`)."""
        return self.verifier or self._verifiers.get((salt, iterations))

    def cached_keys(self, salt: bytes, iterations: int) -> ScramKeys | None:
        return self._keys.get((salt, iterations))

    def derive(self, salt: bytes, iterations: int) -> ScramKeys:
        """A plain password's keys for a salt: PBKDF2 once, then cached.  ValueError for other kinds."""
        if self.kind is not SecretKind.PLAIN:
            raise ValueError(f"keys cannot be derived from a secret of kind {self.kind.value}")
        key = (salt, iterations)
        keys = self._keys.get(key)
        if keys is None:
            keys = scram.derive_keys(self._plain, salt, iterations)
            if len(self._keys) >= _MAX_KEYS:
                self._keys.clear()
                self._verifiers.clear()
            self._verifiers[key] = keys.verifier()
            self._keys[key] = keys
        return keys
