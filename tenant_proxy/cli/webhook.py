"""tenant-proxy webhook …"""

from __future__ import annotations

from typing import Annotated

import typer

from tenant_proxy.cli.output import print_json
from tenant_proxy.cli.town import (
    DryRunOption,
    JsonOption,
    PlaceOption,
    YesOption,
    ask,
    confirm,
    finished,
    print_table,
    say,
    state,
    table,
    when,
)

webhook_app = typer.Typer(name="webhook", help="Who is told of changes, by HTTP.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


@webhook_app.command()
def add(
    config: PlaceOption,
    name: NameArgument,
    url: Annotated[str, typer.Argument(metavar="URL", show_default=False)],
    event: Annotated[
        list[str] | None,
        typer.Option("--event", "-e", metavar="EVENT", help="tenant.suspend, tenant.* …; all if not given."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Adds a webhook and prints the secret that its requests are signed with, which is kept nowhere."""
    made = ask(config, lambda verbs: verbs.webhook_add(name, url, event), as_json=as_json, dry_run=dry_run)
    if as_json:
        print_json(made.to_json())
    else:
        typer.echo(made.secret)


@webhook_app.command("list")
def list_(config: PlaceOption, as_json: JsonOption = False) -> None:
    """All webhooks, without their secrets."""
    found = ask(config, lambda verbs: verbs.webhook_list(), as_json=as_json)
    if as_json:
        print_json([one.to_json() for one in found])
        return
    made = table("webhook", "url", "events", "since", "wants no more since")
    for one in found:
        made.add_row(
            one.name, one.url, ", ".join(one.events) or "all", when(one.created_at), when(one.gone_at)
        )
    print_table(made, "there are no webhooks; add one: tenant-proxy webhook add NAME URL")


@webhook_app.command()
def remove(
    config: PlaceOption,
    name: NameArgument,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """It is told of nothing any more, nor of what still waits."""
    confirm(f"Remove the webhook {name}?", yes or dry_run)
    ask(config, lambda verbs: verbs.webhook_remove(name), as_json=as_json, dry_run=dry_run)
    finished(f"webhook {name} is told of nothing any more", {"webhook": name}, as_json)


@webhook_app.command("test")
def try_(
    config: PlaceOption, name: NameArgument, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Sends it an event, once and now; the exit status says whether it was taken."""
    done = ask(config, lambda verbs: verbs.webhook_test(name), as_json=as_json, dry_run=dry_run)
    if as_json:
        print_json(done.to_json())
    else:
        say(f"webhook {name}: {done.error or f'it answered {done.status}'}")
    if done.state != "delivered":
        raise typer.Exit(1)


@webhook_app.command()
def deliveries(
    config: PlaceOption,
    name: NameArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000)] = 50,
    as_json: JsonOption = False,
) -> None:
    """What it was told, the newest first."""
    found = ask(config, lambda verbs: verbs.webhook_deliveries(name, limit=limit), as_json=as_json)
    if as_json:
        print_json([one.to_json() for one in found])
        return
    made = table("event", "of", "state", "tries", "answer", "next try", "since")
    for one in found:
        made.add_row(
            one.event,
            one.subject,
            state(one.state),
            str(one.attempts),
            one.error or str(one.status or ""),
            when(one.next_at) if one.state == "waiting" else "",
            when(one.created_at),
        )
    print_table(made, "it was told of nothing yet")
