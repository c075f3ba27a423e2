"""SHOW CONFIG: the settings in force, by their dotted names, and PgBouncer's names where tools ask for them.

Clusters, tenants and users have commands of their own; they hold the secrets,
so they are left out here, and a SecretRef anywhere else would be masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from pydantic import BaseModel, SecretStr

from tenant_proxy.admin.context import TEXT, AdminContext, AdminResult, Column, table
from tenant_proxy.config.reload import FIXED_KEYS
from tenant_proxy.config.schema import Config, SecretRef

# Exactly these four: pgbouncer_exporter takes no other number of columns.
COLUMNS: list[Column] = [("key", TEXT), ("value", TEXT), ("default", TEXT), ("changeable", TEXT)]

_LEFT_OUT = frozenset(("clusters", "tenants", "users"))
#: PgBouncer's name -> ours, or a fixed value where we have no such limit
_ALIASES = {
    "default_pool_size": "pool.max",
    "listen_backlog": "listen.backlog",
    "listen_port": "listen.port",
    "max_client_conn": "limits.max_clients",
    "max_prepared_statements": "pool.max_prepared_statements",
    "min_pool_size": "pool.min",
    "pool_mode": "pool.mode",
    "query_timeout": "pool.query_timeout_s",
    "query_wait_timeout": "pool.queue_timeout_s",
    "server_idle_timeout": "pool.server_idle_timeout_s",
    "server_lifetime": "pool.server_lifetime_s",
}


async def show(ctx: AdminContext) -> AdminResult:
    values = dict(_settings(ctx.config))
    defaults = dict(_settings(_defaults(ctx.config)))
    rows = [
        {
            "key": key,
            "value": value,
            "default": defaults.get(key),
            "changeable": "no" if key in FIXED_KEYS else "yes",
        }
        for key, value in values.items()
    ]
    for name, key in _ALIASES.items():
        row = next(row for row in rows if row["key"] == key)
        rows.append({**row, "key": name})
    rows.append({"key": "max_user_connections", "value": "0", "default": "0", "changeable": "no"})
    return table(COLUMNS, sorted(rows, key=lambda row: str(row["key"])))


def _defaults(config: Config) -> Config:
    return Config(clusters=config.clusters)


def _settings(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name in type(section).model_fields:
        if not prefix and name in _LEFT_OUT:
            continue
        value = getattr(section, name)
        if isinstance(value, SecretRef):
            yield prefix + name, "***"
        elif isinstance(value, BaseModel):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _to_text(value)


def _to_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case Enum():
            return str(value.value)
        case SecretStr():
            return "***"
        case list() | tuple():
            return ", ".join(_to_text(item) for item in value)
        case BaseModel():
            return " ".join(f"{name}={text}" for name, text in _settings(value))
        case _:
            return str(value)
