"""Connections of the control process to the catalog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from tenant_proxy.config.schema import Config

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

SCHEMA: Final = "tenant_proxy"
CONNECT_S: Final = 10.0
QUERY_S: Final = 30.0

#: what ends a connection, or keeps it from being made
FAILURES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # when the server's last words have been read, and the connection's end not yet
    asyncpg.InternalClientError,
    ValueError,
)


async def connect(config: Config, application: str, **options: Any) -> Connection:
    """`options` are asyncpg's; one of FAILURES where it can't be had."""
    dsn = config.catalog.dsn
    if dsn is None:
        raise ValueError("no catalog is configured")
    connection: Connection = await asyncpg.connect(
        dsn.reveal(),
        timeout=CONNECT_S,
        command_timeout=QUERY_S,
        server_settings={"search_path": SCHEMA, "application_name": application[:63], "timezone": "UTC"},
        **options,
    )
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=orjson.loads, format="text"
    )
    return connection
