"""Fixtures: real PostgreSQL servers with two tenants in them.

`pg` is shared by the whole run and is never stopped; `own_pg` is one test's own, to stop and kill;
`any_pg` is `pg` for every major version found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.pg_server import Server, majors


class SharedServers:
    """One server of each major for the whole run, started when first wanted."""

    def __init__(self) -> None:
        self._servers: dict[int | None, Server] = {}

    def get(self, major: int | None = None) -> Server:
        if major not in self._servers:
            server = Server(major)
            self._servers[major] = self._servers[server.major] = server
            server.start()
            server.populate()
        return self._servers[major]

    def close(self) -> None:
        for server in self._servers.values():
            server.stop("immediate")
            server.close()


@pytest.fixture(scope="session")
def pg_servers() -> Iterator[SharedServers]:
    servers = SharedServers()
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def pg(pg_servers: SharedServers) -> Server:
    """The default server: the wheel's, or the newest."""
    return pg_servers.get()


@pytest.fixture(scope="session", params=majors(), ids=lambda major: f"pg{major}")
def any_pg(pg_servers: SharedServers, pg: Server, request: pytest.FixtureRequest) -> Server:
    return pg_servers.get(request.param)


@pytest.fixture
def new_pg() -> Iterator[Callable[..., Server]]:
    """Call with `Server`'s arguments for a running server of this test's own."""
    made: list[Server] = []

    def make(major: int | None = None, **options: object) -> Server:
        server = Server(major, **options)  # type: ignore[arg-type]
        made.append(server)
        server.start()
        server.populate()
        return server

    yield make
    for server in made:
        server.stop("immediate")
        server.close()


@pytest.fixture
def own_pg(new_pg: Callable[..., Server]) -> Server:
    """A server that this test may stop, kill and restart."""
    return new_pg()


@pytest.fixture
def superuser(pg: Server) -> Iterator[psycopg.Connection]:
    """A superuser's connection to `pg`, past the proxy."""
    with pg.connect() as conn:
        yield conn
