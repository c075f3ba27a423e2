"""tenant-proxy check"""

from __future__ import annotations

from typing import Annotated

import typer

from tenant_proxy.cli.output import ConfigOption, console, print_json, print_problems
from tenant_proxy.config.load import load
from tenant_proxy.config.problems import ConfigError


def check(
    config: ConfigOption,
    offline: Annotated[bool, typer.Option("--offline", help="Looks at the file only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Prints JSON.")] = False,
) -> None:
    """Validates the file, then logs in to the clusters and says what is missing there.

    Every problem is shown with its line and the allowed values, every finding with the SQL that mends it.
    """
    try:
        problems = list(load(config).warnings)
        good = True
    except ConfigError as failed:
        problems, good = failed.problems, False
    if as_json:
        print_json({"ok": good, "problems": [problem.to_json() for problem in problems]})
    else:
        print_problems(problems)
        if good:
            console().print(f"{config}: the file is valid", soft_wrap=True)
    raise typer.Exit(0 if good else 1)
