"""tenant-proxy migrate …: versioned SQL, or any tool, over all tenants."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from tenant_proxy.cli.output import print_json
from tenant_proxy.cli.progress import watched
from tenant_proxy.cli.town import (
    DryRunOption,
    JsonOption,
    LabelOption,
    PlaceOption,
    YesOption,
    ask,
    complete_tenant,
    confirm,
    pairs,
    print_table,
    say,
    seconds,
    table,
)

migrate_app = typer.Typer(
    name="migrate", help="Versioned SQL, or any tool, over all tenants.", no_args_is_help=True
)

DirectoryOption = Annotated[
    Path,
    typer.Option(
        "--directory", "-d", metavar="DIR", help="Of V001__name.up.sql …", envvar="TENANT_PROXY_MIGRATIONS"
    ),
]
TenantsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tenant",
        "-t",
        metavar="TENANT",
        help="Only this; may be given again.",
        autocompletion=complete_tenant,
    ),
]
ParallelOption = Annotated[int, typer.Option("--parallel", "-p", min=1, max=64, help="Tenants at once.")]
CanaryOption = Annotated[
    list[str] | None,
    typer.Option("--canary", metavar="TENANT", help="Goes first, as do those labelled canary=true."),
]
StopOption = Annotated[
    str,
    typer.Option(
        "--stop-at",
        metavar="SHARE",
        help="Begins nobody else once more failed: 5%, of those tried, or of 20 while they are fewer.",
    ),
]
LockOption = Annotated[
    str, typer.Option("--lock-timeout", metavar="TIME", help="Waits for locks, then tries again later.")
]
RetriesOption = Annotated[int, typer.Option("--retries", min=0, max=100)]
StatementOption = Annotated[
    str | None, typer.Option("--statement-timeout", metavar="TIME", help="For each statement.")
]


@migrate_app.command()
def up(
    config: PlaceOption,
    directory: DirectoryOption,
    to: Annotated[int | None, typer.Option("--to", metavar="VERSION", help="No further.")] = None,
    tenant: TenantsOption = None,
    label: LabelOption = None,
    canary: CanaryOption = None,
    parallel: ParallelOption = 8,
    stop_at: StopOption = "0%",
    lock_timeout: LockOption = "2s",
    statement_timeout: StatementOption = None,
    retries: RetriesOption = 5,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Gives every tenant the versions that it lacks.  Begun again it goes on where it was.

    Each version is one transaction.  Templates of plans and canaries go first; unless all of them are well,
    nobody else is begun.
    """
    _run(
        config,
        "up",
        as_json,
        dry_run,
        directory=str(directory.absolute()),
        to=to,
        tenants=tenant,
        labels=pairs(label) or None,
        canaries=canary,
        parallel=parallel,
        stop_at=_share(stop_at),
        retries=retries,
        lock_timeout_ms=round(seconds(lock_timeout) * 1000),
        statement_timeout_ms=_milliseconds(statement_timeout),
    )


@migrate_app.command()
def down(
    config: PlaceOption,
    directory: DirectoryOption,
    to: Annotated[int, typer.Option("--to", metavar="VERSION", help="What is newer is undone.")],
    tenant: TenantsOption = None,
    label: LabelOption = None,
    parallel: ParallelOption = 8,
    stop_at: StopOption = "0%",
    lock_timeout: LockOption = "2s",
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Undoes versions by their .down.sql, the newest first."""
    confirm(f"Undo all that is newer than version {to}?", yes or dry_run)
    _run(
        config,
        "down",
        as_json,
        dry_run,
        directory=str(directory.absolute()),
        to=to,
        tenants=tenant,
        labels=pairs(label) or None,
        parallel=parallel,
        stop_at=_share(stop_at),
        lock_timeout_ms=round(seconds(lock_timeout) * 1000),
    )


@migrate_app.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def exec_(
    config: PlaceOption,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND …", show_default=False)],
    tenant: TenantsOption = None,
    label: LabelOption = None,
    canary: CanaryOption = None,
    parallel: ParallelOption = 4,
    stop_at: StopOption = "0%",
    timeout: Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="For each.")] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Runs any tool once for each tenant: migrate exec -- alembic upgrade head

    It finds DATABASE_URL and PG… in its environment, which make it the tenant's owner in the tenant's schema,
    and TENANT, TENANT_SCHEMA and TENANT_OWNER.
    """
    _run(
        config,
        "exec",
        as_json,
        dry_run,
        command=command,
        tenants=tenant,
        labels=pairs(label) or None,
        canaries=canary,
        parallel=parallel,
        stop_at=_share(stop_at),
        timeout_s=None if timeout is None else seconds(timeout),
    )


@migrate_app.command()
def status(
    config: PlaceOption,
    directory: DirectoryOption,
    tenant: TenantsOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Those that lack nothing too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Who is where.  The exit status is 1 if somebody lacks a version or has had another one."""
    found, files = ask(
        config, lambda verbs: verbs.migrate_status(str(directory), tenant or ()), as_json=as_json
    )
    behind = [one for one in found if one.pending or one.changed or one.unknown]
    if as_json:
        print_json(
            {
                "versions": [{"version": one.version, "name": one.name} for one in files],
                "tenants": [
                    {
                        "tenant": one.tenant,
                        "version": one.version,
                        "pending": list(one.pending),
                        "changed": list(one.changed),
                        "unknown": list(one.unknown),
                    }
                    for one in found
                ],
            }
        )
        raise typer.Exit(1 if behind else 0)
    where = Counter(one.version for one in found)
    made = table("version", "name", "tenants")
    for one in files:
        made.add_row(str(one.version), one.name, str(where.pop(one.version, 0)))
    for version, count in sorted(where.items(), key=lambda item: item[0] or 0):
        made.add_row("none" if version is None else str(version), "", str(count))
    print_table(made, "there are no versions")
    if behind or all_:
        made = table("tenant", "version", "lacks", "changed since", "unknown here")
        for standing in found if all_ else behind:
            made.add_row(
                standing.tenant,
                "none" if standing.version is None else str(standing.version),
                *(
                    ", ".join(map(str, versions))
                    for versions in (standing.pending, standing.changed, standing.unknown)
                ),
            )
        print_table(made, "there are no tenants")
    raise typer.Exit(1 if behind else 0)


def _run(config: Path, what: str, as_json: bool, dry_run: bool, **params: Any) -> None:
    with watched(show=not (as_json or dry_run)) as watcher:
        job = ask(
            config,
            lambda verbs: verbs.migrate(what, **params),
            as_json=as_json,
            dry_run=dry_run,
            watcher=watcher,
        )
    result = job.result or {}
    if as_json:
        print_json(job.to_json())
        return
    took = result.get("took_s") or 0
    rate = f", {result['done'] / took:,.0f} a second" if took and result.get("done") else ""
    done = result.get("done", 0)
    say(f"{done} tenant{'' if done == 1 else 's'} done in {took:.1f} s{rate}")
    if result.get("busy"):
        say(f"passed over, as other jobs are at work on them: {', '.join(result['busy'])}")


def _share(text: str) -> float:
    """5% or 0.05"""
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise typer.BadParameter(f"{text!r} is no share: write 5%")
    return found


def _milliseconds(text: str | None) -> int | None:
    return None if text is None else round(seconds(text) * 1000)
