"""The devel package's PostgreSQL server, with two tenants in it."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from tenant_proxy.devel import installs, postgres
from tenant_proxy.devel.postgres import port_is_free

__all__ = ["Server", "free_port", "frozen", "majors"]

#: below those that servers of the devel package and outgoing connections take
PORTS = range(10_000, 20_000)
#: processes that run tests side by side, at most; each takes ports of its own
LANES = 16

SETTINGS = {
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "wal_level": "logical",
    "shared_buffers": "32MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "autovacuum": "off",
    # DESIGN's catalogue of errors counts on English ones
    "lc_messages": "C",
}


def _ports() -> Iterator[int]:
    """This process's, each once before any comes again; where it begins is left to chance, so that two runs
    of the tests on one machine hardly meet."""
    lane = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % LANES
    ports = PORTS[lane::LANES]
    first = random.SystemRandom().randrange(len(ports))
    return itertools.cycle([*ports[first:], *ports[:first]])


_own_ports = _ports()


def free_port() -> int:
    """Nobody listens there, and no other test will before this one has tried to."""
    return next(port for port in _own_ports if port_is_free(port))


#: with the usual 4,096 a login takes some 3 ms of a processor, and the tests log in thousands of times
SCRAM_ITERATIONS = 64

#: roles, and what all tenants share
POPULATE = """
CREATE ROLE acme_app LOGIN PASSWORD 'acme-secret';
CREATE ROLE beta_app LOGIN PASSWORD 'beta-secret';
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE TABLE public.countries (code text PRIMARY KEY, name text NOT NULL);
INSERT INTO public.countries VALUES ('FR', 'France'), ('JP', 'Japan');
GRANT SELECT ON public.countries TO PUBLIC;
"""

#: a tenant's schema: the same names in each, different rows
POPULATE_TENANT = """
CREATE SCHEMA {name} AUTHORIZATION {name}_app;
SET ROLE {name}_app;
SET search_path = {name};
CREATE TABLE orders (id int PRIMARY KEY, item text NOT NULL, quantity int NOT NULL DEFAULT 1);
CREATE SEQUENCE numbers;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE FUNCTION shout(word text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper(word) $$;
CREATE VIEW big_orders AS SELECT * FROM orders WHERE quantity > 2;
-- a promise that is only checked at COMMIT
CREATE TABLE promises (
    id int PRIMARY KEY,
    keeps int REFERENCES promises DEFERRABLE INITIALLY DEFERRED
);
-- what tests write to and empty again
CREATE TABLE scratch (id int PRIMARY KEY, body text);
INSERT INTO orders VALUES {orders};
RESET ROLE;
RESET search_path;
"""

ORDERS = {
    "acme": [(1, "anvil", 1), (2, "rocket", 2), (3, "spring", 30)],
    "beta": [(1, "bolt", 100), (2, "nut", 200)],
}


def majors() -> list[int]:
    """Every major version found on this machine."""
    return sorted({install.major for install in installs.installs()})


class Server(postgres.Server):
    """A server with database `app`, in which the tenants acme and beta live."""

    def __init__(
        self, major: int | None = None, settings: dict[str, str] | None = None, **options: Any
    ) -> None:
        install = installs.find(major)
        quick = {"scram_iterations": str(SCRAM_ITERATIONS)} if install.major >= 16 else {}
        super().__init__(
            install, settings={**SETTINGS, **quick, **(settings or {})}, locale="C.UTF-8", **options
        )
        self.major = self.install.major

    def populate(self) -> None:
        with self.connect(database="postgres") as conn:
            # hashed anew, by the iterations that are set
            conn.execute(f"ALTER ROLE {self.superuser} PASSWORD '{self.password}'")
            conn.execute("CREATE DATABASE app")
        with self.connect() as conn:
            conn.execute(POPULATE)
            for name, orders in ORDERS.items():
                values = ", ".join(map(str, orders))
                conn.execute(POPULATE_TENANT.format(name=name, orders=values))

    def connect(
        self, user: str | None = None, password: str | None = None, database: str = "app"
    ) -> psycopg.Connection:
        """Past the proxy; as the superuser by default."""
        dsn = self.dsn(user=user or self.superuser, password=password, database=database)
        return psycopg.connect(dsn, autocommit=True)


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    """A server that hangs: none of its processes gets to run, and the kernel still accepts for it."""
    root = server.pid
    children = Path(f"/proc/{root}/task/{root}/children")
    pids = [root]
    os.kill(root, signal.SIGSTOP)
    try:
        # it makes no more of them
        pids += map(int, children.read_text().split())
        for pid in pids[1:]:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
