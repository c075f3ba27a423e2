"""The command `tenant-proxy`: one command a module.

Exit status: 0 all is well, 1 problems were found (or the command failed), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from tenant_proxy.cli import catalog, check, config, guard, hash_password, serve, version
from tenant_proxy.cli.output import error

__all__ = ["app", "main"]

app = typer.Typer(
    name="tenant-proxy",
    help="One PostgreSQL cluster serves many tenants, each in its own schema.",
    epilog="Exit status: 0 all is well, 1 problems were found, 2 wrong usage.",
    no_args_is_help=True,
    # no traceback reaches an operator, and no local variables (they may hold secrets) get anywhere
    pretty_exceptions_enable=False,
)
app.command()(serve.serve)
app.command()(check.check)
app.command("hash-password")(hash_password.hash_password)
app.add_typer(config.config_app)
app.add_typer(catalog.catalog_app)
app.add_typer(guard.guard_app)
app.command()(version.version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status; console script and `python -m tenant_proxy`."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="tenant-proxy")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    except OSError as problem:
        error(f"{problem.strerror or problem}" + (f": {problem.filename}" if problem.filename else ""))
        return 1
    except Exception as problem:  # the place is enough to find it; the text may hold what it should not
        trace = problem.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"
        error(f"internal error ({type(problem).__name__} at {place}), please report it")
        return 1
    return 0
