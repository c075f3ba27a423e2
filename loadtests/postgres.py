"""The PostgreSQL that all targets lead to: a throw-away cluster with two tenants."""

from __future__ import annotations

import asyncio
import re
import secrets
import subprocess
from dataclasses import dataclass

import asyncpg

from loadtests.pgbench import initialize
from loadtests.wire import Connection, Endpoint, make_verifier
from tenant_proxy.devel.postgres import Server
from tenant_proxy.shims.install import install

DATABASE = "bench"
TENANTS = ("acme", "beta")

#: What is measured is the way to the server, so nothing in it waits for a disk or wakes up by itself.
SETTINGS = {
    "max_connections": "600",
    "shared_buffers": "512MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "4GB",
    "autovacuum": "off",
    "jit": "off",
}


@dataclass(frozen=True, slots=True)
class Login:
    """A tenant's role: its password, and the verifier that server and proxies share (SCRAM pass-through)."""

    name: str
    password: str
    verifier: str


class Postgres:
    """A server of its own in a temporary folder; `start` makes it, `stop` removes it."""

    def __init__(self) -> None:
        self.logins: dict[str, Login] = {}
        #: schemas beside the tenants', with tables (`catalogs.fill`)
        self.crowd = 0
        self._server = Server(settings=SETTINGS)

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def port(self) -> int:
        return self._server.port

    def endpoint(self, tenant: str) -> Endpoint:
        login = self.logins[tenant]
        return Endpoint(self._server.host, self.port, login.name, login.password, DATABASE)

    def start(self, scale: int) -> None:
        """The server, database, roles, schemas, and pgbench's tables for each tenant."""
        try:
            self._server.start()
            self._provision(scale)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._server.close()

    def superuser_query(self, sql: str, database: str = "postgres") -> list[list[str | None]]:
        with self.superuser(database) as connection:
            return connection.query(sql)

    def superuser(self, database: str = "postgres") -> Connection:
        """A connection as the superuser, to be closed by the caller."""
        me = self._server
        return Connection(Endpoint(me.host, me.port, me.superuser, me.password, database))

    def version(self) -> str:
        """As in "17.10", and whose build it is."""
        number = ".".join(map(str, self._server.install.version))
        return f"{number} ({self._server.install.source})"

    def _provision(self, scale: int) -> None:
        self.superuser_query(f"CREATE DATABASE {DATABASE}")
        for name in TENANTS:
            password = secrets.token_urlsafe(18)
            login = Login(name, password, make_verifier(password))
            self.logins[name] = login
            for sql in (
                f"CREATE ROLE {name} LOGIN PASSWORD '{login.verifier}'",
                f"CREATE SCHEMA {name} AUTHORIZATION {name}",
                # for the targets that know of no tenants
                f"ALTER ROLE {name} SET search_path = {name}",
                f"CREATE UNLOGGED TABLE {name}.sink (line text)",
                f"ALTER TABLE {name}.sink OWNER TO {name}",
            ):
                self.superuser_query(sql, DATABASE)
            initialize(self.endpoint(name), scale)
        asyncio.run(self._install_views())
        self.superuser_query("CHECKPOINT", DATABASE)

    async def _install_views(self) -> None:
        """What the proxy turns statements about the catalogs to."""
        connection = await asyncpg.connect(self._server.dsn(database=DATABASE))
        try:
            await install(connection)
        finally:
            await connection.close()


def program_version(name: str) -> str:
    """The version that `name --version` states, "?" if it states none."""
    done = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found[0] if found else "?"
