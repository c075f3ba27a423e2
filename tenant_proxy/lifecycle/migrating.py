"""The job that migrates many tenants.

Who has had what is in the ledgers beside them, so a job that was killed finds out where it was; the catalog's
copy of that is for reports.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Tenant
from tenant_proxy.catalog.states import PROVISIONED
from tenant_proxy.lifecycle import migrations
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.estates import database_of, database_on, reporting
from tenant_proxy.lifecycle.fleet import Member, Options, Outcome, Report
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.jobs import Kind, Run, Step
from tenant_proxy.lifecycle.migrations import Limits, Migration, MigrationError
from tenant_proxy.lifecycle.records import Standing

#: the label of tenants that go first
CANARY: Final = "canary"
#: failed tenants that are named at once
_SHOWN: Final = 5
_BUSY: Final = "SELECT DISTINCT tenant FROM job WHERE state IN ('running', 'undoing') AND tenant IS NOT NULL"


async def members(
    context: Context,
    *,
    tenants: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    canaries: Sequence[str] = (),
) -> list[Member]:
    """Tenants that have objects, and first of all the templates that plans name."""
    found = await context.store.tenants(
        states=sorted(PROVISIONED), labels=labels, names=list(tenants) or None
    )
    unknown = set(tenants) - {tenant.name for tenant in found}
    if unknown:
        raise Failure("not_found", f'there is no provisioned tenant "{min(unknown)}"')
    result = [
        Member(
            tenant.name,
            database_of(context, tenant),
            Estate(tenant.schema_, tenant.owner_role),
            tenant.name in canaries or tenant.labels.get(CANARY) == "true",
            tenant.id,
        )
        for tenant in found
    ]
    if tenants or labels:
        return result
    return [*await _templates(context, found), *result]


async def _templates(context: Context, tenants: Sequence[Tenant]) -> list[Member]:
    """New tenants begin where their template is, so it is migrated with them, and before them."""
    names = {plan.spec.template for plan in await context.store.plans()} - {None}
    result = []
    for name in sorted(str(name) for name in names):
        for cluster in context.config.clusters:
            if cluster.admin.user is None or any(
                tenant.schema_ == name and tenant.cluster == cluster.name for tenant in tenants
            ):
                continue
            async with context.admin(cluster.name) as connection:
                owner = await connection.fetchval(
                    "SELECT r.rolname::text FROM pg_catalog.pg_namespace n"
                    "  JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner WHERE n.nspname = $1",
                    name,
                )
            if owner is not None:
                member = Member(
                    f"(template {name} on {cluster.name})",
                    database_on(context, cluster.name),
                    Estate(name, owner),
                    canary=True,
                )
                result.append(member)
    return result


async def standings(
    context: Context, directory: str, tenants: Sequence[str] = ()
) -> tuple[list[Standing], list[Migration]]:
    found = _read(directory)
    return await migrations.standings(await members(context, tenants=tenants), found), found


def _read(directory: str) -> list[Migration]:
    try:
        return migrations.read(Path(directory))
    except MigrationError as error:
        raise Failure("invalid", str(error)) from error


async def _steps(run: Run) -> Sequence[Step]:
    return [Step("migrate", do=_migrate)]


async def _migrate(run: Run) -> None:
    """Parameters: `what` (up, down, exec), `directory` or `command`, and options."""
    params = run.params
    all_of_them = await members(
        run.context,
        tenants=params.get("tenants", ()),
        labels=params.get("labels"),
        canaries=params.get("canaries", ()),
    )
    async with run.context.store.read() as connection:
        busy = {row["tenant"] for row in await connection.fetch(_BUSY)}
    chosen = [one for one in all_of_them if one.number not in busy]
    rehearsal = run.context.rehearsal
    options = Options(
        # what is shown is shown in order
        parallel=params.get("parallel", 8) if rehearsal is None else 1,
        stop_at=params.get("stop_at", 0.0),
        retries=params.get("retries", 5),
    )
    limits = Limits(params.get("lock_timeout_ms", 2_000), params.get("statement_timeout_ms", 0))
    began = time.monotonic()
    async with reporting(run) as progress:
        count = 0

        def done(outcome: Outcome, total: int) -> None:
            nonlocal count
            count += 1
            progress("tenants", count, total)

        report = await _run(run, chosen, options, limits, done)
    skipped = [one.tenant for one in all_of_them if one.number in busy]
    run.result = migrations.as_json(report) | {
        "busy": skipped,
        "took_s": round(time.monotonic() - began, 3),
    }
    if params["what"] != "exec":
        await _copy_to_catalog(run.context, chosen, params["directory"])
    if report.of("failed") or report.stopped:
        raise _failure(report, run.job.id, params["what"])


def _failure(report: Report, job: int, what: str) -> Failure:
    failed, left = report.of("failed"), len(report.left)
    message = f"{_tenants(len(failed))} failed"
    if left:
        message += f" and {_tenants(left)} {'were' if left > 1 else 'was'} not tried: {report.stopped}"
    shown = [f"{one.tenant}: {one.error}" for one in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        shown.append(f"and {len(failed) - _SHOWN} more, in what `tenant-proxy job show {job}` shows")
    return Failure(
        "refused",
        message,
        detail="\n".join(shown),
        hint="mend it and run it again: "
        + (
            "the tool has to know what a tenant has had"
            if what == "exec"
            else "those that have it already are passed over"
        ),
    )


def _tenants(count: int) -> str:
    return f"{count} tenant{'' if count == 1 else 's'}"


async def _run(run: Run, chosen: list[Member], options: Options, limits: Limits, done: Any) -> Report:
    params = run.params
    try:
        if params["what"] == "exec":
            return await migrations.execute(
                chosen, params["command"], options, timeout_s=params.get("timeout_s"), on_done=done
            )
        found = _read(params["directory"])
        if params["what"] == "down":
            return await migrations.down(chosen, found, options, limits, to=params["to"], on_done=done)
        return await migrations.up(chosen, found, options, limits, to=params.get("to"), on_done=done)
    except MigrationError as error:
        raise Failure("conflict", str(error)) from error


async def _copy_to_catalog(context: Context, chosen: Sequence[Member], directory: str) -> None:
    found = {one.version: one for one in _read(directory)}
    rows, numbers = [], []
    by_name = {one.tenant: one.number for one in chosen if one.number is not None}
    for standing in await migrations.standings(chosen, list(found.values())):
        number = by_name.get(standing.tenant)
        if number is None:
            continue
        numbers.append(number)
        rows += [
            (number, str(version), bytes.fromhex(one.checksum))
            for version, one in found.items()
            if version not in standing.pending
        ]
    async with context.store.read() as connection, connection.transaction():
        await connection.execute("DELETE FROM tenant_migration WHERE tenant = ANY ($1::bigint[])", numbers)
        await connection.executemany(
            "INSERT INTO tenant_migration (tenant, version, checksum) VALUES ($1, $2, $3)", rows
        )


KIND_MIGRATE: Final = Kind("migrate", _steps, undoes=False)
