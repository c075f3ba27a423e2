"""tenant-proxy version"""

from __future__ import annotations

import typer

from tenant_proxy import __version__


def version() -> None:
    """Shows the version."""
    typer.echo(f"tenant-proxy {__version__}")
