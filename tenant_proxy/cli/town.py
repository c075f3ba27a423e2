"""What the commands of the tenants' life have in common: how verbs are called, and how their answers look."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.cli import remote
from tenant_proxy.cli.output import console, error, print_json, print_problems

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from tenant_proxy.cli.progress import Watcher
    from tenant_proxy.config.schema import Config
    from tenant_proxy.lifecycle.door import Door
    from tenant_proxy.lifecycle.verbs import Verbs

T = TypeVar("T")

#: to the catalog at most; opened when they are needed, by verbs about many tenants at once
_CONNECTIONS = 8

PlaceOption = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar="TENANT_PROXY_CONFIG",
        default_factory=remote.no_file,
        help="The configuration file; not needed with --url.",
        show_default=False,
        metavar="FILE",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Prints JSON.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Prints the SQL that would be run, and changes nothing anywhere.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Does not ask.")]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="NAME=VALUE", help="May be given again.")
]

#: of states, wherever they are shown
STATES = {
    "draft": "dim",
    "provisioning": "cyan",
    "ready": "cyan",
    "active": "green",
    "suspended": "yellow",
    "deleting": "red",
    "erased": "dim",
    "failed": "bold red",
    "running": "cyan",
    "undoing": "yellow",
    "done": "green",
    "undone": "yellow",
    "waiting": "cyan",
    "delivered": "green",
}


def configuration(path: Path) -> Config:
    from tenant_proxy.config.load import load
    from tenant_proxy.config.problems import ConfigError

    try:
        return load(path).config
    except ConfigError as failed:
        print_problems(failed.problems)
        raise typer.Exit(1) from None


def call(
    path: Path, verb: Callable[[Verbs], Awaitable[T]], *, as_json: bool = False, dry_run: bool = False
) -> T:
    """What the verb answers; what it can't do is said in a line or three, and ends the command.

    With `dry_run` it is only tried: the SQL is printed, and the command ends.
    """
    config = configuration(path)

    async def run() -> T | None:
        from tenant_proxy.lifecycle.context import Context

        # the verbs are imported while the catalog's server makes a process for us
        loop = asyncio.get_running_loop()
        importing = loop.run_in_executor(None, import_module, "tenant_proxy.lifecycle.verbs")
        async with await Context.open(config, connections=_CONNECTIONS) as context:
            await importing
            from tenant_proxy.lifecycle.verbs import Verbs

            if not dry_run:
                return await verb(Verbs(context))
            async with context.rehearsing() as rehearsal:
                await verb(Verbs(rehearsal))
            assert rehearsal.rehearsal is not None
            print_sql(rehearsal.rehearsal.shown(), as_json=as_json)
            return None

    try:
        answer = asyncio.run(run())
    except Failure as failure:
        fail(failure, as_json=as_json)
    if answer is None and dry_run:
        raise typer.Exit
    return answer  # type: ignore[return-value]


def ask(
    path: Path,
    verb: Callable[[Door], Awaitable[T]],
    *,
    as_json: bool = False,
    dry_run: bool = False,
    watcher: Watcher | None = None,
) -> T:
    """As `call`; but by the API where its address was given.  `watcher` is told how far it is."""
    url = remote.url()
    if url is None:

        async def watched(verbs: Verbs) -> T:
            verbs.context.watcher = watcher
            return await verb(verbs)

        return call(path, watched, as_json=as_json, dry_run=dry_run)

    async def run() -> T:
        from tenant_proxy.api.client import Client

        client = Client(url, remote.token(), rehearse=dry_run)
        client.watcher = watcher
        try:
            return await verb(client)
        finally:
            await client.close()

    from tenant_proxy.api.asking import Rehearsed

    try:
        answer = asyncio.run(run())
    except Failure as failure:
        fail(failure, as_json=as_json)
    except Rehearsed as rehearsed:
        print_sql(rehearsed.sql, as_json=as_json)
        raise typer.Exit from None
    if dry_run:  # there was nothing to try
        print_sql([], as_json=as_json)
        raise typer.Exit
    return answer


def checked(make: Callable[[], T], as_json: bool) -> T:
    """Of what was given on the command line."""
    try:
        return make()
    except Failure as failure:
        fail(failure, as_json=as_json)


def fail(failure: Failure, *, as_json: bool = False) -> NoReturn:
    if as_json:
        print_json({"error": failure.to_json()})
    else:
        print_failure(failure)
    raise typer.Exit(1)


def print_failure(failure: Failure, about: str = "") -> None:
    from rich.text import Text

    error(about + failure.message)
    out = console(stderr=True)
    for line in failure.detail.splitlines() if failure.detail else ():
        out.print(Text(f"  {line}"), soft_wrap=True)
    if failure.hint:
        out.print(Text.assemble(("  hint: ", "cyan"), failure.hint), soft_wrap=True)


def print_sql(statements: Sequence[str], *, as_json: bool = False) -> None:
    """As it would be run; nothing wrapped, so that it may be copied."""
    if as_json:
        print_json({"sql": list(statements)})
        return
    typer.echo("".join(f"{one}\n" for one in statements) or "-- nothing to do\n", nl=False)


def say(text: str | Text, style: str = "") -> None:
    from rich.text import Text

    console().print(Text(text, style) if isinstance(text, str) else text, soft_wrap=True)


def finished(text: str, names: dict[str, Any], as_json: bool) -> None:
    """Of verbs that answer nothing: what was asked for is so, with what."""
    if as_json:
        print_json({"done": True, **names})
    else:
        say(text)


def table(*titles: str) -> Table:
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold")
    for title in titles:
        made.add_column(title, overflow="fold")
    return made


def print_table(made: Table, empty: str) -> None:
    console().print(made) if made.row_count else say(empty, "dim")


def state(name: str) -> Text:
    from rich.text import Text

    return Text(name, STATES.get(name, ""))


def when(time: datetime | None) -> str:
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def pairs(given: Iterable[str] | None, what: str = "--label") -> dict[str, str]:
    """NAME=VALUE …"""
    found: dict[str, str] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{what} takes NAME=VALUE, not {one!r}")
        found[name] = value
    return found


def spec(given: Iterable[str] | None, unset: Iterable[str] | None = None) -> dict[str, Any]:
    """`--set pool.max=5 --set settings.work_mem=4MB` as a patch of a Spec; null takes a key away."""
    import yaml

    patch: dict[str, Any] = {}
    for name, text in pairs(given, "--set").items():
        _put(patch, name, text if name.startswith("settings.") else yaml.safe_load(text))
    for name in unset or ():
        _put(patch, name, None)
    return patch


def _put(patch: dict[str, Any], name: str, value: Any) -> None:
    outer, dot, inner = name.partition(".")
    if dot:
        patch.setdefault(outer, {})[inner] = value
    else:
        patch[outer] = value


_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds(text: str) -> float:
    """30d, 12h, 90s …"""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time: write 90s, 30min, 12h, 30d or 4w")
    return float(match[1]) * _UNITS[match[2]]


def moment(text: str | None) -> datetime | None:
    """A time from now (30d), or a date (2027-01-31)."""
    if text is None or text == "never":
        return None
    if re.match(r"\d{4}-", text):
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no date: write 2027-01-31") from None
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds(text))


def confirm(question: str, yes: bool) -> None:
    if not yes and not typer.confirm(question, err=True):
        raise typer.Exit(1)


def compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- shell completion --------------------------------------------------------------------------------


def _complete(context: typer.Context, query: str, incomplete: str) -> list[str]:
    """Names from the catalog; nothing at all where that does not work: a shell is no place for errors."""
    import os

    path = context.params.get("config") or os.environ.get("TENANT_PROXY_CONFIG")
    if not path:
        return []

    from tenant_proxy.config.load import load
    from tenant_proxy.config.problems import ConfigError

    async def read() -> list[str]:
        from tenant_proxy.catalog.store import Store

        dsn = load(path).config.catalog.dsn
        if dsn is None:
            return []
        async with await Store.connect(dsn.reveal(), connections=1) as store:
            async with store.read() as connection:
                return [row[0] for row in await connection.fetch(query, incomplete)]

    try:
        return asyncio.run(read())
    except (Failure, ConfigError):
        return []


def complete_tenant(ctx: typer.Context, incomplete: str) -> list[str]:
    query = "SELECT name FROM tenant WHERE state <> 'erased' AND starts_with(name, $1) ORDER BY 1 LIMIT 200"
    return _complete(ctx, query, incomplete)


def complete_login(ctx: typer.Context, incomplete: str) -> list[str]:
    return _complete(
        ctx, "SELECT name FROM login WHERE starts_with(name, $1) ORDER BY 1 LIMIT 200", incomplete
    )


def complete_role(ctx: typer.Context, incomplete: str) -> list[str]:
    query = "SELECT DISTINCT name FROM custom_role WHERE starts_with(name, $1) ORDER BY 1 LIMIT 200"
    standard = [name for name in ("owner", "readwrite", "readonly") if name.startswith(incomplete)]
    return standard + _complete(ctx, query, incomplete)


def complete_plan(ctx: typer.Context, incomplete: str) -> list[str]:
    return _complete(
        ctx, "SELECT name FROM plan WHERE starts_with(name, $1) ORDER BY 1 LIMIT 200", incomplete
    )


TenantArgument = Annotated[
    str, typer.Argument(metavar="TENANT", autocompletion=complete_tenant, show_default=False)
]
LoginArgument = Annotated[
    str, typer.Argument(metavar="LOGIN", autocompletion=complete_login, show_default=False)
]
PlanOption = Annotated[
    str | None, typer.Option("--plan", metavar="PLAN", autocompletion=complete_plan, show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A value other than the plan's: pool.max=5. May be given again."
    ),
]
