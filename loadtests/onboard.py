"""From the command `tenant onboard` to the tenant's first row through the proxy; and very many tenants.

    python -m loadtests.onboard [--tenants 10] [--many 1000] [--parallel 4] [--rounds 2] [--apart]

A proxy follows an empty catalog.  Timed for each tenant are the command, started afresh as a user does, and
the time until its DSN gives a row.  Told are the median, the lowest and the highest, and the CPU time of the
command alone.

`--many` are onboarded by one process from a template of twenty tables, beside as many psql that run the SQL
which makes the same objects, in alternating rounds: so many in all, on one server; or with `--apart` so many
each time, each on a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psycopg

from loadtests.fleet import TABLES, tables, timed, told
from loadtests.follow import Proxy
from loadtests.postgres import SETTINGS
from loadtests.process import as_installed
from tenant_proxy.auth.scram import build_verifier
from tenant_proxy.catalog import migrate
from tenant_proxy.catalog.records import Plan, Spec
from tenant_proxy.config.schema import Config
from tenant_proxy.devel.postgres import Server, client_environment
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.rights import schema_rights
from tenant_proxy.lifecycle.verbs import Verbs

TENANTS = 10
FIRST_ROW_S = 30.0
_SETTINGS = SETTINGS | {"max_locks_per_transaction": "512"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.onboard", description=__doc__)
    parser.add_argument("--tenants", type=int, default=TENANTS)
    parser.add_argument("--many", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--apart", action="store_true")
    asked = parser.parse_args()
    if asked.tenants:
        one_by_one(asked.tenants)
    if not asked.many:
        return
    if asked.apart:
        apart(asked.many, asked.parallel, asked.rounds)
        return
    with Server(settings=_SETTINGS) as server:
        asyncio.run(many(server, asked.many // asked.rounds, asked.parallel, asked.rounds))


def one_by_one(count: int) -> None:
    with Server() as server, tempfile.TemporaryDirectory() as name:
        proxy = Proxy(Path(name), _config(server))
        try:
            rounds = [_onboard(Path(name), f"t{number}") for number in range(count)]
        finally:
            proxy.stop()
    titles = ("command", "command to first row", "CPU of the command")
    for title, values in zip(titles, zip(*rounds, strict=True), strict=True):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{title:24} median {middle * 1000:.0f} ms ({low * 1000:.0f} to {high * 1000:.0f})")


def _config(server: Server) -> dict[str, Any]:
    with psycopg.connect(server.dsn(database="postgres"), autocommit=True) as conn:
        conn.execute("CREATE DATABASE app")
        conn.execute("CREATE DATABASE catalog")

    async def prepare() -> None:
        connection = await asyncpg.connect(server.dsn(database="catalog"))
        await migrate.migrate(connection)
        await connection.close()

    asyncio.run(prepare())
    cluster = {
        "name": "main",
        "host": server.host,
        "port": server.port,
        "database": "app",
        "admin": {"user": server.superuser, "password": {"value": server.password}},
    }
    catalog = {"dsn": {"value": server.dsn(database="catalog")}}
    return {"workers": 1, "clusters": [cluster], "catalog": catalog, "log": {"level": "warning"}}


def _onboard(folder: Path, name: str) -> tuple[float, float, float]:
    environ = {**as_installed(), "TENANT_PROXY_CONFIG": str(folder / "tenant_proxy.yaml")}
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tenant_proxy", "tenant", "onboard", name],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    command = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    while True:
        try:
            with psycopg.connect(done.stdout.strip(), autocommit=True) as conn:
                conn.execute("SELECT 1").fetchone()
            break
        except psycopg.OperationalError:
            if time.monotonic() - began > FIRST_ROW_S:
                raise
            time.sleep(0.005)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return command, time.monotonic() - began, cpu


# --- very many ------------------------------------------------------------------------------------------


Way = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def ways(server: Server, count: int, parallel: int) -> AsyncIterator[dict[str, Way]]:
    """To make `count` tenants, numbered from one on."""
    config = await asyncio.to_thread(_config, server)
    with psycopg.connect(server.dsn(database="app"), autocommit=True) as conn:
        conn.execute(f"CREATE SCHEMA pattern; {tables('pattern.')}")
    async with await Context.open(Config.model_validate(config), connections=parallel + 1) as context:
        verbs = Verbs(context)
        await verbs.plan_put(Plan(name="standard", spec=Spec(template="pattern")))
        # the first makes the script of the template
        await verbs.tenant_onboard(NewTenant(name="first", plan="standard"), NewAccess(login="first"))

        async def ours(first: int) -> None:
            names = iter(range(first, first + count))

            async def share() -> None:
                for number in names:
                    new = NewTenant(name=f"t{number}", plan="standard")
                    await verbs.tenant_onboard(new, NewAccess(login=f"t{number}"))

            await asyncio.gather(*(share() for _ in range(parallel)))

        async def bare(first: int) -> None:
            await _by_psql(server, first, count, parallel)

        yield {"psql": bare, "tenant onboard": ours}


async def many(server: Server, count: int, parallel: int, rounds: int) -> None:
    """`count` a round, each way."""
    measured: dict[str, list[tuple[float, float]]] = {"psql": [], "tenant onboard": []}
    async with ways(server, count, parallel) as found:
        for number in range(rounds):
            # the catalogs grow, so each is first in turn
            for name in _in_turn(found, number):
                measured[name].append(await timed(server, partial(found[name], number * count)))
    told(f"{count} tenants of {TABLES} tables, {parallel} at once", measured, count)


def apart(count: int, parallel: int, rounds: int) -> None:
    measured: dict[str, list[tuple[float, float]]] = {"psql": [], "tenant onboard": []}

    async def alone(server: Server, name: str) -> None:
        async with ways(server, count, parallel) as found:
            measured[name].append(await timed(server, partial(found[name], 0)))

    for number in range(rounds):
        for name in _in_turn(measured, number):
            with Server(settings=_SETTINGS) as server:
                asyncio.run(alone(server, name))
    told(f"{count} tenants of {TABLES} tables, {parallel} at once, a server each", measured, count)


def _in_turn(names: Iterable[str], number: int) -> list[str]:
    return list(names) if number % 2 else list(names)[::-1]


async def _by_psql(server: Server, first: int, count: int, parallel: int) -> None:
    """As a person would write it who knows what roles a tenant takes."""
    verifier = str(build_verifier("secret"))
    with tempfile.TemporaryDirectory() as name:
        running = []
        for share in range(parallel):
            script = Path(name) / str(share)
            script.write_text(
                "".join(_by_hand(f"b{n}", verifier) for n in range(first + share, first + count, parallel))
            )
            command = [
                str(server.install.tool("psql")),
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-f",
                str(script),
            ]
            running.append(
                await asyncio.create_subprocess_exec(
                    *command, server.dsn(database="app"), env=client_environment()
                )
            )
        for process in running:
            assert await process.wait() == 0


def _by_hand(name: str, verifier: str) -> str:
    """The same objects, less the marks of whose they are: a login is its tenant without the proxy too."""
    owner, readwrite, readonly = (f"{name}_{kind}" for kind in ("owner", "readwrite", "readonly"))
    made = "".join(f"CREATE ROLE {role} NOLOGIN;" for role in (owner, readwrite, readonly))
    granted = ";".join(schema_rights(name, owner, readwrite, readonly, empty=True))
    starts = f"ALTER ROLE {name} IN DATABASE app SET"
    return (
        f"BEGIN;{made}CREATE SCHEMA {name} AUTHORIZATION {owner};{granted};COMMIT;\n"
        f"BEGIN;SET LOCAL ROLE {owner};SET LOCAL search_path = {name};{tables()}COMMIT;\n"
        f"BEGIN;CREATE ROLE {name} LOGIN NOINHERIT PASSWORD '{verifier}';GRANT {owner} TO {name};"
        f"{starts} role = {owner};{starts} search_path = {name}, public;COMMIT;\n"
    )


if __name__ == "__main__":
    main()
