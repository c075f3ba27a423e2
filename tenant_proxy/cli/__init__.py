"""The command `tenant-proxy`: one command, or group of them, a module, imported when it is asked for.

Exit status: 0 all is well, 1 problems were found (or the command failed), 2 wrong usage.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from copy import copy
from enum import EnumType
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from tenant_proxy.cli import remote
from tenant_proxy.system import without_plugins

__all__ = ["app", "main"]

#: containers that are made before garbage is looked for: nearly all that a command makes it needs to its end
_GARBAGE_AT: Final = 100_000

#: name -> (module, what in it is the command or the group); in the order of the help
COMMANDS: Final = {
    "serve": ("serve", "serve"),
    "check": ("check", "check"),
    "hash-password": ("hash_password", "hash_password"),
    "config": ("config", "config_app"),
    "tenant": ("tenant", "tenant_app"),
    "access": ("access", "access_app"),
    "plan": ("plan", "plan_app"),
    "apply": ("apply", "apply"),
    "migrate": ("migrate", "migrate_app"),
    "job": ("job", "job_app"),
    "audit": ("audit", "audit_app"),
    "usage": ("usage", "usage_app"),
    "db": ("db", "db_app"),
    "api": ("api", "api_app"),
    "token": ("token", "token_app"),
    "webhook": ("webhook", "webhook_app"),
    "catalog": ("catalog", "catalog_app"),
    "guard": ("guard", "guard_app"),
    "version": ("version", "version"),
}

#: name -> module with more commands of the group, imported when one is asked for that its own has not
_MORE: Final = {"tenant": "estates"}


class _Commands(TyperGroup):
    """Importing all of them would take longer than what most of them do.

    Whose classes contexts and commands are, click's or typer's own, depends on typer's version.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if len(args) > 1 and args[0] in COMMANDS:
            found = _imported(args[0], args[1])
            if isinstance(found, typer.Typer):
                # typer makes all commands of a group, which takes longer than to run one
                named = _named(found, args[1])
                if named:
                    narrow = copy(found)
                    narrow.registered_commands = named
                    return args[0], _quick(get_group(narrow)), args[1:]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        found = _imported(cmd_name)
        if isinstance(found, typer.Typer):
            return get_group(found)
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name)(found)
        return get_command(alone)


def _imported(name: str, command: str | None = None) -> Any:
    """The command or the group; of a group all commands, or `command` if it is there."""
    module, attribute = COMMANDS[name]
    found = getattr(import_module(f"tenant_proxy.cli.{module}"), attribute)
    more = _MORE.get(name)
    if more is not None and (command is None or not _named(found, command)):
        module = f"tenant_proxy.cli.{more}"
        if module not in sys.modules:
            import_module(module).add_to(found)
    return found


def _named(group: typer.Typer, command: str) -> list[Any]:
    return [one for one in group.registered_commands if _name_of(one) == command]


def _quick(group: Any) -> Any:
    """Typer makes a validator by pydantic for each option, whether it is given or not, and of words too: all
    those of `tenant onboard` take as long as onboarding the tenant.
    """
    for command in group.commands.values():
        for parameter in command.params:
            if hasattr(parameter, "get_runtime_param"):  # versions before that took nothing for it
                parameter.process_value = partial(_processed, parameter, parameter.process_value)
    return group


def _processed(parameter: Any, process: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    is_given = value is not None or parameter.required or parameter.callback is not None
    if not is_given:
        return () if parameter.multiple or parameter.nargs == -1 else None
    descriptor = parameter.type_descriptor
    if parameter.callback is None:
        if _is_one(value, descriptor.annotation):
            return value
        if descriptor.annotation is Path and isinstance(value, str) and not _looks(descriptor.parameter_info):
            return Path(value)
    return process(context, value)


def _is_one(value: Any, wanted: Any) -> bool:
    """Numbers may have bounds, and are left to it."""
    return (wanted in (str, bool, Path) or isinstance(wanted, EnumType)) and isinstance(value, wanted)


def _looks(option: Any) -> bool:
    """Whether a path has to be what the option says."""
    return bool(option.exists or option.resolve_path or option.allow_dash)


def _name_of(command: Any) -> str | None:
    name: str | None = command.name or command.callback.__name__
    return name


app = typer.Typer(
    cls=_Commands,
    name="tenant-proxy",
    help="One PostgreSQL cluster serves many tenants, each in its own schema.",
    epilog="Exit status: 0 all is well, 1 problems were found, 2 wrong usage.",
    no_args_is_help=True,
    # no traceback reaches an operator, and no local variables (they may hold secrets) get anywhere
    pretty_exceptions_enable=False,
)


@app.callback()
def _root(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="TENANT_PROXY_URL",
            metavar="URL",
            help="Tenants are asked for by the API there, with the token in TENANT_PROXY_TOKEN.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """One PostgreSQL cluster serves many tenants, each in its own schema."""
    remote.set_url(url)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status; console script and `python -m tenant_proxy`, where it
    does not return: taking apart what was imported takes longer than many a command.
    """
    if arguments is not None:
        return _run(list(arguments))
    gc.set_threshold(_GARBAGE_AT)
    without_plugins()
    status = _run(None)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # who read it has gone
        status = status or 1
    os._exit(status)


def _url_first(arguments: list[str]) -> list[str]:
    """`--url` stands before the command, and people write it behind: what a tool is given apart, it is taken
    from anywhere.
    """
    own = arguments.index("--") if "--" in arguments else len(arguments)
    if arguments[:2] == ["migrate", "exec"]:
        return arguments
    for place, word in enumerate(arguments[:own]):
        if place and (word == "--url" or word.startswith("--url=")):
            end = place + (2 if word == "--url" else 1)
            return [*arguments[place:end], *arguments[:place], *arguments[end:]]
    return arguments


def _run(arguments: list[str] | None) -> int:
    try:
        app(args=_url_first(sys.argv[1:] if arguments is None else arguments), prog_name="tenant-proxy")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    except OSError as problem:
        _error(f"{problem.strerror or problem}" + (f": {problem.filename}" if problem.filename else ""))
        return 1
    except Exception as problem:  # the place is enough to find it; the text may hold what it should not
        trace = problem.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"
        _error(f"internal error ({type(problem).__name__} at {place}), please report it")
        return 1
    return 0


def _error(message: str) -> None:
    from tenant_proxy.cli.output import error

    error(message)
