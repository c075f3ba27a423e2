"""tenant-proxy tenant …"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenant_proxy.catalog.records import Level, Spec, Tenant, parse
from tenant_proxy.catalog.states import State
from tenant_proxy.cli.output import print_json
from tenant_proxy.cli.town import (
    DryRunOption,
    JsonOption,
    LabelOption,
    PlaceOption,
    PlanOption,
    SetOption,
    TenantArgument,
    YesOption,
    ask,
    checked,
    compact,
    confirm,
    moment,
    pairs,
    print_table,
    say,
    seconds,
    spec,
    state,
    table,
    when,
)
from tenant_proxy.lifecycle.records import NewAccess, NewTenant, TenantDetails

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rich.text import Text

    from tenant_proxy.lifecycle.door import Door

tenant_app = typer.Typer(
    name="tenant",
    help="A tenant's life: from create to erase.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="TENANT", show_default=False)]
SniOption = Annotated[
    list[str] | None, typer.Option("--sni", metavar="HOST", help="A TLS host name that means this tenant.")
]
ClusterOption = Annotated[
    str | None, typer.Option("--cluster", metavar="CLUSTER", help="Where; by its region if not given.")
]
SchemaOption = Annotated[
    str | None, typer.Option("--schema", metavar="NAME", help="Its schema; its name if not given.")
]
DatabaseOption = Annotated[
    str | None, typer.Option("--database", metavar="NAME", help="A database of its own.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Told to those who are refused.")]


def _new(
    name: str,
    plan: str | None,
    label: list[str] | None,
    sni: list[str] | None,
    values: list[str] | None,
    places: dict[str, Any],
) -> NewTenant:
    own = parse(Spec, {key: value for key, value in spec(values).items() if value is not None})
    given = {"name": name, "plan": plan, "labels": pairs(label), "sni": sni or [], "spec": own, **places}
    return parse(NewTenant, given)


@tenant_app.command()
def create(
    config: PlaceOption,
    tenant: NameArgument,
    plan: PlanOption = None,
    label: LabelOption = None,
    sni: SniOption = None,
    values: SetOption = None,
    cluster: ClusterOption = None,
    schema: SchemaOption = None,
    database: DatabaseOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Writes a tenant down; nothing is made on the cluster yet."""
    places = {"cluster": cluster, "schema": schema, "database": database}
    new = checked(lambda: _new(tenant, plan, label, sni, values, places), as_json)
    _act(config, lambda verbs: verbs.tenant_create(new), as_json, dry_run)


@tenant_app.command("set")
def set_(
    config: PlaceOption,
    tenant: TenantArgument,
    plan: PlanOption = None,
    label: LabelOption = None,
    unlabel: Annotated[list[str] | None, typer.Option("--unlabel", metavar="NAME")] = None,
    sni: SniOption = None,
    values: SetOption = None,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", metavar="KEY", help="Then it is the plan's again.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Changes what a tenant has; proxies have it within a second."""
    labels: dict[str, str | None] = {**pairs(label), **dict.fromkeys(unlabel or ())}
    patch = spec(values, unset)
    _act(
        config,
        lambda verbs: verbs.tenant_set(tenant, plan=plan, labels=labels or None, sni=sni, spec=patch or None),
        as_json,
        dry_run,
    )


@tenant_app.command()
def provision(
    config: PlaceOption, tenant: TenantArgument, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Makes its schema, roles and rights; where they are there already the rights are laid anew."""
    _act(config, lambda verbs: verbs.tenant_provision(tenant), as_json, dry_run)


@tenant_app.command()
def activate(
    config: PlaceOption, tenant: TenantArgument, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Lets its logins in."""
    _act(config, lambda verbs: verbs.tenant_activate(tenant), as_json, dry_run)


@tenant_app.command()
def onboard(
    config: PlaceOption,
    tenant: NameArgument,
    plan: PlanOption = None,
    login: Annotated[
        str | None, typer.Option("--login", metavar="LOGIN", help="The tenant's name if not given.")
    ] = None,
    role: Annotated[Level, typer.Option("--role", help="What the login may.")] = Level.OWNER,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="30d, 2027-01-31 …")
    ] = None,
    label: LabelOption = None,
    sni: SniOption = None,
    values: SetOption = None,
    cluster: ClusterOption = None,
    schema: SchemaOption = None,
    database: DatabaseOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Create, provision, grant and activate in one; prints the DSN, with a password that is kept nowhere."""
    places = {"cluster": cluster, "schema": schema, "database": database}
    new = checked(lambda: _new(tenant, plan, label, sni, values, places), as_json)
    access = checked(
        lambda: parse(NewAccess, {"login": login or tenant, "level": role, "expires_at": moment(expires)}),
        as_json,
    )
    done = ask(config, lambda verbs: verbs.tenant_onboard(new, access), as_json=as_json, dry_run=dry_run)
    served = None
    if done.granted.password is not None and done.tenant.state is State.ACTIVE:
        from tenant_proxy.cli.served import until_served

        served = asyncio.run(until_served(done.granted.dsn))
    if as_json:
        print_json(done.to_json())
        return
    typer.echo(done.granted.dsn)
    if served is False:
        note = "no proxy lets it in there yet: see whether one follows this catalog"
        typer.echo(f"{note} (SHOW CATALOG of its console)", err=True)
    if done.granted.password is None:
        note = f"the login {access.login} was there already, with its password"
        typer.echo(f"{note}; a new one: tenant-proxy access rotate {access.login}", err=True)


@tenant_app.command("list")
def list_(
    config: PlaceOption,
    state_: Annotated[list[State] | None, typer.Option("--state", help="May be given again.")] = None,
    plan: PlanOption = None,
    cluster: ClusterOption = None,
    label: LabelOption = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Names that begin so.")] = "",
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Tenants of the catalog, by name."""
    labels = pairs(label)
    tenants = ask(
        config,
        lambda verbs: verbs.tenant_list(
            states=state_ or (), plan=plan, cluster=cluster, labels=labels, prefix=prefix, limit=limit
        ),
        as_json=as_json,
    )
    if as_json:
        print_json([tenant.to_json() for tenant in tenants])
        return
    made = table("tenant", "state", "plan", "cluster", "schema", "storage", "labels", "reason")
    for one in tenants:
        made.add_row(
            one.name,
            state(one.state.value),
            one.plan or "",
            one.cluster,
            one.schema_ if one.database is None else f"{one.database}.{one.schema_}",
            _bytes(one.storage_bytes) if one.storage_at else "",
            ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items())),
            one.reason,
        )
    print_table(made, "there are none; make one: tenant-proxy tenant onboard NAME")


@tenant_app.command()
def show(config: PlaceOption, tenant: TenantArgument, as_json: JsonOption = False) -> None:
    """Everything about one tenant: what it has and where each value is from, who may reach it."""
    found = ask(config, lambda verbs: verbs.tenant_show(tenant), as_json=as_json)
    if as_json:
        print_json(found.to_json())
    else:
        _print_details(found)


@tenant_app.command()
def suspend(
    config: PlaceOption,
    tenant: TenantArgument,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Refuses its logins; those who are connected may stay for its grace time (grace_s)."""
    _act(config, lambda verbs: verbs.tenant_suspend(tenant, reason), as_json, dry_run)


@tenant_app.command()
def resume(
    config: PlaceOption, tenant: TenantArgument, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Lets its logins in again."""
    _act(config, lambda verbs: verbs.tenant_resume(tenant), as_json, dry_run)


@tenant_app.command()
def rename(
    config: PlaceOption,
    tenant: TenantArgument,
    new: NameArgument,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Changes what clients call it; its schema and roles on the server keep their names."""
    _act(config, lambda verbs: verbs.tenant_rename(tenant, new), as_json, dry_run)


@tenant_app.command()
def delete(
    config: PlaceOption,
    tenant: TenantArgument,
    reason: ReasonOption = "",
    grace: Annotated[
        str | None, typer.Option("--grace", metavar="TIME", help="It may be restored for so long: 7d.")
    ] = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Refuses its logins from now on, and has it erased once its grace is over."""
    confirm(f"Delete the tenant {tenant}?", yes or dry_run)
    grace_s = None if grace is None else seconds(grace)
    _act(config, lambda verbs: verbs.tenant_delete(tenant, reason, grace_s), as_json, dry_run)


@tenant_app.command()
def restore(
    config: PlaceOption, tenant: TenantArgument, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Takes a deletion back, as long as its grace is not over; it is suspended then."""
    _act(config, lambda verbs: verbs.tenant_restore(tenant), as_json, dry_run)


# --- helpers -------------------------------------------------------------------------------------------


def _act(
    config: Path,
    verb: Callable[[Door], Awaitable[Tenant]],
    as_json: bool,
    dry_run: bool = False,
) -> None:
    _print(ask(config, verb, as_json=as_json, dry_run=dry_run), as_json)


def _print(tenant: Tenant, as_json: bool) -> None:
    if as_json:
        print_json(tenant.to_json())
        return
    say(_sentence(tenant))


def _sentence(tenant: Tenant) -> Text:
    from rich.text import Text

    said = Text.assemble(f"tenant {tenant.name} is ", state(tenant.state.value))
    if tenant.state is State.DELETING:
        said.append(f", to be erased after {when(tenant.erase_after)}")
    elif tenant.reason and tenant.state is not State.ACTIVE:
        said.append(f": {tenant.reason}")
    return said


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def _print_details(found: TenantDetails) -> None:
    tenant = found.tenant
    say(_sentence(tenant))
    made = table("", "")
    made.show_header = False
    where = f"{tenant.cluster}, schema {tenant.schema_}"
    if tenant.database:
        where += f" of its own database {tenant.database}"
    made.add_row("cluster", where)
    made.add_row("plan", tenant.plan or "none")
    made.add_row("labels", ", ".join(f"{key}={value}" for key, value in sorted(tenant.labels.items())))
    made.add_row("host names", ", ".join(tenant.sni))
    made.add_row("roles", ", ".join((tenant.owner_role, tenant.readwrite_role, tenant.readonly_role)))
    made.add_row("storage", _bytes(tenant.storage_bytes) if tenant.storage_at else "")
    made.add_row("created", when(tenant.created_at))
    made.add_row("activated", when(tenant.activated_at))
    if found.job is not None:
        made.add_row("job", f"{found.job.id} ({found.job.kind}) is at work on it")
    print_table(made, "")
    say("")
    values = table("value", "", "from")
    for key, one in found.effective.items():
        values.add_row(key, compact(one.value), one.source)
    print_table(values, "")
    say("")
    access = table("login", "may", "until")
    for right in found.access:
        access.add_row(right.login, right.role or right.level.value, when(right.expires_at) or "forever")
    print_table(access, f"nobody may reach it; tenant-proxy access grant {tenant.name} LOGIN")
