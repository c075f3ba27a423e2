"""tenant-proxy hash-password"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tenant_proxy.auth.scram import DEFAULT_ITERATIONS, build_verifier
from tenant_proxy.cli.output import error


def hash_password(
    iterations: Annotated[
        int, typer.Option(min=4096, max=10_000_000, help="Work to try one password.")
    ] = DEFAULT_ITERATIONS,
) -> None:
    """Makes a SCRAM-SHA-256 verifier of a password, for a user's key `verifier`.

    Asks for the password twice, or reads one line when the input is not a terminal.
    PostgreSQL takes the verifier too: ALTER ROLE name PASSWORD 'verifier'.
    """
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            error("the password is not UTF-8 text")
            raise typer.Exit(1) from None
        password = line.removesuffix("\n").removesuffix("\r")
    if not password:
        error("the password is empty")
        raise typer.Exit(1)
    if "\0" in password:
        error("the password holds a NUL byte")
        raise typer.Exit(1)
    typer.echo(str(build_verifier(password, iterations=iterations)))
