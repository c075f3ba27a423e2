"""What `check` finds of the catalog that a configuration names: whether it is there, in this version, and
whether what it has can be served beside the file.

It is in no cluster's database, or need not be, so its findings have no cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import asyncpg

from tenant_proxy.catalog import migrate
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.cli.clusters import Finding
from tenant_proxy.config.schema import Config
from tenant_proxy.control import catalog
from tenant_proxy.control.served_rows import login_row, tenant_row
from tenant_proxy.tenancy.records import Served
from tenant_proxy.tenancy.registry import Registry

if TYPE_CHECKING:
    from tenant_proxy.control.catalog import Connection

#: so many of a kind are named
_SHOWN: Final = 20


async def examine(config: Config) -> list[Finding]:
    """Nothing where no catalog is named; never raises for what a server does."""
    if config.catalog.dsn is None:
        return []
    try:
        connection = await catalog.connect(config, "tenant_proxy check", statement_cache_size=0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return [_error("catalog_unreachable", f"the catalog can't be reached: {text or 'it takes too long'}")]
    try:
        try:
            await migrate.check(connection)
        except Failure as failure:
            return [_error("catalog_outdated", f"{failure.message}; {failure.hint}")]
        except asyncpg.InsufficientPrivilegeError:
            text = (
                "this login may not read at which version the catalog is; "
                "tenant-proxy db migrate --follower ROLE"
            )
            return [Finding("info", "", "", "catalog_unknown", text)]
        return await _unusable(config, connection)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return [_error("catalog_unreachable", f"the catalog can't be read: {error}")]
    finally:
        connection.terminate()


async def _unusable(config: Config, connection: Connection) -> list[Finding]:
    """What proxies with this file would leave out, as they find it: above all what the file has as well."""
    secret = config.secret.reveal() if config.secret is not None else None
    tenants = [tenant_row(dict(row)) for row in await connection.fetch("SELECT * FROM served_tenants")]
    logins = [login_row(dict(row), secret) for row in await connection.fetch("SELECT * FROM served_logins")]
    problems = Registry.build(config).serve(Served(tenants=tenants, logins=logins)).problems
    found = [
        Finding("error", "", name if word == "tenant" else "", "catalog_clash", _said(word, name, why))
        for word, name, why in problems[:_SHOWN]
    ]
    if len(problems) > _SHOWN:
        found.append(_error("catalog_clash", f"… and {len(problems) - _SHOWN} more"))
    return found


def _said(word: str, name: str, why: str) -> str:
    return f'the catalog\'s {word} "{name}" is not served: {why}'


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
