"""Work on many tenants beside bare SQL: migrations, and copies of a template.

    python -m loadtests.fleet [--tenants 1000] [--parallel 4] [--rounds 3] [--copies 60]

On a server of its own, in alternating rounds.  A migration runs by `lifecycle.migrations`, and as psql would
do it: as many psql as there are workers here, each with a script for its share of the tenants, a transaction
each.  Copies are made by `lifecycle.templates`, and by SQL that somebody wrote by hand for the same tables.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import asyncpg

from loadtests import procfs
from loadtests.postgres import SETTINGS
from tenant_proxy.devel.postgres import Server, client_environment
from tenant_proxy.lifecycle import migrations, templates
from tenant_proxy.lifecycle.fleet import Member, Options
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.rights import schema_rights
from tenant_proxy.lifecycle.templates import Roles
from tenant_proxy.lifecycle.tools import Database

TABLES = 20

BEGINNING = "CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (1, 'x')"
MIGRATION = """
ALTER TABLE orders ADD COLUMN quantity_{n} int NOT NULL DEFAULT 1;
CREATE TABLE lines_{n} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
CREATE INDEX ON lines_{n} (note);
UPDATE orders SET quantity_{n} = 2;
"""


def tables(prefix: str = "") -> str:
    """As a person writes them."""
    return "".join(
        f"CREATE TABLE {prefix}t{n} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL,"
        f" at timestamptz DEFAULT now(), other bigint{f' REFERENCES {prefix}t{n - 1}' if n else ''});"
        f"CREATE INDEX ON {prefix}t{n} (name);"
        for n in range(TABLES)
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.fleet", description=__doc__)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=60)
    asked = parser.parse_args()
    with Server(settings=SETTINGS | {"max_locks_per_transaction": "512"}) as server:
        if asked.tenants:
            asyncio.run(migrate(server, asked.tenants, asked.parallel, asked.rounds))
        if asked.copies:
            asyncio.run(copy(server, asked.copies, asked.parallel, asked.rounds))


async def timed(server: Server, work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Seconds, and the server's CPU seconds."""
    cpu, begin = procfs.tree_cpu(server.pid).cpu_s, time.monotonic()
    await work()
    return time.monotonic() - begin, procfs.tree_cpu(server.pid).cpu_s - cpu


def told(title: str, measured: dict[str, list[tuple[float, float]]], count: int) -> None:
    print(f"{title:48} {'s':>8} {'server CPU s':>13} {'ms each':>9}")
    medians = {}
    for name, rounds in measured.items():
        medians[name] = statistics.median(wall for wall, _ in rounds)
        cpu = statistics.median(used for _, used in rounds)
        print(f"  {name:46} {medians[name]:8.2f} {cpu:13.2f} {medians[name] * 1000 / count:9.2f}")
    bare, ours = list(medians.values())
    ratios = [o[0] / b[0] for b, o in zip(*measured.values(), strict=True)]
    print(f"  ratio of medians {ours / bare:.2f}; of rounds {min(ratios):.2f} to {max(ratios):.2f}")


async def migrate(server: Server, tenants: int, parallel: int, rounds: int) -> None:
    database = Database(server.host, server.port, "postgres", server.superuser, server.password)
    members = [Member(f"t{n}", database, Estate(f"m{n}", f"m{n}_owner")) for n in range(tenants)]
    async with database.connected() as connection:
        for member in members:
            schema, owner = member.estate.schema, member.estate.owner
            await connection.execute(
                f"CREATE ROLE {owner}; CREATE SCHEMA {schema} AUTHORIZATION {owner};"
                f"SET LOCAL ROLE {owner}; SET LOCAL search_path = {schema}; {BEGINNING}"
            )
    measured: dict[str, list[tuple[float, float]]] = {"psql": [], "tenant-proxy migrate": []}
    with tempfile.TemporaryDirectory() as name:
        for number in range(1, 2 * rounds + 1):
            sql = MIGRATION.format(n=number)
            if number % 2:
                measured["psql"].append(await timed(server, partial(by_psql, server, members, sql, parallel)))
                continue
            path = Path(name) / f"{number}_round.sql"
            path.write_text(sql)
            found = [one for one in migrations.read(Path(name)) if one.version == number]

            async def work(found: list[migrations.Migration] = found) -> None:
                report = await migrations.up(members, found, Options(parallel=parallel))
                assert len(report.of("done")) == tenants, report.outcomes[:1]

            measured["tenant-proxy migrate"].append(await timed(server, work))
    told(f"a migration of {tenants} tenants, {parallel} at once", measured, tenants)


async def by_psql(server: Server, members: list[Member], sql: str, parallel: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        running = []
        for number in range(parallel):
            script = Path(name) / str(number)
            script.write_text(
                "".join(
                    f"BEGIN; SET LOCAL ROLE {one.estate.owner}; SET LOCAL search_path = {one.estate.schema};"
                    f"{sql}COMMIT;\n"
                    for one in members[number::parallel]
                )
            )
            running.append(
                subprocess.Popen(
                    [
                        str(server.install.tool("psql")),
                        *("-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(script), server.dsn()),
                    ],
                    env=client_environment(),
                    stdout=subprocess.DEVNULL,
                )
            )
        for process in running:
            assert process.wait() == 0


async def copy(server: Server, copies: int, parallel: int, rounds: int) -> None:
    database = Database(server.host, server.port, "postgres", server.superuser, server.password)
    numbers = iter(range(1_000_000))
    measured: dict[str, list[tuple[float, float]]] = {"by hand": [], "from the template": []}
    template = Roles("pattern", server.superuser)
    async with database.connected() as connection:
        await connection.execute(f"CREATE SCHEMA pattern; {tables('pattern.')}")
        # the first copy makes the script
        first = roles(next(numbers))
        await connection.execute(provision(first))
        await templates.fill(connection, database, template, first)

    async def by_hand(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        one = roles(next(numbers))
        await connection.execute(provision(one))
        await connection.execute(
            f"SET LOCAL ROLE {one.owner}; SET LOCAL search_path = {one.schema}; {tables()}"
        )

    async def by_template(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        one = roles(next(numbers))
        await connection.execute(provision(one))
        await templates.fill(connection, database, template, one)

    async def many(make: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[None]]) -> None:
        async def share(count: int) -> None:
            async with database.connected() as connection:
                for _ in range(count):
                    await make(connection)

        await asyncio.gather(*(share(copies // parallel) for _ in range(parallel)))

    for number in range(rounds):
        # the catalogs grow, so each is first in turn
        ways = [("by hand", by_hand), ("from the template", by_template)]
        for name, way in ways if number % 2 else reversed(ways):
            measured[name].append(await timed(server, partial(many, way)))
    told(f"{copies} tenants of {TABLES} tables, {parallel} at once", measured, copies)


def roles(number: int) -> Roles:
    return Roles(f"c{number}", f"c{number}_owner", f"c{number}_rw", f"c{number}_ro")


def provision(one: Roles) -> str:
    owner, readwrite, readonly = one.names()[1:]
    made = "".join(f"CREATE ROLE {name} NOLOGIN;" for name in (owner, readwrite, readonly))
    rights = ";".join(schema_rights(one.schema, owner, readwrite, readonly, empty=True))
    return f"{made}CREATE SCHEMA {one.schema} AUTHORIZATION {owner};{rights}"


if __name__ == "__main__":
    main()
