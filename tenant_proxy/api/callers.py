"""Who asks: a token of the catalog, or a JSON Web Token that an identity provider has signed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tenant_proxy.api.permissions import Principal, Role
from tenant_proxy.auth.jwt import MAX_TOKEN, Tokens
from tenant_proxy.catalog import tokens
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.store import Store
from tenant_proxy.config.schema import Jwt

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
        if scheme.lower() != "bearer" or not value or len(value) > MAX_TOKEN:
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

    def _of_jwt(self, value: str, keys: Tokens) -> Principal:
        config = self._config
        try:
            claims = keys.claims(value)
            role = Role(claims[config.role_claim])
        except (ValueError, TypeError, KeyError):
            raise Unauthenticated from None
        subject, tenant = claims["sub"], claims.get(config.tenant_claim)
        if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= 200:
            raise Unauthenticated
        if role is not Role.TENANT_ADMIN:
            return Principal(f"jwt:{subject}", role)
        if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
            raise Unauthenticated
        return Principal(f"jwt:{subject}", role, tenant)


def _read_keys(config: Jwt) -> Tokens:
    assert config.keys is not None
    if config.issuer is None or config.audience is None:
        raise Failure("invalid", "api.jwt.keys needs api.jwt.issuer and api.jwt.audience beside it")
    try:
        return Tokens(Path(config.keys).read_text("utf-8"), config.issuer, config.audience)
    except OSError as error:
        raise Failure("invalid", f"{config.keys}: can't be read ({type(error).__name__})") from None
    except ValueError as error:
        raise Failure("invalid", f"{config.keys}: {error}") from None
