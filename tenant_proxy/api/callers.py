"""Who asks: a token of the catalog, or a JSON Web Token that an identity provider has signed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tenant_proxy.api.permissions import Principal, Role
from tenant_proxy.catalog import tokens
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.store import Store
from tenant_proxy.config.schema import Jwt

#: signatures by public keys alone: a shared secret would let the API make tokens too
_ALGORITHMS: Final = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]
_LEEWAY_S: Final = 30
_MAX_TOKEN: Final = 8192
_TENANT: Final = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}")


class Unauthenticated(Exception):
    """There is no token, or it is not good; which it is nobody is told."""


class Callers:
    def __init__(self, store: Store, config: Jwt) -> None:
        self._store = store
        self._config = config
        self._keys = None if config.keys is None else _read_keys(config)

    async def identify(self, authorization: str | None) -> Principal:
        scheme, _, value = (authorization or "").partition(" ")
        value = value.strip()
        if scheme.lower() != "bearer" or not value or len(value) > _MAX_TOKEN:
            raise Unauthenticated
        if value.startswith(tokens.PREFIX):
            async with self._store.read() as connection:
                token = await tokens.check(connection, value)
            if token is None:
                raise Unauthenticated
            return Principal(f"token:{token.name}", Role(token.role), token.tenant)
        if self._keys is not None and value.count(".") == 2:
            return self._of_jwt(value, self._keys)
        raise Unauthenticated

    def _of_jwt(self, value: str, keys: KeySet) -> Principal:
        config = self._config
        wanted = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": config.issuer or ""},
            aud={"essential": True, "value": config.audience or ""},
            sub={"essential": True},
            exp={"essential": True},
        )
        try:
            claims: dict[str, Any] = jwt.decode(value, keys, algorithms=_ALGORITHMS).claims
            wanted.validate(claims)
            role = Role(claims[config.role_claim])
        except (JoseError, ValueError, TypeError, KeyError):
            raise Unauthenticated from None
        subject, tenant = claims["sub"], claims.get(config.tenant_claim)
        if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= 200:
            raise Unauthenticated
        if role is not Role.TENANT_ADMIN:
            return Principal(f"jwt:{subject}", role)
        if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
            raise Unauthenticated
        return Principal(f"jwt:{subject}", role, tenant)


def _read_keys(config: Jwt) -> KeySet:
    assert config.keys is not None
    if config.issuer is None or config.audience is None:
        raise Failure("invalid", "api.jwt.keys needs api.jwt.issuer and api.jwt.audience beside it")
    try:
        given = json.loads(Path(config.keys).read_text("utf-8"))
        if any(key.get("kty") == "oct" for key in given["keys"]):
            raise Failure("invalid", f"{config.keys}: has a shared secret; public keys alone are taken")
        return KeySet.import_key_set(given)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, JoseError) as error:
        raise Failure("invalid", f"{config.keys}: is no JSON Web Key Set ({type(error).__name__})") from None
