"""tenant-proxy token …"""

from __future__ import annotations

from typing import Annotated

import typer

from tenant_proxy.api.permissions import Role
from tenant_proxy.cli.output import print_json
from tenant_proxy.cli.town import (
    DryRunOption,
    JsonOption,
    PlaceOption,
    YesOption,
    ask,
    complete_tenant,
    confirm,
    finished,
    moment,
    print_table,
    table,
    when,
)

token_app = typer.Typer(name="token", help="Tokens of the API's callers.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


@token_app.command()
def create(
    config: PlaceOption,
    name: NameArgument,
    role: Annotated[Role, typer.Option("--role", help="What it may.")] = Role.READER,
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", metavar="TENANT", help="Of a tenant_admin.", autocompletion=complete_tenant),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="90d, 2027-01-31, never …")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Makes a token and prints it; it is kept nowhere."""
    until = moment(expires)
    made = ask(
        config,
        lambda verbs: verbs.token_create(name, role.value, tenant=tenant, expires_at=until),
        as_json=as_json,
        dry_run=dry_run,
    )
    if as_json:
        print_json(made.to_json())
    else:
        typer.echo(made.secret)


@token_app.command("list")
def list_(config: PlaceOption, as_json: JsonOption = False) -> None:
    """All tokens, without their secrets."""
    found = ask(config, lambda verbs: verbs.token_list(), as_json=as_json)
    if as_json:
        print_json([one.to_json() for one in found])
        return
    made = table("token", "role", "tenant", "until", "last used")
    for one in found:
        made.add_row(
            one.name,
            one.role,
            one.tenant or "",
            when(one.expires_at) or "forever",
            when(one.used_at) or "never",
        )
    print_table(made, "there are no tokens; make one: tenant-proxy token create NAME --role admin")


@token_app.command()
def revoke(
    config: PlaceOption,
    name: NameArgument,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """It is good no longer, at once."""
    confirm(f"Revoke the token {name}?", yes or dry_run)
    ask(config, lambda verbs: verbs.token_revoke(name), as_json=as_json, dry_run=dry_run)
    finished(f"token {name} is good no longer", {"token": name}, as_json)
