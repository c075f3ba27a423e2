"""tenant-proxy audit …"""

from __future__ import annotations

from typing import Annotated

import typer

from tenant_proxy.cli.output import error, print_json
from tenant_proxy.cli.town import JsonOption, PlaceOption, ask, compact, print_table, say, table, when

audit_app = typer.Typer(name="audit", help="The log of all changes.", no_args_is_help=True)


@audit_app.command()
def log(
    config: PlaceOption,
    name: Annotated[str | None, typer.Option("--name", help="Of one tenant, login or plan.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="tenant, plan, login, access, job …")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000)] = 50,
    before: Annotated[int | None, typer.Option("--before", metavar="NUMBER", help="Older than this.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Who changed what, the newest first."""
    entries = ask(
        config,
        lambda verbs: verbs.audit_log(kind=kind, name=name, before=before, limit=limit),
        as_json=as_json,
    )
    if as_json:
        print_json([entry.to_json() for entry in entries])
        return
    made = table("number", "time", "who", "what", "name", "change")
    for entry in entries:
        before_, after = entry.before or {}, entry.after or {}
        changes = [
            f"{key}: {compact(before_[key])} → {compact(after.get(key))}"
            if key in before_
            else f"{key}={compact(after[key])}"
            for key in dict.fromkeys((*before_, *after))
            if before_.get(key) or after.get(key)
        ]
        made.add_row(str(entry.id), when(entry.at), entry.actor, entry.action, entry.name, ", ".join(changes))
    print_table(made, "nothing was changed yet")


@audit_app.command()
def verify(
    config: PlaceOption,
    head: Annotated[
        str | None, typer.Option("--head", metavar="HASH", help="A hash noted earlier, which must be in it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Checks that nothing in the log was changed, and prints its last hash, to be noted elsewhere."""
    found = ask(config, lambda verbs: verbs.audit_verify(head), as_json=as_json)
    if as_json:
        print_json(found.to_json())
    elif found.ok:
        say(f"the log is whole: {found.entries} entries, the last hash is {found.head or 'none'}")
    else:
        error(f"the log is not as it was written: {found.problem}")
    raise typer.Exit(0 if found.ok else 1)
