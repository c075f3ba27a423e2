"""Verbs about logins: who may reach a tenant, as what, until when; and their passwords."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets as random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import quote

from tenant_proxy.auth.scram import build_verifier, parse_verifier
from tenant_proxy.catalog import logins
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Access, CustomRole, Level, Login, LoginKind, Tenant
from tenant_proxy.catalog.states import PROVISIONED, State, conflict
from tenant_proxy.catalog.store import check_version
from tenant_proxy.config.opaque import server_password
from tenant_proxy.lifecycle import jobs
from tenant_proxy.lifecycle.records import Granted, NewAccess, NewTenant, Onboarded, Rotated
from tenant_proxy.lifecycle.rights import TABLE_RIGHTS
from tenant_proxy.lifecycle.tenants import WAIT_S, TenantVerbs

#: bytes of randomness in a password that is made
_PASSWORD_BYTES: Final = 24
OVERLAP_S: Final = 86400.0
#: iterations of a verifier that nobody notices
_AT_ONCE: Final = 4096


class AccessVerbs(TenantVerbs):
    async def access_list(
        self,
        *,
        tenant: str | None = None,
        login: str | None = None,
        after: tuple[str, str] = ("", ""),
        limit: int | None = None,
    ) -> list[Access]:
        """By tenant and login; those behind `after`, which is one of both."""
        if tenant is not None:
            await self.context.store.tenant(tenant)
        async with self.context.store.read() as connection:
            return await logins.accesses(connection, tenant=tenant, login=login, after=after, limit=limit)

    async def login_get(self, name: str) -> Login:
        async with self.context.store.read() as connection:
            return await logins.need_login(connection, name)

    async def access_grant(self, tenant: str, new: NewAccess, *, wait_s: float = WAIT_S) -> Granted:
        """A login that does not exist is made, with a password; one that has the right already keeps it."""
        self._check_login(new)
        return (await self._grant(await self.context.store.tenant(tenant), new, wait_s))[0]

    async def _grant(
        self, found: Tenant, new: NewAccess, wait_s: float, *, activate: bool = False
    ) -> tuple[Granted, Tenant | None]:
        """And the tenant behind it, where it was seen.  `activate`: the tenant too, where it is ready, in the
        transaction that ends the job.
        """
        tenant = found.name
        if found.state not in PROVISIONED:
            raise conflict(tenant, found.state, "logins are granted a tenant that is provisioned")
        async with self.context.store.read() as connection:
            login = await logins.find_login(connection, new.login)
            has = [] if login is None else await logins.accesses(connection, tenant=tenant, login=new.login)
        if has and not has[0].pending and _is_as_asked(has[0], new):
            return Granted(access=has[0], dsn=self.dsn(new.login, tenant)), None
        if login is not None and new.service and login.kind is not LoginKind.SERVICE:
            hint = "revoke it from all its tenants, and grant it anew"
            raise Failure("exists", f'the login "{new.login}" exists, and has a password', hint=hint)
        if login is not None and new.password is not None:
            raise Failure(
                "exists",
                f'the login "{new.login}" exists, and its password stays as it is',
                hint=f"change it: tenant-proxy access rotate {new.login}",
            )
        password, transient = None, {}
        if login is None and new.service:
            transient = {"verifier": await self._verifier(self._service_password(new.login))}
        elif login is None:
            password = new.password or random.token_urlsafe(_PASSWORD_BYTES)
            transient = {"verifier": await self._verifier(password)}
        params: dict[str, Any] = {
            "login": new.login,
            "level": (Level.CUSTOM if new.role else new.level).value,
            "role": new.role,
            "expires_at": _text(new.expires_at),
            "addresses": new.addresses,
            "max_clients": new.max_clients,
            "service": new.service,
        }
        if activate:
            params["activate"] = True
        job = await jobs.start(self.context, "grant", found, params, transient=transient, wait_s=wait_s)
        done = await jobs.through(self.context, job)
        if not job.data.get("new_login"):
            password = None  # somebody else has made it meanwhile
        async with self.context.store.read() as connection:
            (access,) = await logins.accesses(connection, tenant=tenant, login=new.login)
        dsn = self.dsn(new.login, tenant, password)
        return Granted(access=access, password=password, dsn=dsn, job=job.id), done.ended

    async def access_revoke(self, tenant: str, login: str, *, wait_s: float = WAIT_S) -> None:
        """Its connections end; a login that may nothing any more is deleted."""
        found = await self.context.store.tenant(tenant)
        if not await self.access_list(tenant=tenant, login=login):
            return
        job = await jobs.start(self.context, "revoke", found, {"login": login}, wait_s=wait_s)
        await jobs.run(self.context, job)

    async def access_rotate(
        self,
        login: str,
        *,
        password: str | None = None,
        overlap_s: float = OVERLAP_S,
        end: bool = False,
        version: int | None = None,
    ) -> Rotated:
        """A new password; the one before it is good for as long as they overlap.

        With `end` there is no new one: the one before it is good no longer.  A service account gets, unseen,
        the one that is made of the configuration's `secret` now.
        """
        found = await self.login_get(login)
        check_version("login", login, found.version, version)
        is_service = found.kind is LoginKind.SERVICE
        if is_service and password is not None:
            raise Failure("invalid", f'the login "{login}" is a service account, which has no password')
        accesses = await self.access_list(login=login)
        tenant = next((one.tenant for one in accesses if one.is_default), login)
        if end:
            compared = {"version": version}
            job = await jobs.start(self.context, "retire", None, {"login": login}, transient=compared)
            await jobs.run(self.context, job)
            return Rotated(login=login, dsn=self.dsn(login, tenant), job=job.id)
        if is_service:
            password = self._service_password(login)
        password = password or random.token_urlsafe(_PASSWORD_BYTES)
        async with self.context.store.read() as connection:
            before = await logins.secrets(connection, found.id)
        # the same salt and count: the exchange is the same until the proof tells which of the two it is
        like = before[0].verifier if before else None
        verifier = await self._verifier(password, like)
        if any(one.verifier == verifier for one in before):
            if is_service:
                raise Failure("invalid", "a service account's is made of `secret`, which is the same still")
            raise Failure("invalid", "that is the password it has")
        params = {"login": login, "overlap_s": overlap_s}
        transient = {"verifier": verifier, "version": version}
        job = await jobs.start(self.context, "rotate", None, params, transient=transient)
        await jobs.run(self.context, job)
        async with self.context.store.read() as connection:
            retires = [one.retires_at for one in await logins.secrets(connection, found.id) if one.retires_at]
        shown = None if is_service else password
        return Rotated(
            login=login,
            password=shown,
            retires_at=retires[0] if retires else None,
            dsn=self.dsn(login, tenant, shown),
            job=job.id,
        )

    async def login_set(
        self,
        name: str,
        *,
        addresses: Sequence[str] | None = None,
        max_clients: int | None = None,
        disabled: bool | None = None,
        expires_at: datetime | Literal["never"] | None = None,
        version: int | None = None,
    ) -> Login:
        """What proxies hold it to; what is None stays as it is."""
        columns: dict[str, Any] = {}
        if addresses is not None:
            columns["addresses"] = networks(addresses) or None
        if max_clients is not None:
            columns["max_clients"] = max_clients
        if disabled is not None:
            columns["disabled"] = disabled
        if expires_at is not None:
            columns["expires_at"] = None if expires_at == "never" else expires_at
        async with self._change() as change:
            login = await logins.need_login(change.connection, name, lock=True)
            check_version("login", name, login.version, version)
            return logins.login_of(await change.update("login", login.id, "login.set", name, columns))

    # --- custom roles

    async def role_put(self, tenant: str, name: str, grants: Mapping[str, Sequence[str]]) -> CustomRole:
        """`grants` are rights on tables, and all that it has."""
        rights = {table: sorted({right.upper() for right in ones}) for table, ones in grants.items()}
        for table, ones in rights.items():
            wrong = set(ones) - TABLE_RIGHTS
            if wrong or not ones:
                hint = f"rights on tables are {', '.join(sorted(TABLE_RIGHTS))}"
                raise Failure(
                    "invalid", f'rights on "{table}": {", ".join(sorted(wrong)) or "none"}', hint=hint
                )
        found = await self.context.store.tenant(tenant)
        job = await jobs.start(self.context, "role", found, {"role": name, "grants": rights}, wait_s=WAIT_S)
        await jobs.run(self.context, job)
        return next(role for role in await self.role_list(tenant) if role.name == name)

    async def role_list(self, tenant: str) -> list[CustomRole]:
        found = await self.context.store.tenant(tenant)
        async with self.context.store.read() as connection:
            return await logins.custom_roles(connection, found.id)

    async def role_delete(self, tenant: str, name: str) -> None:
        found = await self.context.store.tenant(tenant)
        roles = [role for role in await self.role_list(tenant) if role.name == name]
        if roles:
            params = {"role": name, "server_role": roles[0].server_role}
            job = await jobs.start(self.context, "unrole", found, params, wait_s=WAIT_S)
            await jobs.run(self.context, job)

    # --- all in one

    async def tenant_onboard(self, new: NewTenant, access: NewAccess) -> Onboarded:
        """From nothing to a login that works: create, provision, grant, activate.  Repeated, it goes on."""
        self._check_login(access)
        (tenant, spec), _ = await asyncio.gather(self._create(new), self._call(new.cluster))
        if tenant.state not in PROVISIONED:
            tenant = await self._provision(tenant, WAIT_S, spec=spec)
        granted, ended = await self._grant(tenant, access, WAIT_S, activate=True)
        tenant = ended or await self.context.store.tenant(new.name)
        if tenant.state is not State.ACTIVE:  # the login had it already
            tenant = await self.tenant_activate(new.name)
        return Onboarded(tenant=tenant, granted=granted)

    # --- helpers

    async def _call(self, cluster: str | None) -> None:
        """Connects to the cluster ahead of need, where it can be but one.  What is wrong is told later."""
        names = [one.name for one in self.context.config.clusters] if cluster is None else [cluster]
        if len(names) == 1:
            with suppress(Failure):
                async with self.context.admin(names[0]):
                    pass

    async def _verifier(self, password: str, like: str | None = None) -> str:
        if "\0" in password:
            raise Failure("invalid", "the password holds a NUL byte")
        salt, iterations = None, self.context.config.auth.scram_iterations
        if like is not None:
            parsed = parse_verifier(like)
            salt, iterations = parsed.salt, parsed.iterations
        build = partial(build_verifier, password, salt=salt, iterations=iterations)
        # a few milliseconds: less than a thread takes to be made in a process that has had none
        return str(build() if iterations <= _AT_ONCE else await asyncio.to_thread(build))

    def _service_password(self, login: str) -> str:
        secret = self.context.config.secret
        if secret is None:
            raise Failure(
                "invalid",
                "a service account's password on the server is made of the configuration's secret",
                hint="secret: {file: …}, the same for all proxies",
            )
        return server_password(login, secret.reveal())

    def _check_login(self, new: NewAccess) -> None:
        if any(user.name == new.login for user in self.context.config.users):
            raise Failure("exists", f'there is a login "{new.login}" in the configuration file')
        if "." in new.login or new.login.startswith("pg_") or new.login in ("public", "none"):
            hint = "without dots and pg_, and not public or none"
            raise Failure("invalid", f'a login can\'t be called "{new.login}"', hint=hint)
        networks(new.addresses)

    def dsn(self, login: str, tenant: str, password: str | None = None) -> str:
        """Through the proxy."""
        secret = f":{quote(password, safe='')}" if password is not None else ""
        return f"postgresql://{quote(login, safe='')}{secret}@{self._endpoint()}/{quote(tenant, safe='')}"

    def _endpoint(self) -> str:
        listen = self.context.config.listen
        if self.context.config.catalog.endpoint is not None:
            return self.context.config.catalog.endpoint
        host = next((one for one in listen.addresses if one not in ("*", "0.0.0.0", "::")), "localhost")
        return f"[{host}]:{listen.port}" if ":" in host else f"{host}:{listen.port}"


def networks(addresses: Sequence[str]) -> list[str]:
    """Addresses and ranges as PostgreSQL's cidr takes them; Failure (invalid)."""
    try:
        return [str(ipaddress.ip_network(address)) for address in addresses]
    except ValueError as error:
        raise Failure("invalid", str(error), hint="an address, or a range such as 10.0.0.0/8") from None


def _is_as_asked(access: Access, new: NewAccess) -> bool:
    level = Level.CUSTOM if new.role else new.level
    return (access.level, access.role, access.expires_at) == (level, new.role, new.expires_at)


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
