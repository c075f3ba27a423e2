"""Verbs about the API's tokens."""

from __future__ import annotations

from datetime import datetime

from tenant_proxy.catalog import tokens
from tenant_proxy.catalog.failures import Failure, not_found
from tenant_proxy.catalog.records import Token, parse
from tenant_proxy.catalog.store import find_tenant
from tenant_proxy.lifecycle.records import IssuedToken, NewToken
from tenant_proxy.lifecycle.tenants import TenantVerbs


class TokenVerbs(TenantVerbs):
    async def token_create(
        self, name: str, role: str, *, tenant: str | None = None, expires_at: datetime | None = None
    ) -> IssuedToken:
        """Its secret is in the answer and nowhere else."""
        new = parse(NewToken, {"name": name, "role": role, "tenant": tenant, "expires_at": expires_at})
        if (new.role == "tenant_admin") != (new.tenant is not None):
            raise Failure("invalid", "a tenant_admin has a tenant, and nobody else has one")
        secret = tokens.make()
        async with self._change() as change:
            found = None if tenant is None else await find_tenant(change.connection, tenant)
            await change.insert(
                "token",
                {
                    "name": name,
                    "hash": tokens.digest(secret),
                    "role": new.role,
                    "tenant": None if found is None else found.id,
                    "expires_at": expires_at,
                },
            )
            said = new.model_dump(mode="json", exclude_none=True)
            await change.audit("token.create", "token", name, None, {**said, "secret": "set"})
            made = await tokens.find(change.connection, name)
            assert made is not None
        return IssuedToken(token=made, secret=secret)

    async def token_list(self) -> list[Token]:
        async with self.context.store.read() as connection:
            return await tokens.tokens(connection)

    async def token_revoke(self, name: str) -> None:
        """It is good no longer, at once."""
        async with self._change() as change:
            found = await tokens.find(change.connection, name)
            if found is None:
                not_found("token", name)
            await change.connection.execute("DELETE FROM token WHERE id = $1", found.id)
            await change.audit("token.revoke", "token", name, {"role": found.role}, None)
