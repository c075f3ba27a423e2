"""What tenants cost as a server each, a database each, and a schema each through this proxy.

    python -m loadtests.estate [--tenants 100] [--servers 20]

Each tenant has the same five small tables, a login of its own, and an application that keeps two
connections open.  All do the same transactions.  Told are memory (PSS of all processes, those of the proxy
too), CPU per transaction and while nothing happens, disk, connections of PostgreSQL and processes.  A server
each is measured with `--servers` of them, which know nothing of each other, and multiplied.  Last, the
operator's steps, as they stand in STEPS below.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import yaml

from loadtests import procfs
from loadtests.wire import Connection, Endpoint
from tenant_proxy.catalog import migrate
from tenant_proxy.config.schema import Config
from tenant_proxy.devel.postgres import Server, free_port
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.verbs import Verbs

CONNECTIONS = 2
#: of each connection
TRANSACTIONS = 20
IDLE_S = 10.0
PASSWORD = "secret"
SHARED_BACKENDS = 20
START_S = 60.0

TABLES = "".join(
    f"CREATE TABLE {name} (id int PRIMARY KEY, note text NOT NULL DEFAULT 'x', quantity int DEFAULT 0);"
    f"CREATE INDEX ON {name} (note); INSERT INTO {name} (id) SELECT generate_series(1, 100);"
    for name in ("customers", "items", "orders", "lines", "invoices")
)
WORK = (
    "BEGIN",
    "SELECT * FROM orders WHERE id = 17",
    "SELECT count(*) FROM lines WHERE note = 'x'",
    "UPDATE orders SET quantity = quantity + 1 WHERE id = 17",
    "COMMIT",
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of all tenants together."""

    memory_mb: float
    disk_mb: float
    cpu_us_per_transaction: float
    idle_cpu_percent: float
    server_connections: int
    processes: int

    def times(self, factor: float) -> Cost:
        return Cost(
            self.memory_mb * factor,
            self.disk_mb * factor,
            self.cpu_us_per_transaction,
            self.idle_cpu_percent * factor,
            round(self.server_connections * factor),
            round(self.processes * factor),
        )


#: what somebody types or edits: for one tenant, or where `for each` for every one of them
STEPS: dict[str, dict[str, list[str]]] = {
    "a server each": {
        "create": [
            "initdb",
            "postgresql.conf: port, memory, logging",
            "pg_hba.conf",
            "a service of its own, enabled and started",
            "createuser",
            "createdb",
            "psql -f schema.sql",
            "what the backup knows",
            "what the monitoring knows",
            "the application's DSN",
        ],
        "migrate": ["a loop over hosts and ports", "psql -f in it", "look which failed", "do those again"],
        "back up": [
            "pg_basebackup or pg_dump with its port",
            "where it went, noted",
            "how it is restored, tried",
        ],
        "remove": [
            "stop and disable the service",
            "delete the data",
            "backup",
            "monitoring",
            "the DSN",
            "a note of it",
        ],
    },
    "a database each": {
        "create": [
            "createuser",
            "createdb -O",
            "REVOKE CONNECT … FROM PUBLIC",
            "psql -f schema.sql",
            "the pooler's list of databases and logins",
            "what the backup knows",
            "the application's DSN",
        ],
        "migrate": ["a loop over databases", "psql -f in it", "look which failed", "do those again"],
        "back up": ["pg_dump", "where it went, noted", "how it is restored, tried"],
        "remove": ["end its connections", "dropdb", "dropuser", "the pooler's list", "a note of it"],
    },
    "a schema each, here": {
        "create": ["tenant-proxy tenant onboard NAME --plan standard"],
        "migrate": ["tenant-proxy migrate up"],
        "back up": ["tenant-proxy tenant export NAME FILE"],
        "remove": ["tenant-proxy tenant delete NAME"],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.estate", description=__doc__)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--only", help="one of servers, databases, schemas")
    parser.add_argument("--output", type=Path, help="JSON of the figures")
    asked = parser.parse_args()
    found: dict[str, Cost] = {}
    if asked.only in (None, "servers"):
        found["a server each"] = servers(asked.servers).times(asked.tenants / asked.servers)
    if asked.only in (None, "databases"):
        found["a database each"] = databases(asked.tenants)
    if asked.only in (None, "schemas"):
        found["a schema each, here"] = schemas(asked.tenants)
    tell(found, asked.tenants, asked.servers)
    if asked.output is not None:
        asked.output.write_text(json.dumps({name: asdict(cost) for name, cost in found.items()}, indent=2))


def tell(found: dict[str, Cost], tenants: int, servers: int) -> None:
    print(f"{tenants} tenants, {CONNECTIONS} connections each; a server each: {servers} measured, multiplied")
    base = next(iter(found.values()))
    for field in Cost.__dataclass_fields__:
        print(f"  {field:26}", end="")
        for name, cost in found.items():
            value, first = getattr(cost, field), getattr(base, field)
            less = f" ({100 * (1 - value / first):.0f} % less)" if cost is not base and first else ""
            print(f"{name}: {value:,.1f}{less}   ", end="")
        print()
    for task in ("create", "migrate", "back up", "remove"):
        counts = ", ".join(f"{name}: {len(steps[task])}" for name, steps in STEPS.items())
        print(f"  steps to {task:16} {counts}")


# --- the three ways -------------------------------------------------------------------------------------


def servers(count: int) -> Cost:
    with ExitStack() as stack:
        running = [stack.enter_context(Server()) for _ in range(count)]
        endpoints = []
        for server in running:
            with psycopg.connect(server.dsn(database="postgres"), autocommit=True) as conn:
                conn.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
                conn.execute("CREATE DATABASE app OWNER app")
            with psycopg.connect(server.dsn(user="app", password=PASSWORD, database="app")) as conn:
                conn.execute(TABLES)
            endpoints.append(Endpoint(server.host, server.port, "app", PASSWORD, "app"))
        return measure(endpoints, running, [server.pid for server in running])


def databases(count: int) -> Cost:
    with Server(settings=_one_server(count)) as server:
        endpoints = []
        for number in range(count):
            name = f"t{number}"
            with psycopg.connect(server.dsn(database="postgres"), autocommit=True) as conn:
                conn.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
                conn.execute(f"CREATE DATABASE {name} OWNER {name}")
                conn.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            with psycopg.connect(server.dsn(user=name, password=PASSWORD, database=name)) as conn:
                conn.execute(TABLES)
            endpoints.append(Endpoint(server.host, server.port, name, PASSWORD, name))
        return measure(endpoints, [server], [server.pid])


def schemas(count: int) -> Cost:
    with Server(settings=_one_server(count)) as server, tempfile.TemporaryDirectory() as folder:
        with psycopg.connect(server.dsn(database="postgres"), autocommit=True) as conn:
            conn.execute(f"CREATE ROLE service LOGIN NOINHERIT PASSWORD '{PASSWORD}'")
            conn.execute("CREATE DATABASE app")
            conn.execute("CREATE DATABASE catalog")
        config = _config(server, Path(folder))
        logins = asyncio.run(_onboard(server, config, count))
        for login, password in logins:
            with psycopg.connect(server.dsn(user=login, password=password, database="app")) as conn:
                conn.execute(TABLES)
        with _proxy(config, Path(folder)) as (pid, port):
            endpoints = [Endpoint("127.0.0.1", port, login, password, login) for login, password in logins]
            return measure(endpoints, [server], [server.pid, pid])


def _one_server(tenants: int) -> dict[str, str]:
    return {"max_connections": str(CONNECTIONS * tenants + 50), "shared_buffers": "512MB"}


def _config(server: Server, folder: Path) -> dict[str, Any]:
    cluster = {
        "name": "main",
        "host": server.host,
        "port": server.port,
        "database": "app",
        "admin": {"user": server.superuser, "password": {"value": server.password}},
        "service": {
            "user": "service",
            "password": {"value": PASSWORD},
            "max_backends": SHARED_BACKENDS,
        },
    }
    return {
        "listen": {"addresses": ["127.0.0.1"], "port": free_port()},
        "metrics": {"port": free_port()},
        "workers": 1,
        "log": {"level": "warning", "connections": False, "disconnections": False},
        "clusters": [cluster],
        "isolation": "shared",
        "pool": {"mode": "transaction"},
        "catalog": {"dsn": {"value": server.dsn(database="catalog")}},
    }


async def _onboard(server: Server, config: dict[str, Any], count: int) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(server.dsn(database="catalog"))
    await migrate.migrate(connection)
    await connection.close()
    made = []
    async with await Context.open(Config.model_validate(config), "estate") as context:
        verbs = Verbs(context)
        for number in range(count):
            name = f"t{number}"
            done = await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=name))
            assert done.granted.password is not None
            made.append((name, done.granted.password))
    return made


@contextmanager
def _proxy(config: dict[str, Any], folder: Path) -> Iterator[tuple[int, int]]:
    path = folder / "tenant_proxy.yaml"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    log = (folder / "log").open("w")
    process = subprocess.Popen([sys.executable, "-m", "tenant_proxy", "serve", "-c", str(path)], stderr=log)
    try:
        port = config["listen"]["port"]
        _wait(lambda: _readyz(config["metrics"]["port"]), folder / "log")
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _readyz(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _wait(ready: Callable[[], bool], log: Path) -> None:
    until = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > until:
            raise RuntimeError(f"the proxy did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


# --- what is measured -----------------------------------------------------------------------------------


def measure(endpoints: list[Endpoint], postgres: list[Server], roots: list[int | None]) -> Cost:
    """With all applications connected and after their work."""
    pids = [pid for pid in roots if pid is not None]
    with ExitStack() as stack:
        clients = [stack.enter_context(Connection(one)) for one in endpoints for _ in range(CONNECTIONS)]
        # what is read for the first time
        for client in clients:
            _work(client)
        before = _cpu(pids)
        for _ in range(TRANSACTIONS):
            for client in clients:
                _work(client)
        done = len(clients) * TRANSACTIONS
        per_transaction = (_cpu(pids) - before) / done
        for server in postgres:
            with psycopg.connect(server.dsn(database="postgres"), autocommit=True) as conn:
                conn.execute("CHECKPOINT")
        time.sleep(1)
        before, begun = _cpu(pids), time.monotonic()
        time.sleep(IDLE_S)
        idle = (_cpu(pids) - before) / (time.monotonic() - begun)
        trees = {pid: procfs.tree(pid) for pid in pids}
        return Cost(
            memory_mb=sum(procfs.tree_memory(pid).total_bytes for pid in pids) / 1e6,
            disk_mb=sum(_size(server.data_dir) for server in postgres) / 1e6,
            cpu_us_per_transaction=per_transaction * 1e6,
            idle_cpu_percent=100 * idle,
            server_connections=sum(_backends(server) for server in postgres),
            processes=sum(len(found) for found in trees.values()),
        )


def _work(client: Connection) -> None:
    for sql in WORK:
        client.query(sql)


def _cpu(pids: list[int]) -> float:
    return sum(procfs.tree_cpu(pid).cpu_s for pid in pids)


def _backends(server: Server) -> int:
    with psycopg.connect(server.dsn(database="postgres")) as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid()"
        ).fetchone()
    return int(row[0]) if row is not None else 0


def _size(folder: Path) -> int:
    """As it takes place on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


if __name__ == "__main__":
    main()
