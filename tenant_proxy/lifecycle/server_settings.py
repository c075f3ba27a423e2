"""Whether a cluster takes the settings that a plan or a tenant gives to sessions.

A session begins with them: one that the server does not know, or does not take the value of, and nobody
gets in.  What is allowed only the server can tell, which has its versions, units and extensions; so it is
asked, by set_config in a transaction of one statement, which takes it back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.settings_policy import OBJECT_NAME_SETTINGS, canonical_name, join_identifiers

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.context import Connection, Context

#: judged by `settings_policy` in full, or (client_encoding) what would change how this connection is read
_NOT_ASKED: Final = frozenset({"search_path", "client_encoding"})
#: whose values are names of objects, which come and go
_OF_OBJECTS: Final = OBJECT_NAME_SETTINGS | {"default_tablespace", "temp_tablespaces"}
#: values that were taken are remembered up to so many
_MOST_REMEMBERED: Final = 10_000

_TRY: Final = """
SELECT pg_catalog.set_config(given.name, given.value, true)
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS given(name, value, number)
 ORDER BY given.number
"""
#: of those that ordinary logins may not set nobody was granted
_SUPERUSERS: Final = """
SELECT s.name FROM pg_catalog.pg_settings s
 WHERE pg_catalog.lower(s.name) = ANY ($1::text[]) AND s.context IN ('superuser', 'superuser-backend')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_parameter_acl a
                    WHERE a.parname = pg_catalog.lower(s.name) AND a.paracl IS NOT NULL)
"""
#: what PostgreSQL takes as units of times and of sizes
_TIMES: Final = ("us", "ms", "s", "min", "h", "d")
_SIZES: Final = ("B", "kB", "MB", "GB", "TB")
_ALLOWED: Final = """
SELECT vartype, unit, min_val, max_val, enumvals FROM pg_catalog.pg_settings
 WHERE pg_catalog.lower(name) = $1
"""


async def check(context: Context, cluster: str, settings: Mapping[str, str] | None, schema: str = "") -> None:
    """Failure (invalid) that names the first that the cluster does not take, and what it takes.

    `schema` is where names without one are looked for, as the tenant's sessions do.
    """
    asked = {
        name: value
        for name, value in (settings or {}).items()
        if canonical_name(name) not in _NOT_ASKED and (cluster, name, value) not in context.settings_taken
    }
    if not asked or context.cluster(cluster).admin.user is None:
        return
    async with context.admin(cluster) as connection:
        await _not_superusers(connection, cluster, asked)
        try:
            await _try(connection, asked, schema)
        except asyncpg.PostgresError:
            # which of them: one after the other
            for name, value in asked.items():
                try:
                    await _try(connection, {name: value}, schema)
                except asyncpg.PostgresError as error:
                    if not _is_of_the_session(name, error):
                        raise await _refusal(connection, cluster, name, error) from None
    if len(context.settings_taken) > _MOST_REMEMBERED:
        context.settings_taken.clear()
    context.settings_taken.update(
        (cluster, name, value) for name, value in asked.items() if canonical_name(name) not in _OF_OBJECTS
    )


async def check_plan(context: Context, settings: Mapping[str, str] | None, placed: Collection[str]) -> None:
    """`placed` are the clusters where the plan has tenants, which must take them all.  Where it has none, one
    of those that can be asked must.
    """
    refusals: list[Failure] = []
    names = [cluster.name for cluster in context.config.clusters if not placed or cluster.name in placed]
    for name in names:
        try:
            await check(context, name, settings)
        except Failure as failure:
            if placed:
                raise
            if failure.code == "invalid":
                refusals.append(failure)
    if refusals and len(refusals) == len(names):
        raise refusals[0]


async def _try(connection: Connection, settings: Mapping[str, str], schema: str) -> None:
    names, values = list(settings), list(settings.values())
    if schema:
        names.insert(0, "search_path")
        values.insert(0, join_identifiers((schema, "public")))
    if any(canonical_name(name) == "transaction_timeout" for name in settings):
        # or it may end the connection before it is taken back
        names.append("transaction_timeout")
        values.append("0")
    await connection.fetch(_TRY, names, values)


async def _not_superusers(connection: Connection, cluster: str, names: Collection[str]) -> None:
    """An admin that is a superuser may set what a tenant's login may not."""
    known = {canonical_name(name): name for name in names}
    found = await connection.fetchval(_SUPERUSERS, list(known))
    if found is not None:
        raise Failure(
            "invalid",
            f'settings.{known[canonical_name(found)]}: on cluster "{cluster}" only superusers may set it',
            hint=f"GRANT SET ON PARAMETER {found} to those who may, or set it for all in postgresql.conf",
        )


def _is_of_the_session(name: str, error: asyncpg.PostgresError) -> bool:
    """It is taken, but not of a session that has had temporary tables; the value itself has no detail."""
    return canonical_name(name) == "temp_buffers" and bool(error.detail)


async def _refusal(connection: Connection, cluster: str, name: str, error: asyncpg.PostgresError) -> Failure:
    allowed = await connection.fetchrow(_ALLOWED, canonical_name(name))
    said = [f'On cluster "{cluster}" it is {_said(allowed)}.'] if allowed is not None else []
    if error.detail:
        said.append(error.detail)
    return Failure("invalid", f"settings.{name}: {error}", detail=" ".join(said), hint=error.hint or "")


def _said(allowed: asyncpg.Record) -> str:
    kind = allowed["vartype"]
    if kind == "bool":
        return "on or off"
    if kind == "enum":
        return f"one of {', '.join(allowed['enumvals'])}"
    if kind in ("integer", "real"):
        unit = ""
        if allowed["unit"]:
            units = _TIMES if allowed["unit"] in _TIMES else _SIZES
            unit = f", counted in {allowed['unit']} where no unit is given ({', '.join(units)})"
        article = "an integer" if kind == "integer" else "a number"
        return f"{article} from {allowed['min_val']} to {allowed['max_val']}{unit}"
    return "a text of a form of its own"
