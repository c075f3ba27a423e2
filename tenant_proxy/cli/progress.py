"""How far a long piece of work is: a bar with rate and remaining time at a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tenant_proxy.cli.output import console

#: told what is being done, how much of it is done, and of how much
Watcher = Callable[[str, int, int], None]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None or task.total in (None, 1) else f"{speed:,.0f}/s", "dim")


@contextmanager
def watched(*, show: bool = True) -> Iterator[Watcher | None]:
    """A bar for each thing that is done, one below the other."""
    out = console(stderr=True)
    if not show or not out.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description:>14}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out) as bars:
        tasks: dict[str, int] = {}

        def watcher(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield watcher
