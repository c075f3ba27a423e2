"""How long a proxy with very many tenants takes to start, and a change to reach all of its workers.

    python -m loadtests.follow [TENANTS] [WORKERS]

A catalog with so many tenants, a login each, and a proxy that follows it: timed are its start up to
/readyz, and from the commit of a change to the first login that sees it.  Then the same tenants in a file.
CPU time of all of the proxy's processes is told beside, as other load on the machine disturbs it least.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import yaml

from loadtests import procfs
from loadtests.process import as_installed
from tenant_proxy.auth.scram import build_verifier
from tenant_proxy.catalog import migrate
from tenant_proxy.devel.postgres import Server, free_port

TENANTS = 10_000
WORKERS = 2
CHANGES = 20
START_S = 120.0
PASSWORD = "secret"

#: rows as a provisioned and active tenant has them; triggers would only tell of each
FILL = """
SET search_path = tenant_proxy;
SET session_replication_role = replica;
INSERT INTO plan (name, spec)
VALUES ('standard', '{"pool": {"mode": "transaction", "max": 5}, "grace_s": 0}');
INSERT INTO tenant (name, state, plan, cluster, schema, owner_role, readwrite_role, readonly_role,
                    provisioned_at, activated_at, labels)
SELECT 't' || n, 'active', 'standard', 'main', 't' || n, 't' || n || '_owner', 't' || n || '_readwrite',
       't' || n || '_readonly', now(), now(), '{"region": "eu"}'
  FROM generate_series(1, {tenants}) n;
INSERT INTO login (name) SELECT 't' || n || '_app' FROM generate_series(1, {tenants}) n;
INSERT INTO login_secret (login, slot, verifier, server_user)
SELECT id, 0, '{verifier}', name FROM login;
INSERT INTO access (login, tenant, level)
SELECT l.id, t.id, 'readwrite' FROM login l JOIN tenant t ON l.name = t.name || '_app';
"""


class Proxy:
    """A `tenant-proxy serve`, timed."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.port, self._http = free_port(), free_port()
        path = folder / "tenant_proxy.yaml"
        listen = {"addresses": ["127.0.0.1"], "port": self.port}
        whole = {**config, "listen": listen, "metrics": {"port": self._http}}
        path.write_text(yaml.dump(whole, Dumper=_Dumper))
        path.chmod(0o600)
        self._log = (folder / "log").open("w")
        began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tenant_proxy", "serve", "-c", str(path)],
            env=as_installed(),
            stderr=self._log,
        )
        while not self._is_ready():
            if time.monotonic() - began > START_S or self._process.poll() is not None:
                raise RuntimeError(f"the proxy did not start, see {folder / 'log'}")
            time.sleep(0.02)
        self.start_s = time.monotonic() - began
        self.cpu_s = procfs.tree_cpu(self._process.pid).cpu_s

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def memory_mb(self) -> int:
        return round(procfs.tree_memory(self._process.pid).total_bytes / 1e6)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    pass


def logs_in(port: int, user: str) -> str:
    """What becomes of a login that has no backend to go to: the SQLSTATE that it is told."""
    try:
        psycopg.connect(host="127.0.0.1", port=port, user=user, password=PASSWORD, dbname="x").close()
    except psycopg.OperationalError as error:
        return str(error)
    return "in"


def time_changes(catalog: psycopg.Connection, proxy: Proxy, tenants: int) -> list[float]:
    """From a commit to the first login that sees it."""
    lags = []
    for number in range(CHANGES):
        name = f"t{1 + (number * 7919) % tenants}"
        reason = f"reason {number}"
        catalog.execute(
            "UPDATE tenant SET state = 'suspended', suspended_at = now(), reason = %s WHERE name = %s",
            (reason, name),
        )
        began = time.monotonic()
        while reason not in logs_in(proxy.port, f"{name}_app"):
            if time.monotonic() - began > 30:
                raise RuntimeError("the change was not seen")
        lags.append(time.monotonic() - began)
    return lags


def with_catalog(server: Server, folder: Path, tenants: int, workers: int) -> None:
    with psycopg.connect(server.dsn(database="postgres"), autocommit=True) as conn:
        conn.execute("CREATE DATABASE catalog")
    dsn = server.dsn(database="catalog")

    async def prepare() -> None:
        connection = await asyncpg.connect(dsn)
        await migrate.migrate(connection)
        fill = FILL.replace("{tenants}", str(tenants)).replace("{verifier}", str(build_verifier(PASSWORD)))
        await connection.execute(fill)
        await connection.execute("ANALYZE")
        await connection.close()

    asyncio.run(prepare())
    proxy = Proxy(folder, {**_base(server, workers), "catalog": {"dsn": {"value": dsn}}})
    _tell(f"start with {tenants:,} tenants of a catalog", proxy)
    with psycopg.connect(dsn, autocommit=True) as catalog:
        catalog.execute("SET search_path = tenant_proxy")
        lags = sorted(time_changes(catalog, proxy, tenants))
    median, worst = statistics.median(lags), lags[-1]
    print(f"{CHANGES} changes, commit to login: median {median * 1000:.0f} ms, worst {worst * 1000:.0f} ms")
    proxy.stop()


def with_file(server: Server, folder: Path, tenants: int, workers: int) -> None:
    verifier = str(build_verifier(PASSWORD))
    names = [f"t{number}" for number in range(1, tenants + 1)]
    config = _base(server, workers) | {
        "tenants": [{"name": name, "labels": {"region": "eu"}} for name in names],
        "users": [
            {"name": f"{name}_app", "tenant": name, "verifier": {"value": verifier}, "roles": {name: name}}
            for name in names
        ],
        "pool": {"mode": "transaction", "max": 5},
    }
    proxy = Proxy(folder, config)
    _tell(f"start with {tenants:,} tenants of a file", proxy)
    proxy.stop()


def _base(server: Server, workers: int) -> dict[str, Any]:
    cluster = {"name": "main", "host": server.host, "port": server.port, "database": "postgres"}
    return {"workers": workers, "clusters": [cluster], "log": {"level": "warning"}}


def _tell(what: str, proxy: Proxy) -> None:
    print(
        f"{what}: {proxy.start_s:.2f} s, {proxy.cpu_s:.2f} s of CPU, "
        f"{proxy.memory_mb()} MB of all its processes"
    )


def main() -> None:
    tenants = int(sys.argv[1]) if len(sys.argv) > 1 else TENANTS
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else WORKERS
    print(f"{socket.gethostname()}, {os.cpu_count()} cores, {workers} workers")
    with tempfile.TemporaryDirectory() as name:
        server = Server(settings={"autovacuum": "off"})
        server.start()
        try:
            for step in (with_catalog, with_file):
                folder = Path(name) / step.__name__
                folder.mkdir()
                step(server, folder, tenants, workers)
        finally:
            server.stop("immediate")
            server.close()


if __name__ == "__main__":
    main()
