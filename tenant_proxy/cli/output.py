"""How commands speak: results on stdout, everything else on stderr, colours only at a terminal.

rich is imported where something is laid out: what prints one line starts sooner without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tenant_proxy.config.problems import Problem

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar="TENANT_PROXY_CONFIG",
        help="The configuration file.",
        show_default=False,
        metavar="FILE",
    ),
]


#: columns where the output is no terminal: what goes to a file or pipe is not to be wrapped
_WIDE = 500


def console(*, stderr: bool = False) -> Console:
    """Made when it is used, so that it writes to where stdout is then."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=None if terminal else _WIDE)


def error(message: str) -> None:
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("tenant-proxy: ", "bold red"), message), soft_wrap=True)


def printable(text: str) -> str:
    """Text of others without what would move a terminal; tabs and line breaks stay."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_problems(problems: Iterable[Problem]) -> None:
    """One line each, as compilers do: file:line:column: severity: …"""
    from rich.text import Text

    out = console(stderr=True)
    for problem in problems:
        before, found, after = str(problem).partition(f" {problem.severity}: ")
        out.print(Text.assemble(before, (found, STYLES[problem.severity]), after), soft_wrap=True)
