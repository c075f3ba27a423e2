"""Where commands of the tenants' life are done: by an API, if its address was given."""

from __future__ import annotations

import os
from pathlib import Path

import typer

_url: str | None = None


def set_url(url: str | None) -> None:
    """Of this command."""
    global _url  # noqa: PLW0603 (one command a process, and it is set before anything else)
    _url = url or None


def url() -> str | None:
    return _url


def no_file() -> Path:
    """Where there is a URL no configuration is needed."""
    if _url is None:
        raise typer.BadParameter(
            "is missing: give --config FILE (or TENANT_PROXY_CONFIG), or the --url of an API",
            param_hint="'--config'",
        )
    return Path(os.devnull)


def token() -> str:
    """Never of the command line, which others on the machine can read."""
    given = os.environ.get("TENANT_PROXY_TOKEN", "")
    path = os.environ.get("TENANT_PROXY_TOKEN_FILE")
    if not given and path:
        given = Path(path).read_text("utf-8").strip()
    if not given:
        raise typer.BadParameter("there is no token: set TENANT_PROXY_TOKEN, or TENANT_PROXY_TOKEN_FILE")
    return given
