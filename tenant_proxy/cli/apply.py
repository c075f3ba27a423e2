"""tenant-proxy apply"""

from __future__ import annotations

from collections import Counter
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tenant_proxy.cli.output import print_json
from tenant_proxy.cli.progress import watched
from tenant_proxy.cli.town import (
    JsonOption,
    PlaceOption,
    YesOption,
    ask,
    checked,
    confirm,
    print_failure,
    say,
)
from tenant_proxy.lifecycle import declared

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.declared import Change, Made
    from tenant_proxy.lifecycle.door import Door

_STYLES = {"+": "green", "~": "yellow", "-": "red", "?": "dim"}
_WORDS = {"+": "to be made", "~": "to be changed", "-": "to be taken away", "?": "left as they are"}


def apply(
    config: PlaceOption,
    files: Annotated[
        list[Path], typer.Option("--file", "-f", metavar="PATH", help="A file or directory of YAML.")
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Deletes tenants that are declared nowhere (with their grace).")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Shows what differs, and changes nothing.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Makes plans, tenants and access as files declare them: shows what differs, asks, and does it.

    With --dry-run the exit status is 1 if something differs, so that drift can be watched.
    """
    wanted = checked(lambda: declared.read(files), as_json)

    async def compare(verbs: Door) -> list[Change]:
        return await declared.difference(verbs, wanted, prune=prune)

    changes = ask(config, compare, as_json=as_json)
    todo = [change for change in changes if change.make is not None]
    if not as_json:
        _print(changes)
    if dry_run or not todo:
        if as_json:
            print_json({"changes": [change.to_json() for change in changes]})
        raise typer.Exit(1 if todo else 0)
    confirm(f"Make these {len(todo)} changes?", yes)

    async def run(verbs: Door) -> Made:
        done = count(1)
        with watched(show=not as_json) as watcher:
            if watcher is None:
                return await declared.make(verbs, todo)
            return await declared.make(verbs, todo, lambda _: watcher("applying", next(done), len(todo)))

    made = ask(config, run, as_json=as_json)
    if as_json:
        print_json(
            {
                "done": [change.to_json() for change in made.done],
                "failed": [{**change.to_json(), **failure.to_json()} for change, failure in made.failed],
                "granted": [granted.to_json() for granted in made.granted],
            }
        )
    else:
        for granted in made.granted:
            say(f"{granted.access.login}: {granted.dsn}")
        say(f"{len(made.done)} changes made")
        for change, failure in made.failed:
            print_failure(failure, f"{change.kind} {change.name}: ")
    raise typer.Exit(1 if made.failed else 0)


def _print(changes: list[Change]) -> None:
    for change in changes:
        line = Text.assemble((f"{change.sign} ", _STYLES[change.sign]), f"{change.kind} {change.name}")
        if change.details:
            line.append(f"  {', '.join(change.details)}", "dim")
        say(line)
    counts = Counter[str](change.sign for change in changes)
    words = [f"{counts[sign]} {word}" for sign, word in _WORDS.items() if counts[sign]]
    say(", ".join(words) or "all is as declared")
