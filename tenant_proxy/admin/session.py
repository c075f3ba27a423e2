"""What drivers and tools send to any server on their own account, answered so that they go on.

Settings of a session mean nothing to the console: SET is taken and forgotten,
SHOW of them gives fixed values, transactions begin and end.
"""

from __future__ import annotations

import re

import tenant_proxy
from tenant_proxy.admin import refusals
from tenant_proxy.admin.context import INT4, TEXT, AdminContext, AdminResult

#: what SHOW gives for the settings that drivers ask for, by lower-case name
SETTINGS = {
    "application_name": "",
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "extra_float_digits": "1",
    "integer_datetimes": "on",
    "intervalstyle": "postgres",
    "is_superuser": "off",
    "max_identifier_length": "63",
    "search_path": "",
    "server_encoding": "UTF8",
    "server_version": "17.0",
    "server_version_num": "170000",
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    "transaction isolation level": "read committed",
    "transaction_isolation": "read committed",
    "transaction_read_only": "off",
}
#: settings that may be SET, beside SETTINGS; nothing happens
_SETTABLE = frozenset(
    (
        "bytea_output",
        "characteristics",  # SET SESSION CHARACTERISTICS AS TRANSACTION …
        "client_min_messages",
        "idle_in_transaction_session_timeout",
        "lock_timeout",
        "names",
        "row_security",
        "statement_timeout",
        "synchronous_commit",
        "time",  # SET TIME ZONE …
        "transaction",
    )
)

_TRANSACTIONS = {
    "begin": "BEGIN",
    "start": "START TRANSACTION",
    "commit": "COMMIT",
    "end": "COMMIT",
    "rollback": "ROLLBACK",
    "abort": "ROLLBACK",
}
_CLEANING = {
    "discard all": "DISCARD ALL",
    "deallocate all": "DEALLOCATE ALL",
    "reset all": "RESET",
    "close all": "CLOSE CURSOR ALL",
    "unlisten *": "UNLISTEN",
}
_ALIAS = re.compile(r"^(.*?)(?:\s+as\s+\"?(\w+)\"?)?$", re.IGNORECASE | re.DOTALL)


def answer(words: list[str], statement: str, ctx: AdminContext) -> AdminResult | None:
    """The answer to such a statement (`words` are its first ones, lower case), or None if it is none."""
    first = words[0]
    if first in _TRANSACTIONS:
        return AdminResult(tag=_TRANSACTIONS[first])
    if (tag := _CLEANING.get(" ".join(words[:2]))) is not None:
        return AdminResult(tag=tag)
    if first in ("set", "reset"):
        return _set(words, first.upper())
    if first == "select":
        return _select(statement, ctx)
    return None


def show_setting(name: str) -> AdminResult | None:
    value = SETTINGS.get(name)
    if value is None:
        return None
    return AdminResult(columns=[(name.replace(" ", "_"), TEXT)], rows=[[value]])


def _set(words: list[str], tag: str) -> AdminResult:
    names = [word for word in words[1:3] if word not in ("local", "session")]
    name = names[0].partition("=")[0].strip('"') if names else ""
    if name not in SETTINGS and name not in _SETTABLE:
        raise refusals.unsupported(
            f'{tag} of "{name}"', "Settings of the proxy are changed in its configuration file and by RELOAD."
        )
    return AdminResult(tag=tag)


def _select(statement: str, ctx: AdminContext) -> AdminResult | None:
    """A list of constants and of functions that tell who and where one is."""
    known: dict[str, tuple[str, int, str | None]] = {
        "version()": ("version", TEXT, f"PostgreSQL 17.0 (tenant_proxy {tenant_proxy.__version__} console)"),
        "current_database()": ("current_database", TEXT, "tenant_proxy"),
        "current_catalog": ("current_catalog", TEXT, "tenant_proxy"),
        "current_user": ("current_user", TEXT, ctx.login),
        "session_user": ("session_user", TEXT, ctx.login),
        "user": ("user", TEXT, ctx.login),
        "current_schema()": ("current_schema", TEXT, None),
        "current_schema": ("current_schema", TEXT, None),
        "pg_is_in_recovery()": ("pg_is_in_recovery", TEXT, "f"),
        "pg_advisory_unlock_all()": ("pg_advisory_unlock_all", TEXT, ""),
        "null": ("?column?", TEXT, None),
        "true": ("bool", TEXT, "t"),
    }
    result = AdminResult(rows=[[]], tag="SELECT 1")
    for item in statement.strip()[len("select") :].split(","):
        match = _ALIAS.match(item.strip())
        assert match is not None  # it matches any text
        expression = match[1].strip().lower().removeprefix("pg_catalog.")
        if re.fullmatch(r"-?\d{1,9}", expression):
            name, oid, value = "?column?", INT4, expression
        elif re.fullmatch(r"'[^']*'", match[1].strip()):
            name, oid, value = "?column?", TEXT, match[1].strip()[1:-1]
        elif expression in known:
            name, oid, value = known[expression]
        else:
            return None
        result.columns.append((match[2] or name, oid))
        result.rows[0].append(value)
    return result
