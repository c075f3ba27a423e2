"""Jobs about logins: what they may, their secrets, and custom roles.

The catalog says what is to be, a row at a time: a right that is being granted is `pending` there.  `settle`
then makes a cluster as the catalog says, under a lock there, so that jobs about one login at once come to the
same end whoever is first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tenant_proxy.catalog import logins
from tenant_proxy.catalog.failures import Failure, not_found
from tenant_proxy.catalog.records import CustomRole, Login, LoginKind, Tenant
from tenant_proxy.catalog.states import PROVISIONED, State, conflict
from tenant_proxy.catalog.store import Change, check_version, plain
from tenant_proxy.config.opaque import opaque_name
from tenant_proxy.lifecycle import rights
from tenant_proxy.lifecycle.facts import read_facts, read_login_facts
from tenant_proxy.lifecycle.jobs import Kind, Run, Step
from tenant_proxy.lifecycle.rehearsal import transaction_under
from tenant_proxy.lifecycle.sql import fitting, script

if TYPE_CHECKING:
    from tenant_proxy.config.schema import Config
    from tenant_proxy.lifecycle.context import Connection, Context

#: jobs about one login wait for each other on a cluster: "tp_l" as a number, the login's id beside it
_LOCK: Final = int.from_bytes(b"tp_l", "big")


def server_users(config: Config, login: str) -> tuple[str, str]:
    """The roles that a login may have on a cluster; they take turns when its password rotates."""
    base = login
    if config.opaque_names and config.secret is not None:
        base = opaque_name("role", login, config.secret.reveal())
    return fitting(base), fitting(base, "~2")


def mark(login: Login) -> str:
    return f"tenant_proxy:login:{login.id}:{login.created_at:%Y%m%d%H%M%S%f}"


async def settle(context: Context, login: Login, cluster: str) -> None:
    """Makes the login on the cluster what the catalog says it is."""
    users = server_users(context.config, login.name)
    key = (_LOCK, login.id % 2**31)
    lost: list[str] = []
    async with context.admin(cluster) as connection:
        try:
            async with transaction_under(connection, f"SELECT pg_catalog.pg_advisory_xact_lock{key}") as todo:
                # read under the lock: whoever holds it has seen what was decided before
                wanted = await _wanted(context, login, cluster)
                facts = await read_login_facts(connection, {*users, *wanted.verifiers})
                _check_nobodys(cluster, wanted, facts)
                lost = [user for user in facts.users if rights.lost(user, wanted, facts)]
                if lost:  # it is held on to behind the transaction
                    await connection.fetchval("SELECT pg_catalog.pg_advisory_lock($1, $2)", *key)
                todo += rights.settle_login(wanted, lost, facts)
            if lost:  # once nobody can come back as what it was
                await connection.execute(rights.end_backends(lost))
                gone = [user for user in lost if user not in wanted.verifiers]
                await _execute(connection, rights.drop_logins(gone))
        finally:
            if lost:
                await connection.fetchval("SELECT pg_catalog.pg_advisory_unlock($1, $2)", *key)


async def _execute(connection: Connection, statements: Sequence[str]) -> None:
    if statements:  # they are one message, and so one transaction
        await connection.execute(script(statements))


async def _wanted(context: Context, login: Login, cluster: str) -> rights.ServerLogin:
    configured = context.cluster(cluster)
    async with context.store.read() as catalog:
        secrets, everywhere = await logins.standing(catalog, login.id)
    placed = [one for one in everywhere if one.cluster == cluster]
    places = [
        rights.Place(one.database or configured.database, one.database is not None, one.schema, one.role)
        for one in placed
    ]
    limits = [one.connection_limit for one in placed]
    expiries = [one.expires_at for one in placed]
    return rights.ServerLogin(
        mark(login),
        secrets if places else {},
        places,
        sum(limits) if all(limits) else 0,
        _first(login.expires_at, None if None in expiries else _last(expiries)),
    )


def _first(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _last(times: Iterable[datetime | None]) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def _check_nobodys(cluster: str, wanted: rights.ServerLogin, facts: rights.LoginFacts) -> None:
    for user in wanted.verifiers:
        if facts.users.get(user, wanted.mark) != wanted.mark:
            raise Failure(
                "exists",
                f'there is a role "{user}" on cluster "{cluster}" that is not of this catalog',
                hint="grant to a login of another name",
            )


async def _login(run: Run) -> Login:
    if run.made is not None:
        return logins.login_of(run.made)
    async with run.context.store.read() as connection:
        return await logins.need_login(connection, run.params["login"])


async def _settle(run: Run) -> None:
    """On the tenant's cluster."""
    await settle(run.context, await _login(run), (await run.placed()).cluster)


async def _settle_everywhere(run: Run) -> None:
    login = await _login(run)
    async with run.context.store.read() as connection:
        clusters = sorted({place.cluster for place in await logins.places(connection, login.id)})
    for cluster in clusters:
        await settle(run.context, login, cluster)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


# --- grant ------------------------------------------------------------------------------------------


async def _begin_grant(run: Run, change: Change) -> None:
    params = run.params
    tenant = await change.tenant(run.job.tenant_name)
    if tenant.state not in PROVISIONED:
        raise conflict(tenant.name, tenant.state, "logins are granted a tenant that is provisioned")
    login = None
    if change.reads or not run.transient:  # whoever has made a secret has looked
        login = await logins.find_login(change.connection, params["login"], lock=True)
    if login is None:
        columns: dict[str, Any] = {
            "name": params["login"],
            **({"addresses": params["addresses"]} if params["addresses"] else {}),
            "max_clients": params["max_clients"],
        }
        if params.get("service"):
            # its tokens are told by the claim that names the login
            columns |= {"kind": LoginKind.SERVICE.value, "claims": {}}
        await _make_login(run, change, tenant, columns)
    else:
        await _put_access(run, change, tenant, login)


#: of a login that is made by the same statement; the parameters are those behind the login's
_ITS_FIRST: Final = """,
secret AS (INSERT INTO login_secret (login, slot, verifier, server_user)
           SELECT id, 0, ${0}::text, ${1}::text FROM changed),
granted AS (INSERT INTO access (login, tenant, pending, is_default, level, custom_role, expires_at)
            SELECT id, ${2}::bigint, true, true, ${3}::text, ${4}::bigint, ${5}::timestamptz FROM changed)"""


async def _make_login(run: Run, change: Change, tenant: Tenant, columns: dict[str, Any]) -> None:
    """With its secret and its access; the log is locked for no longer than it takes."""
    name, wanted = columns["name"], await _asked(run, change, tenant)
    shown = columns | {"addresses": run.params["addresses"]}
    values = [
        run.transient["verifier"],
        server_users(run.context.config, name)[0],
        tenant.id,
        wanted["level"],
        wanted["custom_role"],
        wanted["expires_at"],
    ]
    await change.insert(
        "login",
        columns,
        returning=logins.COLUMNS,
        said=change.said("login.create", "login", name, None, {**plain(shown, shown), "secret": "set"}),
        also=(_ITS_FIRST, values),
    )
    run.data["new_login"] = True


async def _asked(run: Run, change: Change, tenant: Tenant) -> dict[str, Any]:
    params = run.params
    custom = await _custom_role(change, tenant, params["role"]) if params["level"] == "custom" else None
    return {
        "level": params["level"],
        "custom_role": None if custom is None else custom.id,
        "expires_at": _time(params["expires_at"]),
    }


async def _put_access(run: Run, change: Change, tenant: Tenant, login: Login) -> None:
    wanted = await _asked(run, change, tenant)
    before = await logins.find_access(change.connection, login.id, tenant.id)
    if before is None:
        first = not await change.connection.fetchval("SELECT true FROM access WHERE login = $1", login.id)
        await change.insert(
            "access",
            {"login": login.id, "tenant": tenant.id, "pending": True, "is_default": first, **wanted},
        )
    else:
        run.data["before"] = plain(before, ("level", "custom_role", "expires_at"))
        await _set_access(change, login, tenant, wanted)


async def _set_access(change: Change, login: Login, tenant: Tenant, columns: dict[str, Any]) -> None:
    await change.connection.execute(
        "UPDATE access SET level = $3, custom_role = $4, expires_at = $5 WHERE login = $1 AND tenant = $2",
        login.id,
        tenant.id,
        columns["level"],
        columns["custom_role"],
        columns["expires_at"],
    )


async def _custom_role(change: Change, tenant: Tenant, name: str) -> CustomRole:
    for role in await logins.custom_roles(change.connection, tenant.id):
        if role.name == name:
            return role
    hint = f"it is owner, readwrite, readonly or one of these: tenant-proxy access role {tenant.name}"
    return not_found("role", name, hint=hint)


async def _granted(run: Run, change: Change) -> None:
    tenant = await change.tenant(run.job.tenant_name)
    login = run.params["login"]
    shown = {key: run.params[key] for key in ("level", "role", "expires_at") if run.params[key]}
    before = run.data.get("before")
    await change.changed(
        "UPDATE access SET pending = false FROM login WHERE login.name = $1::text AND access.login = login.id"
        " AND access.tenant = $2 AND access.pending RETURNING true",
        [login, tenant.id],
        change.said("access.grant", "access", f"{login} on {tenant.name}", before, shown),
    )
    if run.params.get("activate") and tenant.state is State.READY:
        now = await change.now()
        await change.update_tenant(tenant, "tenant.activate", state="active", activated_at=now)


async def _ungrant(run: Run) -> None:
    """The catalog first, then the cluster as it says."""
    async with run.context.store.change(run.job.actor, run.job.id) as change:
        tenant = await run.tenant()
        login = await logins.find_login(change.connection, run.params["login"], lock=True)
        if login is None:
            return
        before = run.data.get("before")
        if before is not None:
            columns = {**before, "expires_at": _time(before["expires_at"])}
            await _set_access(change, login, tenant, columns)
        else:
            await change.connection.execute(
                "DELETE FROM access WHERE login = $1 AND tenant = $2", login.id, tenant.id
            )
    await settle(run.context, login, tenant.cluster)


async def _grant_undone(run: Run, change: Change) -> None:
    if run.data.get("new_login"):
        await drop_unused(change, run.params["login"])


async def drop_unused(change: Change, name: str) -> None:
    """A login that may nothing any more is none."""
    login = await logins.find_login(change.connection, name, lock=True)
    if login is None or await change.connection.fetchval(
        "SELECT true FROM access WHERE login = $1", login.id
    ):
        return
    await change.connection.execute("DELETE FROM login WHERE id = $1", login.id)
    await change.audit("login.delete", "login", name)


async def _grant_steps(run: Run) -> Sequence[Step]:
    return [Step("server", do=_settle, undo=_ungrant)]


KIND_GRANT: Final = Kind(
    "grant", _grant_steps, begin=_begin_grant, end=_granted, undone=_grant_undone, together=True
)


# --- revoke -----------------------------------------------------------------------------------------


async def _begin_revoke(run: Run, change: Change) -> None:
    """Proxies let it in no more from here."""
    tenant = await change.tenant(run.job.tenant_name)
    login = await logins.need_login(change.connection, run.params["login"], lock=True)
    row = await logins.find_access(change.connection, login.id, tenant.id)
    if row is None:
        not_found("access", f"{login.name} on {tenant.name}")
    await change.connection.execute(
        "DELETE FROM access WHERE login = $1 AND tenant = $2", login.id, tenant.id
    )
    if row["is_default"]:
        await change.connection.execute(
            """UPDATE access SET is_default = true WHERE (login, tenant) IN
                (SELECT login, tenant FROM access WHERE login = $1 ORDER BY created_at LIMIT 1)""",
            login.id,
        )
    before = plain(row, ("level", "expires_at"))
    await change.audit("access.revoke", "access", f"{login.name} on {tenant.name}", before, None)


async def _revoked(run: Run, change: Change) -> None:
    await drop_unused(change, run.params["login"])


async def _revoke_steps(run: Run) -> Sequence[Step]:
    return [Step("server", do=_settle)]


KIND_REVOKE: Final = Kind("revoke", _revoke_steps, begin=_begin_revoke, end=_revoked, undoes=False)


# --- passwords --------------------------------------------------------------------------------------


async def _compared(run: Run, change: Change) -> Login:
    """The login, locked, and of the version that was read before; from here on it has another, so that of
    two who have read the same only one changes its password.
    """
    login = await logins.need_login(change.connection, run.params["login"], lock=True)
    check_version("login", login.name, login.version, run.transient.get("version"))
    await change.connection.execute("UPDATE login SET updated_at = now() WHERE id = $1", login.id)
    return login


async def _begin_rotate(run: Run, change: Change) -> None:
    login = await _compared(run, change)
    found = await logins.secrets(change.connection, login.id)
    if len(found) > 1:
        raise Failure(
            "busy",
            f'the password of login "{login.name}" is being rotated already',
            detail="the one before it is good until "
            + ", ".join(f"{one.retires_at:%Y-%m-%d %H:%M:%S} UTC" for one in found if one.retires_at),
            hint=f"end that first: tenant-proxy access rotate {login.name} --end",
        )
    slot = 1 - found[0].slot if found else 0
    await change.insert(
        "login_secret",
        {
            "login": login.id,
            "slot": slot,
            "verifier": run.transient["verifier"],
            "server_user": server_users(run.context.config, login.name)[slot],
            "pending": True,
        },
    )
    run.data["slot"] = slot


async def _rotated(run: Run, change: Change) -> None:
    login = await logins.need_login(change.connection, run.params["login"], lock=True)
    await change.connection.execute(
        """UPDATE login_secret SET retires_at = now() + make_interval(secs => $2)
            WHERE login = $1 AND NOT pending""",
        login.id,
        float(run.params["overlap_s"]),
    )
    await change.connection.execute("UPDATE login_secret SET pending = false WHERE login = $1", login.id)
    await change.audit("login.rotate", "login", login.name, None, {"overlap_s": run.params["overlap_s"]})


async def _unrotate(run: Run) -> None:
    async with run.context.store.change(run.job.actor, run.job.id) as change:
        login = await logins.need_login(change.connection, run.params["login"], lock=True)
        await change.connection.execute("DELETE FROM login_secret WHERE login = $1 AND pending", login.id)
    await _settle_everywhere(run)


async def _rotate_steps(run: Run) -> Sequence[Step]:
    return [Step("servers", do=_settle_everywhere, undo=_unrotate)]


KIND_ROTATE: Final = Kind("rotate", _rotate_steps, begin=_begin_rotate, end=_rotated)


async def _begin_retire(run: Run, change: Change) -> None:
    login = await _compared(run, change)
    gone = await change.connection.fetch(
        "DELETE FROM login_secret WHERE login = $1 AND retires_at IS NOT NULL RETURNING server_user", login.id
    )
    if gone:
        await change.audit("login.retire", "login", login.name)


async def _retire_steps(run: Run) -> Sequence[Step]:
    return [Step("servers", do=_settle_everywhere)]


KIND_RETIRE: Final = Kind("retire", _retire_steps, begin=_begin_retire, undoes=False)


# --- custom roles -----------------------------------------------------------------------------------


async def _begin_role(run: Run, change: Change) -> None:
    tenant = await change.tenant(run.job.tenant_name)
    if tenant.state not in PROVISIONED:
        raise conflict(tenant.name, tenant.state)
    name, grants = run.params["role"], run.params["grants"]
    for role in await logins.custom_roles(change.connection, tenant.id):
        if role.name == name:
            run.data["before"] = role.grants
            await change.update(
                "custom_role", role.id, "role.set", f"{name} of {tenant.name}", {"grants": grants}
            )
            return
    server_role = fitting(tenant.name, f"_{name}")
    if server_role in rights.roles_of(tenant):
        raise Failure("invalid", f'a role can\'t be called "{name}"')
    columns = {"tenant": tenant.id, "name": name, "server_role": server_role, "grants": grants}
    await change.insert("custom_role", columns)
    await change.audit("role.create", "custom_role", f"{name} of {tenant.name}", None, {"grants": grants})


async def _put_role(run: Run) -> None:
    tenant = await run.tenant()
    async with run.context.store.read() as connection:
        found = await logins.custom_roles(connection, tenant.id)
    (role,) = (one for one in found if one.name == run.params["role"])
    service = run.context.cluster(tenant.cluster).service.user
    async with run.context.admin(tenant.cluster, tenant.database) as connection:
        async with connection.transaction():
            facts = await read_facts(connection, [role.server_role])
            if facts.roles.get(role.server_role, rights.mark(tenant)) != rights.mark(tenant):
                raise Failure("exists", f'there is a role "{role.server_role}" on the cluster already')
            try:
                await connection.execute(script(rights.put_custom_role(tenant, role, facts, service)))
            except asyncpg.UndefinedTableError as error:
                raise Failure("invalid", str(error).partition("\n")[0], hint="make the table first") from None


async def _unput_role(run: Run) -> None:
    tenant = await run.tenant()
    name = run.params["role"]
    before = run.data.get("before")
    async with run.context.store.change(run.job.actor, run.job.id) as change:
        found = [one for one in await logins.custom_roles(change.connection, tenant.id) if one.name == name]
        if found and before is not None:
            await change.update(
                "custom_role", found[0].id, "role.set", f"{name} of {tenant.name}", {"grants": before}
            )
    if before is not None:
        await _put_role(run)
    elif found:
        await _drop_server_role(run, tenant, found[0].server_role)


async def _role_undone(run: Run, change: Change) -> None:
    if "before" not in run.data:
        await change.connection.execute(
            "DELETE FROM custom_role WHERE tenant = $1 AND name = $2", run.job.tenant, run.params["role"]
        )


async def _drop_server_role(run: Run, tenant: Tenant, role: str) -> None:
    async with run.context.admin(tenant.cluster, tenant.database) as connection:
        async with connection.transaction():
            facts = await read_facts(connection, [role])
            if facts.roles.get(role) == rights.mark(tenant):
                await connection.execute(script(rights.drop_custom_role(role, facts)))


async def _role_steps(run: Run) -> Sequence[Step]:
    return [Step("server", do=_put_role, undo=_unput_role)]


KIND_ROLE: Final = Kind("role", _role_steps, begin=_begin_role, undone=_role_undone)


async def _drop_role(run: Run) -> None:
    await _drop_server_role(run, await run.tenant(), run.params["server_role"])


async def _begin_unrole(run: Run, change: Change) -> None:
    """Refused by the catalog while a login has it."""
    tenant = await change.tenant(run.job.tenant_name)
    await change.connection.execute(
        "DELETE FROM custom_role WHERE tenant = $1 AND name = $2", tenant.id, run.params["role"]
    )
    await change.audit("role.delete", "custom_role", f"{run.params['role']} of {tenant.name}")


async def _unrole_steps(run: Run) -> Sequence[Step]:
    return [Step("server", do=_drop_role)]


KIND_UNROLE: Final = Kind("unrole", _unrole_steps, begin=_begin_unrole, undoes=False)
