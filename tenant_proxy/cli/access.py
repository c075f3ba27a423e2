"""tenant-proxy access …"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from tenant_proxy.catalog.records import Level, Login, parse
from tenant_proxy.cli.output import print_json
from tenant_proxy.cli.town import (
    DryRunOption,
    JsonOption,
    LoginArgument,
    PlaceOption,
    TenantArgument,
    YesOption,
    ask,
    checked,
    complete_login,
    complete_role,
    complete_tenant,
    confirm,
    finished,
    moment,
    pairs,
    print_table,
    say,
    seconds,
    table,
    when,
)
from tenant_proxy.lifecycle.records import NewAccess

access_app = typer.Typer(
    name="access", help="Logins: which tenants they may reach, as what, until when.", no_args_is_help=True
)

PasswordOption = Annotated[
    bool, typer.Option("--password-stdin", help="Reads the password from stdin rather than making one.")
]


def _password(from_stdin: bool) -> str | None:
    if not from_stdin:
        return None
    line = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    if not line:
        raise typer.BadParameter("there is no password on stdin")
    return line


@access_app.command()
def grant(
    config: PlaceOption,
    tenant: TenantArgument,
    login: LoginArgument,
    role: Annotated[
        str,
        typer.Option(
            "--role",
            help="owner, readwrite, readonly, or a role made by `access role`.",
            autocompletion=complete_role,
        ),
    ] = "owner",
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="30d, 2027-01-31, never …")
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="RANGE", help="Where a new login may come from. May be given again."),
    ] = None,
    max_clients: Annotated[int, typer.Option("--max-clients", min=0, help="Of a new login.")] = 0,
    service: Annotated[
        bool,
        typer.Option("--service", help="A new login has no password: it comes with a JSON Web Token."),
    ] = False,
    password_stdin: PasswordOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Lets a login reach a tenant; one that does not exist is made, and its DSN with a password printed."""
    custom = role not in (Level.OWNER, Level.READWRITE, Level.READONLY)
    new = checked(
        lambda: parse(
            NewAccess,
            {
                "login": login,
                "level": "custom" if custom else role,
                "role": role if custom else "",
                "expires_at": moment(expires),
                "addresses": address or [],
                "max_clients": max_clients,
                "password": _password(password_stdin),
                "service": service,
            },
        ),
        as_json,
    )
    granted = ask(config, lambda verbs: verbs.access_grant(tenant, new), as_json=as_json, dry_run=dry_run)
    if as_json:
        print_json(granted.to_json())
    else:
        typer.echo(granted.dsn)
        if granted.password is None and not service:
            typer.echo(f"the login {login} was there already, with its password", err=True)


@access_app.command("list")
def list_(
    config: PlaceOption,
    tenant: Annotated[
        str | None, typer.Argument(metavar="[TENANT]", autocompletion=complete_tenant, show_default=False)
    ] = None,
    login: Annotated[
        str | None, typer.Option("--login", metavar="LOGIN", autocompletion=complete_login)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Who may reach what."""
    found = ask(config, lambda verbs: verbs.access_list(tenant=tenant, login=login), as_json=as_json)
    if as_json:
        print_json([one.to_json() for one in found])
        return
    made = table("tenant", "login", "may", "runs as", "until")
    for one in found:
        until = "being granted" if one.pending else when(one.expires_at) or "forever"
        made.add_row(one.tenant, one.login, one.role or one.level.value, one.server_role, until)
    print_table(made, "nobody may reach anything; tenant-proxy access grant TENANT LOGIN")


@access_app.command()
def revoke(
    config: PlaceOption,
    tenant: TenantArgument,
    login: LoginArgument,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Takes a tenant from a login, and ends its connections; a login that has none left is deleted."""
    confirm(f"Take {tenant} from {login}?", yes or dry_run)
    ask(config, lambda verbs: verbs.access_revoke(tenant, login), as_json=as_json, dry_run=dry_run)
    finished(f"{login} may not reach {tenant}", {"tenant": tenant, "login": login}, as_json)


@access_app.command()
def rotate(
    config: PlaceOption,
    login: LoginArgument,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="The one before it is good for so long.")
    ] = "1d",
    end: Annotated[bool, typer.Option("--end", help="Ends the overlap now; makes no new password.")] = False,
    password_stdin: PasswordOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Gives a login a new password, and prints its DSN; both are good while they overlap."""
    password, overlap_s = _password(password_stdin), seconds(overlap)
    rotated = ask(
        config,
        lambda verbs: verbs.access_rotate(login, password=password, overlap_s=overlap_s, end=end),
        as_json=as_json,
        dry_run=dry_run,
    )
    if as_json:
        print_json(rotated.to_json())
    elif end:
        say(f"only the newest password of {login} is good now")
    else:
        typer.echo(rotated.dsn)
        typer.echo(f"the password before it is good until {when(rotated.retires_at)}", err=True)


@access_app.command("login")
def login_(
    config: PlaceOption,
    login: LoginArgument,
    address: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="RANGE", help="Where it may come from. May be given again."),
    ] = None,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="It may come from anywhere.")] = False,
    max_clients: Annotated[
        int | None, typer.Option("--max-clients", min=0, help="Its connections at most; 0: as the tenant's.")
    ] = None,
    disable: Annotated[
        bool | None,
        typer.Option("--disable/--enable", help="Not let in, or let in.", show_default=False),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="30d, 2027-01-31, never …")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """What proxies hold a login to, whichever tenant it reaches: shows it, or sets what is given."""
    if anywhere and address:
        raise typer.BadParameter("it is --from or --anywhere")
    given: dict[str, Any] = {
        "addresses": [] if anywhere else address or None,
        "max_clients": max_clients,
        "disabled": disable,
        "expires_at": None if expires is None else moment(expires) or "never",
    }
    if any(value is not None for value in given.values()):
        found = ask(config, lambda verbs: verbs.login_set(login, **given), as_json=as_json, dry_run=dry_run)
    else:
        found = ask(config, lambda verbs: verbs.login_get(login), as_json=as_json)
    if as_json:
        print_json(found.to_json())
    else:
        _print_login(found)


def _print_login(login: Login) -> None:
    made = table("login", login.name)
    made.add_row("comes with", "a JSON Web Token" if login.kind == "service" else "a password")
    made.add_row("is let in", "no" if login.disabled else "yes")
    made.add_row("from", ", ".join(login.addresses) or "anywhere")
    made.add_row("connections", str(login.max_clients or "as many as its tenant"))
    made.add_row("until", when(login.expires_at) or "forever")
    print_table(made, "")


@access_app.command()
def role(
    config: PlaceOption,
    tenant: TenantArgument,
    name: Annotated[str | None, typer.Argument(metavar="[ROLE]", show_default=False)] = None,
    table_: Annotated[
        list[str] | None,
        typer.Option("--table", metavar="TABLE=RIGHTS", help="orders=select,insert. May be given again."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Takes the role away.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Roles with rights on some tables: shows them, or sets or drops one."""
    if name is not None and drop:
        ask(config, lambda verbs: verbs.role_delete(tenant, name), dry_run=dry_run, as_json=as_json)
    elif name is not None:
        grants = {
            on: [right.strip() for right in rights.split(",")]
            for on, rights in pairs(table_, "--table").items()
        }
        if not grants:
            raise typer.BadParameter("a role has rights on at least one table: --table orders=select")
        ask(config, lambda verbs: verbs.role_put(tenant, name, grants), dry_run=dry_run, as_json=as_json)
    roles = ask(config, lambda verbs: verbs.role_list(tenant), as_json=as_json)
    if as_json:
        print_json([one.to_json() for one in roles])
        return
    made = table("role", "table", "rights")
    for found in roles:
        for on, rights in sorted(found.grants.items()):
            made.add_row(found.name, on, ", ".join(rights))
    print_table(made, f"{tenant} has no roles of its own")
