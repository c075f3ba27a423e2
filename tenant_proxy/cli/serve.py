"""tenant-proxy serve"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from tenant_proxy.cli.output import ConfigOption


def serve(
    config: ConfigOption,
    pidfile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Writes the process id there.", show_default=False)
    ] = None,
) -> None:
    """Serves until a signal says stop.

    SIGHUP reloads the configuration, SIGTERM drains and stops, SIGINT stops at once.
    """
    # imported here: the other commands start without the machinery of processes
    from tenant_proxy.supervisor import run

    gc.set_threshold(20_000, 20, 100)  # as its workers have: this one stays
    raise typer.Exit(run(config, pidfile=pidfile))
