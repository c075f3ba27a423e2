"""What `check` finds of the catalog that a configuration names: whether it is there, in this version.

It is in no cluster's database, or need not be, so its findings have no cluster.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg

from tenant_proxy.catalog import migrate
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.cli.clusters import Finding
from tenant_proxy.config.schema import Config

_TIMEOUT_S = 10.0


async def examine(config: Config) -> list[Finding]:
    """Nothing where no catalog is named; never raises for what a server does."""
    if config.catalog.dsn is None:
        return []
    try:
        connection = await asyncpg.connect(
            config.catalog.dsn.reveal(),
            timeout=_TIMEOUT_S,
            command_timeout=_TIMEOUT_S,
            statement_cache_size=0,
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return [_error("catalog_unreachable", f"the catalog can't be reached: {text or 'it takes too long'}")]
    try:
        await migrate.check(connection)
    except Failure as failure:
        return [_error("catalog_outdated", f"{failure.message}; {failure.hint}")]
    except asyncpg.InsufficientPrivilegeError:
        text = (
            "this login may not read at which version the catalog is; tenant-proxy db migrate --follower ROLE"
        )
        return [Finding("info", "", "", "catalog_unknown", text)]
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return [_error("catalog_unreachable", f"the catalog can't be read: {error}")]
    finally:
        connection.terminate()
    return []


def place(config: Config) -> str:
    """For people: without the password."""
    assert config.catalog.dsn is not None
    try:
        parts = urlsplit(config.catalog.dsn.reveal())
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}, database {parts.path.lstrip('/')}"
    except ValueError:
        return "of catalog.dsn"


def _error(code: str, text: str) -> Finding:
    return Finding("error", "", "", code, text)
