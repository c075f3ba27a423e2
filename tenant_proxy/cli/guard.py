"""tenant-proxy guard …: what the guard would say, without a proxy and without a server."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from tenant_proxy.cli.guard_scan import PROGRAMS_HINT, Kind, Place, Report, Unusable, scan
from tenant_proxy.cli.output import STYLES, console, error, print_json, print_problems, printable
from tenant_proxy.config.load import load
from tenant_proxy.config.policy_files import load_policy
from tenant_proxy.config.problems import ConfigError, did_you_mean
from tenant_proxy.config.schema import Catalogs, Config, Policy, merged
from tenant_proxy.guard.explain import explain
from tenant_proxy.guard.parse import MAX_TEXT_BYTES
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.reasons import REASONS
from tenant_proxy.model import Action
from tenant_proxy.tenancy.registry import Registry

guard_app = typer.Typer(
    name="guard",
    help="What the guard would say of SQL: needs neither a proxy nor a server.",
    no_args_is_help=True,
)

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="TENANT_PROXY_CONFIG", metavar="FILE", show_default=False,
        help="Judge as this configuration says; without one, as its defaults do.",
    ),
]  # fmt: skip
TenantOption = Annotated[
    str | None,
    typer.Option("--tenant", "-t", metavar="NAME", help="In whose name; one of the configuration's."),
]
SchemaOption = Annotated[
    str | None,
    typer.Option("--schema", metavar="NAME", help="Without a configuration: the tenant's schema."),
]
RoleOption = Annotated[
    str | None,
    typer.Option("--role", metavar="NAME", help="Without a configuration: the role that statements run as."),
]
PolicyOption = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="A policy file, merged over the policy.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Prints JSON.")]


@guard_app.callback()
def _group() -> None:
    """What the guard would say of SQL: needs neither a proxy nor a server."""


@guard_app.command("explain")
def explain_command(
    sql: Annotated[
        str | None, typer.Argument(metavar="SQL", help="The text of one message; - reads it from stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Reads the text from a file.")
    ] = None,
    config: ConfigFile = None,
    tenant: TenantOption = None,
    schema: SchemaOption = None,
    role: RoleOption = None,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Says what becomes of a text: the verdict, the rule, what it names, and the text that the server gets.

    A text of several statements is judged as one message, as drivers send it; `guard scan` judges a script
    a statement at a time.  Exit status: 0 allowed, 1 refused, 2 wrong usage.
    """
    scope = _scope(config, tenant, schema, role, policy)
    explanation = explain(scope, _text(sql, file))
    refused = explanation.verdict.action is Action.REJECT
    if as_json:
        said = explanation.as_dict() | {"tenant": scope.tenant, "mode": scope.policy.mode.value}
        print_json(said)
    else:
        typer.echo(printable(explanation.in_words()))
        if refused and scope.policy.mode.value != "enforce":
            typer.echo(f'the policy\'s mode is "{scope.policy.mode.value}": it is let through all the same')
    raise typer.Exit(1 if refused else 0)


@guard_app.command("scan")
def scan_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…",
            help="Directories (their *.sql), scripts, dumps of pg_stat_statements (.csv, .json), - (stdin).",
        ),
    ],
    config: ConfigFile = None,
    tenant: TenantOption = None,
    schema: SchemaOption = None,
    role: RoleOption = None,
    policy: PolicyOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Places shown of each rule.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Reports what of an application's SQL would be refused, by file and line, grouped by rule.

    Scripts are taken apart as psql does; its own commands and the data of COPY are left out.  A dump
    has a column "query" (and perhaps "calls"), with a header line in CSV, as an array or an object a line in
    JSON.  Migrations that are programs are not parsed: let the tool print its SQL and scan that.
    Exit status: 0 nothing would be refused, 1 something would, 2 wrong usage.
    """
    scope = _scope(config, tenant, schema, role, policy)
    report = Report(limit)
    try:
        scan(scope, paths, report, sys.stdin)
    except Unusable as unusable:
        raise _usage(str(unusable)) from None
    if as_json:
        print_json(report.as_dict() | {"tenant": scope.tenant})
    else:
        _print_report(report)
    raise typer.Exit(1 if report.counts[Kind.REFUSED] else 0)


# --- in whose name --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tenant:
    name: str
    schema: str
    login: str
    role: str | None
    roles: frozenset[str]
    policy: Policy


def _scope(
    config: Path | None, tenant: str | None, schema: str | None, role: str | None, policy: Path | None
) -> GuardScope:
    keys: dict[str, Any] = {}
    try:
        if policy is not None:
            keys = load_policy(policy)
        built = load(config).config if config is not None else None
    except ConfigError as failed:
        print_problems(failed.problems)
        raise typer.Exit(2) from None
    if built is not None:
        if schema is not None or role is not None:
            raise _usage("--schema and --role are for judging without a configuration")
        found = _of_config(built, tenant)
    else:
        name = tenant or schema or "acme"
        login = role or f"{name}_app"
        found = _Tenant(name, schema or name, login, None, frozenset(), Policy())
    rules = merged(found.policy, keys)
    return GuardScope.build(
        id=1,
        tenant=found.name,
        schema=found.schema,
        policy=rules,
        login=found.login,
        role=found.role,
        roles=found.roles,
        # as on a cluster that is set up in full
        hides=rules.catalogs is not Catalogs.SHOW,
        space="x" * 13,
    )


def _of_config(config: Config, name: str | None) -> _Tenant:
    registry = Registry.build(config)
    names = list(registry.tenants)
    if name is None:
        if len(names) != 1:
            raise _usage(f"the configuration has {len(names)} tenants: name one by --tenant")
        (name,) = names
    tenant = registry.tenants.get(name)
    if tenant is None:
        hint = did_you_mean(name, names)
        raise _usage(f'there is no tenant "{name}"' + (f"; {hint}" if hint else ""))
    logins = [login.server_user for login in registry.logins.values() if name in login.tenants]
    login = logins[0] if logins else name
    return _Tenant(name, tenant.schema, login, tenant.role, frozenset(logins), tenant.policy)


def _text(sql: str | None, file: Path | None) -> str:
    if (sql is None) == (file is None):
        raise _usage("give the SQL, or a file by --file")
    if sql is not None and sql != "-":
        return sql
    try:
        if file is None or str(file) == "-":
            return sys.stdin.read(MAX_TEXT_BYTES + 1)
        with file.open(encoding="utf-8-sig") as stream:
            return stream.read(MAX_TEXT_BYTES + 1)
    except UnicodeDecodeError:
        raise _usage("the text is not UTF-8") from None
    except OSError as problem:
        raise _usage(f"{file}: {problem.strerror}") from None


def _usage(message: str) -> typer.Exit:
    error(message)
    return typer.Exit(2)


# --- the report -------------------------------------------------------------------------

_TITLES = {
    Kind.REFUSED: ("would be refused", "error"),
    Kind.UNSURE: ("depends on literals that are not in the text", "warning"),
    Kind.UNREADABLE: ("can't be read", "warning"),
}


def _print_report(report: Report) -> None:
    out = console()
    for kind, (title, style) in _TITLES.items():
        for group in report.groups(kind):
            meaning = REASONS.get(group.reason)
            head = Text.assemble(
                (title, STYLES[style]),
                f": {group.rule}",
                f", {meaning}" if meaning else "",
                f" ({group.count})",
            )
            out.print(head, soft_wrap=True)
            for place in group.places:
                ran = f", {place.calls} calls" if place.calls != 1 else ""
                out.print(
                    Text(printable(f"  {place.file}:{place.line}: {place.message}{_object(place)}{ran}")),
                    soft_wrap=True,
                )
            if group.count > len(group.places):
                out.print(Text(f"  … and {group.count - len(group.places)} more", "dim"))
    for what, number in report.skipped.items():
        if what != "other":
            line = f"not parsed: {_files(number, what + ' ')}; {PROGRAMS_HINT}"
            out.print(Text(line, STYLES["warning"]), soft_wrap=True)
    counts = report.counts
    parts = [
        f"{counts[kind]} {kind.value}"
        for kind in Kind
        if counts[kind] or kind in (Kind.ALLOWED, Kind.REFUSED)
    ]
    total = counts.total()
    sizes = f"{total} statement{'' if total == 1 else 's'} in {_files(report.files)}"
    out.print(f"{sizes}: {', '.join(parts)}", soft_wrap=True)


def _files(number: int, what: str = "") -> str:
    return f"{number} {what}file" + ("s" if number != 1 else "")


def _object(place: Place) -> str:
    return f" ({place.object})" if place.object and place.object not in place.message else ""
