"""The admin console: the text of a simple query in, a result out.

Spoken on the databases "tenant_proxy" and "pgbouncer" by logins with `admin` or
`stats`; the commands are PgBouncer's where it has them.  The console does not
run SQL; what drivers send on their own account is answered in `session`.
"""

from __future__ import annotations

import itertools
import re

from tenant_proxy import errors
from tenant_proxy.admin import refusals, session
from tenant_proxy.admin.commands import COMMANDS
from tenant_proxy.admin.context import AdminContext, AdminResult
from tenant_proxy.admin.show import SHOWS
from tenant_proxy.obs.log import get_logger

log = get_logger("admin")

__all__ = ["AdminContext", "AdminResult", "run"]

#: the longest query text, in characters, and how many statements it may have
MAX_TEXT = 10_000
MAX_STATEMENTS = 20
#: how much of an unknown command an error repeats
_SHOWN = 60

# Strings, quoted names and comments as a whole, so that a ; in them ends nothing.
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<end>;)|(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*"|[^;'"/-]+|.)""",
    re.DOTALL,
)


async def run(sql: str, ctx: AdminContext) -> AdminResult:
    """The results of all statements of `sql`, chained; ProxyError for the first that fails."""
    if len(sql) > MAX_TEXT:
        raise errors.statement_too_large(len(sql), MAX_TEXT)
    statements = split(sql)
    if len(statements) > MAX_STATEMENTS:
        raise refusals.unsupported(f"a query of more than {MAX_STATEMENTS} statements")
    if not statements:
        return AdminResult(tag="")
    results = [await _run_one(statement, ctx) for statement in statements]
    for result, following in itertools.pairwise(results):
        result.then = following
    return results[0]


def split(sql: str) -> list[str]:
    """The statements of a text, without comments, empty ones and the semicolons."""
    statements = [""]
    for token in _TOKEN.finditer(sql):
        if token["end"]:
            statements.append("")
        else:
            statements[-1] += " " if token["comment"] else token["text"]
    return [statement.strip() for statement in statements if statement.strip()]


async def _run_one(statement: str, ctx: AdminContext) -> AdminResult:
    words = statement.lower().split()
    if words[0] == "show":
        return await _show(words[1:], ctx)
    for length in (2, 1):
        name = " ".join(words[:length])
        command = COMMANDS.get(name)
        if command is not None:
            # before the argument is looked at: who may not run it learns nothing from it
            if not ctx.is_admin:
                raise refusals.denied(name.upper())
            log.info("admin command", command=_cut(statement), user=ctx.login)
            return await command.run(statement.split()[length:], ctx)
    result = session.answer(words, statement, ctx)
    if result is not None:
        return result
    if words[0] in _SQL:
        raise refusals.unsupported(f"{words[0].upper()} (the admin console does not run SQL)")
    raise refusals.unknown_command(_cut(statement))


async def _show(words: list[str], ctx: AdminContext) -> AdminResult:
    name = " ".join(words)
    show = SHOWS.get(name)
    if show is not None:
        return await show.run(ctx)
    setting = session.show_setting(name.strip('"'))
    if setting is not None:
        return setting
    raise refusals.unknown_command(_cut(f"SHOW {name}".strip()))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


_SQL = frozenset(
    (
        "alter", "analyze", "call", "copy", "create", "delete", "do", "drop", "execute", "explain", "fetch",
        "grant", "insert", "listen", "lock", "merge", "notify", "prepare", "revoke", "select", "table",
        "truncate", "update", "vacuum", "values", "with",
    )
)  # fmt: skip
