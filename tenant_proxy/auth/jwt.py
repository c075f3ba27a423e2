"""JSON Web Tokens that an identity provider has signed: of the API's callers, and of logins by method jwt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

#: signatures by public keys alone: a shared secret would let who checks tokens make them too
_ALGORITHMS: Final = [
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
]
_LEEWAY_S: Final = 30
MAX_TOKEN: Final = 8192


@dataclass(frozen=True, slots=True)
class LoginClaims:
    login: str
    #: that it may use with this token; None: all that the login has
    tenants: frozenset[str] | None


@final
class Tokens:
    """What makes a token good: `keys` is the text of a JSON Web Key Set; ValueError where it is none."""

    def __init__(self, keys: str, issuer: str, audience: str) -> None:
        try:
            given = json.loads(keys)
            if any(key.get("kty") == "oct" for key in given["keys"]):
                raise ValueError("it has a shared secret; public keys alone are taken")
            self._keys = KeySet.import_key_set(given)
        except (KeyError, TypeError, AttributeError, JoseError, json.JSONDecodeError) as error:
            raise ValueError(f"it is no JSON Web Key Set ({type(error).__name__})") from None
        self._wanted = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
        )

    def claims(self, token: str) -> dict[str, Any]:
        """ValueError for one that is not good, whatever is wrong with it."""
        try:
            if len(token) > MAX_TOKEN:
                raise ValueError
            found: dict[str, Any] = jwt.decode(token, self._keys, algorithms=_ALGORITHMS).claims
            self._wanted.validate(found)
        except (JoseError, ValueError, TypeError, KeyError):
            raise ValueError("the token is not good") from None
        return found


@final
class LoginTokens:
    """Which login a token is of, and for which tenants."""

    def __init__(self, tokens: Tokens, login_claim: str, tenant_claim: str | None) -> None:
        self._tokens = tokens
        self._login_claim = login_claim
        self._tenant_claim = tenant_claim

    def check(self, token: bytes) -> LoginClaims:
        """ValueError for one that is not good, or says nothing of a login."""
        claims = self._tokens.claims(token.decode("ascii"))
        login = claims.get(self._login_claim)
        if not isinstance(login, str) or not login:
            raise ValueError("the token names no login")
        if self._tenant_claim is None:
            return LoginClaims(login, None)
        named: Any = claims.get(self._tenant_claim)
        tenants: Sequence[Any] = [named] if isinstance(named, str) else named
        if not isinstance(tenants, list) or not all(isinstance(one, str) for one in tenants):
            raise ValueError("the token names no tenants")
        return LoginClaims(login, frozenset(tenants))
