"""From the command `tenant onboard` to the tenant's first row through the proxy.

    python -m loadtests.onboard [TENANTS]

A proxy follows an empty catalog.  Timed for each tenant are the command, started afresh as a user does, and
the time until its DSN gives a row.  Told are the median, the lowest and the highest, and the CPU time of the
command alone.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import psycopg

from loadtests.follow import Proxy
from tenant_proxy.catalog import migrate
from tenant_proxy.devel.postgres import Server

TENANTS = 10
FIRST_ROW_S = 30.0


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else TENANTS
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
    environ = {**os.environ, "TENANT_PROXY_CONFIG": str(folder / "tenant_proxy.yaml")}
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


if __name__ == "__main__":
    main()
