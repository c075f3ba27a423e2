"""tenant-proxy tenant …: whole tenants exported, imported, cloned, moved, adopted and erased."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenant_proxy.cli.output import ConfigOption, console, error, print_json
from tenant_proxy.cli.town import (
    DryRunOption,
    JsonOption,
    LabelOption,
    PlaceOption,
    TenantArgument,
    YesOption,
    ask,
    call,
    confirm,
    pairs,
    print_table,
    say,
    seconds,
    table,
)
from tenant_proxy.lifecycle.private import opener

if TYPE_CHECKING:
    from tenant_proxy.catalog.records import Job
    from tenant_proxy.lifecycle.door import Door
    from tenant_proxy.lifecycle.records import Problem

ArchiveArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The archive.", show_default=False)]
PassPhraseOption = Annotated[
    Path | None,
    typer.Option(
        "--pass-phrase-file",
        envvar="TENANT_PROXY_PASS_PHRASE_FILE",
        metavar="FILE",
        help="Its first line encrypts the archive; - asks for it.",
        show_default=False,
    ),
]
AcceptOption = Annotated[
    bool,
    typer.Option("--accept", help="Goes on though some texts may name the schema that it came from."),
]
ClusterOption = Annotated[str | None, typer.Option("--cluster", help="Where it is placed.")]
DatabaseOption = Annotated[str | None, typer.Option("--database", help="Name of a database of its own.")]


def add_to(app: typer.Typer) -> None:
    """The group `tenant` has these beside its own."""
    app.command("export")(export)
    app.command("import")(import_)
    app.command("archive")(archive)
    app.command("decrypt")(decrypt)
    app.command("clone")(clone)
    app.command("move")(move)
    app.command("scan")(scan)
    app.command("adopt")(adopt)
    app.command("erase")(erase)
    app.command("erasure")(erasure)
    app.command("verify-erasure")(verify_erasure)
    app.command("signing-key")(signing_key)


def export(
    config: PlaceOption,
    tenant: TenantArgument,
    path: ArchiveArgument,
    pass_phrase: PassPhraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Writes everything of a tenant into one archive, which tar, psql and pg_restore can take apart.

    It is of one moment, and the tenant goes on meanwhile.  No passwords are in it.
    """
    words = _words(pass_phrase, confirm=True)
    job = _worked(config, lambda verbs: verbs.tenant_export(tenant, str(path), pass_phrase=words), as_json)
    _told(job, f"{path}: {_amount(job)}", as_json)


def import_(
    config: PlaceOption,
    path: ArchiveArgument,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Of the new tenant; the archive's if not given.")
    ] = None,
    cluster: ClusterOption = None,
    database: DatabaseOption = None,
    schema: Annotated[str | None, typer.Option("--schema", help="Its name if not given.")] = None,
    label: LabelOption = None,
    pass_phrase: PassPhraseOption = None,
    accept: AcceptOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Makes a tenant of an archive, on this cluster or another, under its own name or another.

    Every row is checked against the archive; if one differs, nothing is left behind.  Logins are granted
    anew: archives hold no secrets.
    """
    words = _words(pass_phrase)
    job = _worked(
        config,
        lambda verbs: verbs.tenant_import(
            str(path),
            name,
            cluster=cluster,
            database=database,
            schema=schema,
            labels={key: value or None for key, value in pairs(label).items()},
            pass_phrase=words,
            accept=accept,
        ),
        as_json,
        dry_run,
    )
    _told(job, f"tenant {job.tenant_name} is ready: {_amount(job)}", as_json)
    if not as_json:
        say(f"let it serve: tenant-proxy tenant activate {job.tenant_name}")
        for one in (job.result or {}).get("access", ()):
            role = f" --role {one['role'] or one['level']}"
            say(f"it had a login: tenant-proxy access grant {job.tenant_name} {one['login']}{role}")


def archive(
    config: ConfigOption,
    path: ArchiveArgument,
    pass_phrase: PassPhraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is in an archive.  Its files are checked."""
    words = _words(pass_phrase)
    found = call(config, lambda verbs: verbs.archive_show(str(path), pass_phrase=words), as_json=as_json)
    if as_json:
        print_json(json.loads(found.to_bytes()))
        return
    made = table("tenant", found.tenant)
    made.add_row("made", f"{found.made_at} by {found.made_by}, {found.tool}")
    made.add_row("of", f"{found.source['database']} on {found.source['cluster']}, PostgreSQL"
                       f" {found.source['server_version']}")  # fmt: skip
    made.add_row("schema", found.schema)
    made.add_row("tables", f"{len(found.tables)} with {sum(one.rows for one in found.tables)} rows")
    made.add_row("objects", ", ".join(f"{count} {kind}" for kind, count in found.inventory.items()))
    made.add_row("needs", ", ".join(f"{one['name']} {one['version']}" for one in found.extensions))
    made.add_row("logins", ", ".join(str(one["login"]) for one in found.access))
    for note in found.notes:
        made.add_row("not in it", note)
    print_table(made, "")


def decrypt(
    path: ArchiveArgument,
    target: Annotated[Path, typer.Argument(metavar="TAR", show_default=False)],
    pass_phrase: PassPhraseOption = None,
) -> None:
    """Writes an encrypted archive as the plain tar file that it is."""
    from tenant_proxy.lifecycle import sealing

    words = _words(pass_phrase or Path("-"))
    assert words is not None
    try:
        with open(path, "rb") as sealed, open(target, "xb", opener=opener) as plain:
            sealing.unseal(sealed, plain, words)
    except sealing.SealError as problem:
        target.unlink()
        error(f"{path}: {problem}")
        raise typer.Exit(1) from None


def clone(
    config: PlaceOption,
    tenant: TenantArgument,
    new: Annotated[str, typer.Argument(metavar="NEW", show_default=False)],
    cluster: ClusterOption = None,
    database: DatabaseOption = None,
    label: LabelOption = None,
    accept: AcceptOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Makes a tenant that has everything that another has now, but its logins."""
    job = _worked(
        config,
        lambda verbs: verbs.tenant_clone(
            tenant,
            new,
            cluster=cluster,
            database=database,
            labels={key: value or None for key, value in pairs(label).items()},
            accept=accept,
        ),
        as_json,
        dry_run,
    )
    _told(job, f"tenant {new} is ready: {_amount(job)}", as_json)


def move(
    config: PlaceOption,
    tenant: TenantArgument,
    cluster: Annotated[
        str | None, typer.Argument(metavar="[CLUSTER]", help="Where to; not with --confirm.")
    ] = None,
    done: Annotated[
        bool, typer.Option("--confirm", help="Takes away what was kept where the tenant was.")
    ] = False,
    pause: Annotated[
        str | None,
        typer.Option("--pause", metavar="TIME", help="How long clients wait at most; 60s if not given."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Ends sessions that hold a connection, after the grace time.")
    ] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Moves a tenant to another cluster.

    What clients begin while it is copied waits, and runs on the new cluster.  If that takes too long, or a
    session keeps a connection, the move is given up and they go on.  What it was is kept until --confirm.
    """
    if done == (cluster is not None):
        raise typer.BadParameter("give either a cluster or --confirm")
    if done:
        confirm(f"Take away what {tenant} has left on its former cluster?", yes or dry_run)
        forgotten = _worked(config, lambda verbs: verbs.tenant_move_confirm(tenant), as_json, dry_run)
        if forgotten is None:
            say("nothing was kept")
        else:
            _told(forgotten, f"what was kept of {tenant} is gone", as_json)
        return
    assert cluster is not None
    confirm(f"Let {tenant}'s clients wait and move it to {cluster}?", yes or dry_run)
    pause_s = None if pause is None else seconds(pause)
    job = _worked(
        config,
        lambda verbs: verbs.tenant_move(tenant, cluster, pause_s=pause_s, force=force),
        as_json,
        dry_run,
    )
    _told(job, f"tenant {tenant} is on {cluster}: {_amount(job)}", as_json)
    if not as_json:
        say(f"take away what was kept: tenant-proxy tenant move {tenant} --confirm")


LoginsOption = Annotated[
    list[str] | None,
    typer.Option("--login", metavar="ROLE", help="A role of the server that is the tenant's already."),
]


def scan(
    config: PlaceOption,
    tenant: TenantArgument,
    login: LoginsOption = None,
    sql: Annotated[bool, typer.Option("--sql", help="Prints the SQL that mends what can be mended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Says what keeps a schema from being the tenant's alone.  The exit status is 1 if something does."""
    found = ask(config, lambda verbs: verbs.tenant_scan(tenant, login or ()), as_json=as_json)
    if sql:
        from tenant_proxy.lifecycle import adopting

        typer.echo(adopting.script(found), nl=False)
    elif as_json:
        print_json([one.as_dict() for one in found])
    else:
        _print_problems(found)
    raise typer.Exit(1 if any(one.weight == "breaks" for one in found) else 0)


def adopt(
    config: PlaceOption,
    tenant: TenantArgument,
    login: LoginsOption = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Goes on though something breaks isolation that no rule mends.")
    ] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Makes an existing schema a tenant's own: mends what `scan` finds, and lays the tenant's rights.

    The tenant is a draft that names the schema (tenant create NAME --schema SCHEMA).
    """
    if not dry_run:
        found = ask(config, lambda verbs: verbs.tenant_scan(tenant, login or ()), as_json=as_json)
        if not as_json:
            _print_problems(found)
        confirm(f"Mend these and make the schema {tenant}'s?", yes)
    job = _worked(
        config, lambda verbs: verbs.tenant_adopt(tenant, logins=login or (), accept=accept), as_json, dry_run
    )
    _told(job, f"tenant {tenant} is ready: {(job.result or {}).get('mended')} things were mended", as_json)


_WEIGHTS = {"breaks": "bold red", "doubt": "yellow", "note": "dim"}


def _print_problems(found: list[Problem]) -> None:
    from rich.text import Text

    made = table("weight", "object", "what", "mended by")
    for one in found:
        made.add_row(Text(one.weight, _WEIGHTS[one.weight]), one.object, one.what, one.mend)
    print_table(made, "nothing was found")


# --- erase ----------------------------------------------------------------------------------------------


def erase(
    config: PlaceOption,
    tenant: TenantArgument,
    now: Annotated[
        bool, typer.Option("--now", help="Ends the grace for which it could be restored.")
    ] = False,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Also what others have made of its objects.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FILE", help="Where the signed record is written.")
    ] = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Takes a deleted tenant away for good, scans that nothing is left, and signs a record of that."""
    confirm(f"Erase the tenant {tenant} for ever?", yes or dry_run)
    job = _worked(
        config, lambda verbs: verbs.tenant_erase(tenant, at_once=now, cascade=cascade), as_json, dry_run
    )
    known = job.result or {}
    if record is not None:
        _write(record, known)
    removed = sum(known["record"]["removed"].values())
    signed = "signed" if "signature" in known else "not signed: lifecycle.signing_key is not set"
    _told(job, f"tenant {tenant} is erased: {removed} things removed, none left ({signed})", as_json)
    if not as_json:
        _mentioned(known["record"])


def _mentioned(record: Mapping[str, Any]) -> None:
    """Texts of others in which its names stand, for whoever wants to look at them."""
    if record.get("mentioned"):
        shown = ", ".join(record["mentions"][:10])
        more = record["mentioned"] - len(record["mentions"][:10])
        say(f"its names stand in texts of others: {shown}{f' and {more} more' if more else ''}")


def erasure(
    config: PlaceOption,
    tenant: TenantArgument,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FILE", help="Where it is written; else it is shown.")
    ] = None,
) -> None:
    """The signed record of a tenant's erasure, from the log of changes."""
    found = ask(config, lambda verbs: verbs.erasure_record(tenant))
    if record is not None:
        _write(record, found)
    else:
        print_json(found)


def verify_erasure(
    path: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", metavar="FILE", help="PEM of the key that must have signed it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Checks the record of an erasure: that it is what was signed, and by whom."""
    from tenant_proxy.lifecycle import certificate

    try:
        trusted = None if public_key is None else certificate.read_public_key(public_key.read_text())
        record = certificate.verify(path.read_text(), trusted)
    except certificate.CertificateError as problem:
        error(f"{path}: {problem}")
        raise typer.Exit(1) from None
    if as_json:
        print_json(record)
        return
    say(
        f"tenant {record['tenant']} ({record['schema']} on {record['cluster']}) was erased"
        f" {record['erased_at']} for {record.get('deleted_by') or record['requested_by']}"
    )
    say(
        ", ".join(f"{count} {kind}" for kind, count in record["removed"].items()) + " were removed, none left"
    )
    _mentioned(record)
    if trusted is None:
        from rich.text import Text

        console(stderr=True).print(
            Text("the signature is good; by whose key it was made only --public-key can tell", "yellow"),
            soft_wrap=True,
        )


def signing_key(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the key.", show_default=False)],
) -> None:
    """Makes a key for records of erasures, and prints the public one that checks them."""
    from tenant_proxy.lifecycle import certificate

    private, public = certificate.new_key()
    with open(path, "x", opener=opener) as file:
        file.write(private)
    typer.echo(public, nl=False)


# --- helpers --------------------------------------------------------------------------------------------


def _worked(
    config: Path, verb: Callable[[Door], Awaitable[Any]], as_json: bool, dry_run: bool = False
) -> Any:
    from tenant_proxy.cli.progress import watched

    with watched(show=not (as_json or dry_run)) as watcher:
        return ask(config, verb, as_json=as_json, dry_run=dry_run, watcher=watcher)


def _told(job: Job, text: str, as_json: bool) -> None:
    if as_json:
        print_json(job.to_json())
        return
    say(text)
    result = job.result or {}
    for finding in result.get("findings", ()):
        say(f"  look at: {finding['where']}: {finding['what']}", "yellow")
    for note in result.get("notes", ()):
        say(f"  did not come along: {note}", "yellow")


def _amount(job: Job) -> str:
    result = job.result or {}
    return f"{result.get('tables', 0)} tables with {result.get('rows', 0)} rows"


def _words(path: Path | None, *, confirm: bool = False) -> str | None:
    if path is None:
        return None
    if str(path) == "-":
        if not sys.stdin.isatty():
            return sys.stdin.readline().rstrip("\r\n")
        words: str = typer.prompt("Pass phrase", hide_input=True, confirmation_prompt=confirm, err=True)
        return words
    line = path.read_text().split("\n", 1)[0].rstrip("\r")
    if not line:
        error(f"{path}: the pass phrase is empty")
        raise typer.Exit(1)
    return line


def _write(path: Path, known: dict[str, Any]) -> None:
    path.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
