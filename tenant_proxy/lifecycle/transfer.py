"""Jobs that export a tenant to an archive, and import one.

Paths are of the machine that the job runs on; a pass phrase is never written with a job, so whoever goes on
with one of an encrypted archive has to be told it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tenant_proxy.catalog import logins
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import CustomRole, Tenant
from tenant_proxy.catalog.states import PROVISIONED, conflict
from tenant_proxy.catalog.store import Change
from tenant_proxy.lifecycle import export, provision, restore, rights
from tenant_proxy.lifecycle.archive import Manifest
from tenant_proxy.lifecycle.estates import (
    database_of,
    estate_of,
    failing,
    reporting,
    roles_of,
    settings_of,
)
from tenant_proxy.lifecycle.facts import read_facts
from tenant_proxy.lifecycle.jobs import Kind, Run, Step
from tenant_proxy.lifecycle.sql import fitting, ident, literal, script

# --- export -----------------------------------------------------------------------------------------


async def _export_steps(run: Run) -> Sequence[Step]:
    return [Step("archive", do=_write)]


async def _begin_export(run: Run, change: Change) -> None:
    tenant = await change.tenant(run.job.tenant_name)
    if tenant.state not in PROVISIONED and tenant.provisioned_at is None:
        raise conflict(tenant.name, tenant.state, "it has nothing to export")


async def _write(run: Run) -> None:
    tenant = await run.tenant()
    path = Path(run.params["path"])
    if not path.parent.is_dir():
        raise Failure("invalid", f"there is no directory {path.parent}")
    manifest = await write_archive(run, tenant, path, run.context.secrets.get(run.job.id))
    run.result = {
        "path": str(path),
        "tables": len(manifest.tables),
        "rows": sum(table.rows for table in manifest.tables),
        "notes": manifest.notes,
        "sha256": {name: known["sha256"] for name, known in manifest.files.items()},
    }


async def write_archive(run: Run, tenant: Tenant, path: Path, pass_phrase: str | None) -> Manifest:
    context = run.context
    async with context.store.read() as connection:
        access = [
            one.model_dump(mode="json", exclude={"tenant", "pending"})
            for one in await logins.accesses(connection, tenant=tenant.name)
        ]
        custom = [
            one.model_dump(mode="json", include={"name", "server_role", "grants"})
            for one in await logins.custom_roles(connection, tenant.id)
        ]
    async with failing(tenant.cluster), reporting(run) as progress:
        return await export.export(
            database_of(context, tenant),
            await estate_of(context, tenant),
            path,
            tenant=tenant.name,
            cluster=tenant.cluster,
            settings=settings_of(tenant),
            access=access,
            custom_roles=custom,
            standard=(tenant.readwrite_role, tenant.readonly_role),
            pass_phrase=pass_phrase,
            progress=progress,
        )


async def _exported(run: Run, change: Change) -> None:
    await change.audit("tenant.export", "tenant", run.job.tenant_name, None, {"path": run.params["path"]})


KIND_EXPORT: Final = Kind("export", _export_steps, begin=_begin_export, end=_exported)


# --- import -----------------------------------------------------------------------------------------


async def _import_steps(run: Run) -> Sequence[Step]:
    return [
        *await provision.bare_steps(run),
        Step("custom roles", do=_make_custom_roles, undo=drop_custom_roles, unrecord=forget_custom_roles),
        Step("restore", do=_restore),
    ]


async def make_custom_roles(run: Run, tenant: Tenant, wanted: Sequence[Mapping[str, Any]]) -> None:
    """In the catalog and on the cluster, without rights: those are in the archive."""
    made: dict[str, str] = {}
    for one in wanted:
        async with run.context.store.change(run.context.actor, run.job.id) as change:
            known = {role.name: role for role in await logins.custom_roles(change.connection, tenant.id)}
            if one["name"] in known:
                role = known[one["name"]]
            else:
                server_role = fitting(tenant.owner_role.removesuffix("_owner"), f"_{one['name']}")
                columns = {
                    "tenant": tenant.id,
                    "name": one["name"],
                    "server_role": server_role,
                    "grants": one["grants"],
                }
                role = CustomRole.of(await change.insert("custom_role", columns))
                await change.audit(
                    "role.create", "role", f"{tenant.name}.{role.name}", None, {"grants": role.grants}
                )
        made[str(one["server_role"])] = role.server_role
    ours = rights.mark(tenant)
    async with run.context.admin(tenant.cluster, tenant.database) as connection:
        facts = await read_facts(connection, made.values())
        for name in made.values():
            # "eu_owner" of tenant "acme" is also the owner of a tenant "acme_eu"
            if name in rights.roles_of(tenant) or facts.roles.get(name, ours) != ours:
                raise Failure(
                    "exists",
                    f'there is a role "{name}" on cluster "{tenant.cluster}" already',
                    hint="a custom role of this name can't come along",
                )
            if name not in facts.roles:
                async with connection.transaction():
                    await connection.execute(
                        f"CREATE ROLE {ident(name)} NOLOGIN; COMMENT ON ROLE {ident(name)} IS {literal(ours)}"
                    )
    run.data["custom_roles"] = made


async def _make_custom_roles(run: Run) -> None:
    await make_custom_roles(run, await run.tenant(), run.params["custom_roles"])


async def drop_custom_roles(run: Run) -> None:
    tenant = await run.tenant()
    async with run.context.admin(tenant.cluster, tenant.database) as connection:
        facts = await read_facts(connection, run.data.get("custom_roles", {}).values())
        for name, found in facts.roles.items():
            if found == rights.mark(tenant):
                await connection.execute(script(rights.drop_custom_role(name, facts)))


async def forget_custom_roles(run: Run, change: Change) -> None:
    await change.connection.execute("DELETE FROM custom_role WHERE tenant = $1", run.job.tenant)


async def _restore(run: Run) -> None:
    await restore_archive(
        run, Path(run.params["path"]), run.context.secrets.get(run.job.id), bool(run.params.get("accept"))
    )


async def restore_archive(run: Run, path: Path, pass_phrase: str | None, accept: bool) -> None:
    tenant = await run.tenant()
    async with failing(tenant.cluster), reporting(run) as progress:
        database = database_of(run.context, tenant)
        manifest = restore.read_manifest(path, pass_phrase)
        async with database.connected() as connection:
            filled = await connection.fetchval(
                "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
                " ON n.oid = c.relnamespace WHERE n.nspname = $1",
                tenant.schema_,
            )
        run.result = {
            "tables": len(manifest.tables),
            "rows": sum(table.rows for table in manifest.tables),
            "access": manifest.access,
        }
        if filled:
            return  # the schema was made for this, and filled in one transaction: it is all there
        done = await restore.restore(
            database,
            path,
            schema=tenant.schema_,
            roles=mapping(manifest, tenant, run.data.get("custom_roles", {})),
            dropped=strangers(manifest),
            make_roles=False,
            pass_phrase=pass_phrase,
            accept=accept,
            progress=progress,
        )
    run.result |= {"findings": [finding._asdict() for finding in done.findings], "notes": done.notes}


def mapping(manifest: Manifest, tenant: Tenant, custom: Mapping[str, str]) -> dict[str, str]:
    """The archive's roles to the tenant's."""
    now = roles_of(tenant)
    pairs = zip(_standard(manifest), (now.owner, now.readwrite, now.readonly), strict=True)
    return dict(custom) | {name: role for name, role in pairs if name is not None and role is not None}


def _standard(manifest: Manifest) -> tuple[str | None, ...]:
    source = manifest.source
    return source["owner"], source.get("readwrite"), source.get("readonly")


def strangers(manifest: Manifest) -> list[str]:
    """Roles of the archive that are neither the tenant's three nor custom roles."""
    known = {*_standard(manifest), *(str(one["server_role"]) for one in manifest.custom_roles)}
    return [role for role in manifest.source["roles"] if role not in known]


async def _imported(run: Run, change: Change) -> None:
    await provision.ended(run, change)
    await change.audit(
        "tenant.import",
        "tenant",
        run.job.tenant_name,
        None,
        {"path": run.params["path"], "rows": run.result.get("rows")},
    )


KIND_IMPORT: Final = Kind(
    "import", _import_steps, begin=provision.begun, end=_imported, undone=provision.was_undone
)
