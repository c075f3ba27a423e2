"""SHOW HELP: every command, as rows."""

from __future__ import annotations

from tenant_proxy.admin.commands import COMMANDS
from tenant_proxy.admin.context import TEXT, AdminResult, Column, table

COLUMNS: list[Column] = [("command", TEXT), ("description", TEXT)]


def table_of(shows: dict[str, str]) -> AdminResult:
    """`shows` is the name of each SHOW and its sentence."""
    rows = [{"command": f"SHOW {name.upper()}", "description": text} for name, text in sorted(shows.items())]
    rows += [{"command": c.usage, "description": c.help} for c in COMMANDS.values() if c.usage]
    return table(COLUMNS, rows)
